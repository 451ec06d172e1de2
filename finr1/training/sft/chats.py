"""Chats from files: rows with `messages`, and the tokens of them that carry the loss."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from finr1.core.errors import ConfigError, DataError, RowError
from finr1.core.prompt import load
from finr1.core.types import Message
from finr1.parts.model.tokens import completion_ids, prompt_ids
from finr1.parts.source.reading import SourceRow, find, need, read
from finr1.settings.sft import CHAT_FILES

ROLES = ("system", "user", "assistant")


class Chat(NamedTuple):
    """A chat that ends with an assistant turn, and its origin: folder, file and line."""

    origin: str
    messages: list[Message]


class Encoded(NamedTuple):
    """Token ids of a chat."""

    prompt: list[int]  # before the first turn that carries the loss
    rest: list[int]
    mask: list[bool]  # which tokens of `rest` carry the loss


def read_chats(place: Path, system: str | None, sources: Sequence[str]) -> tuple[list[Chat], list[RowError]]:
    """Read the chats of a file or folder in order, and the rows that are unusable; DataError where no row is usable.

    `system` names the prompt for chats without a system message. Only rows of these `sources` are used; empty: all.
    """
    chats: list[Chat] = []
    unusable: list[RowError] = []
    for file in find(str(place), CHAT_FILES):
        for row in read(file, ("messages",)):
            try:
                if row.fault:
                    raise RowError(row.place, row.fault)
                if not sources or need(row, "source") in sources:
                    chats.append(Chat(row.origin, _messages(row, system)))
            except RowError as error:
                unusable.append(error)
    if not chats:
        why = (
            f"no usable chat; the first, {unusable[0].place}: {unusable[0].why}"
            if unusable
            else "no row of sft.sources in it"
        )
        raise DataError(place, why, 'a row needs `messages`, [{"role": "user", "content": ...}, ...]')
    return chats, unusable


def _messages(row: SourceRow, system: str | None) -> list[Message]:
    """Check the messages up to the last assistant turn; RowError for what a chat template would drop or not render."""
    outcome = row.values.get("outcome", "good")  # a data set of stage=export has every judged trace
    if outcome != "good":
        raise RowError(row.place, f"its trace was judged {outcome}", reason="not good")
    raw = need(row, "messages")
    if not isinstance(raw, list):
        raise RowError(row.place, "`messages` is not a list")
    messages = [_message(row, number, message) for number, message in enumerate(raw)]
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not turns:
        raise RowError(row.place, "no assistant turn")
    head = [Message(role="system", content=load(system))] if system and messages[0]["role"] != "system" else []
    if "user" not in (message["role"] for message in messages[: turns[0]]):
        raise RowError(row.place, "the first assistant turn comes before any user turn")
    return [*head, *messages[: turns[-1] + 1]]


def _message(row: SourceRow, number: int, message: Any) -> Message:
    if not isinstance(message, Mapping):
        raise RowError(row.place, f"message {number} is not an object")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise RowError(row.place, f"message {number} has the role {role!r}, not {', '.join(ROLES)}")
    if not isinstance(content, str) or (role == "assistant" and not content.strip()):
        raise RowError(row.place, f"message {number} ({role}) has no text")
    if message.get("tool_calls"):
        raise RowError(row.place, f"message {number} calls tools")
    return Message(role=role, content=content)


def encode(tokenizer: PreTrainedTokenizerBase, messages: list[Message], turns: str) -> Encoded:
    """Tokenise a chat; the loss is on the assistant's text with its end-of-turn token, of the last turn or of all.

    ValueError: see `completion_ids`. ConfigError where the template renders an earlier answer differently in a longer
    chat (it drops the thinking), so that `all` would train on text that the model never sees at inference.
    """
    assistant_turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    ids: list[int] = []
    mask: list[bool] = []
    n_prompt = 0
    for i in assistant_turns if turns == "all" else assistant_turns[-1:]:
        before = prompt_ids(tokenizer, messages[:i])
        if before[: len(ids)] != ids:
            why = "the chat template renders an earlier answer differently in a longer chat"
            raise ConfigError("sft.turns", turns, why, "use sft.turns=last")
        answer = completion_ids(tokenizer, messages[:i], messages[i]["content"])
        n_prompt = n_prompt or len(before)
        mask += [False] * (len(before) - len(ids)) + [True] * len(answer)
        ids = before + answer
    return Encoded(ids[:n_prompt], ids[n_prompt:], mask[n_prompt:])
