"""Chats from outside a run: rows with `messages`, and which of their tokens carry the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from finr1.core.errors import ConfigError, DataError, RowError
from finr1.core.prompt import load
from finr1.core.types import Message
from finr1.parts.model.tokens import completion_ids, prompt_ids
from finr1.parts.source.reading import SourceRow, find, need, read
from finr1.settings.sft import CHAT_FILES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROLES = ("system", "user", "assistant")


class Chat(NamedTuple):
    """A chat that ends with an assistant's turn, and where it stands: folder, file and number."""

    origin: str
    messages: list[Message]


class Encoded(NamedTuple):
    """Token ids before the first turn that carries the loss and from there on, and which of the latter carry it."""

    prompt: list[int]
    rest: list[int]
    mask: list[bool]


def read_chats(place: Path, system: str | None, sources: Sequence[str]) -> tuple[list[Chat], list[RowError]]:
    """The chats of a file or folder in their order, and the rows that are none.

    `system` names a prompt text that begins every chat without a system message of its own. `sources`: only rows whose
    `source` is one of these; empty: all. What follows the last assistant's turn is left out: nothing of it is trained
    on. DataError where no row can be used.
    """
    chats: list[Chat] = []
    unfit: list[RowError] = []
    for file in find(str(place), CHAT_FILES):
        for row in read(file, ("messages",)):
            try:
                if row.fault:
                    raise RowError(row.place, row.fault)
                if not sources or need(row, "source") in sources:
                    chats.append(Chat(row.origin, _messages(row, system)))
            except RowError as error:
                unfit.append(error)
    if not chats:
        why = f"no usable chat; the first, {unfit[0].place}: {unfit[0].why}" if unfit else "no row of sft.sources in it"
        raise DataError(place, why, 'a row needs `messages`, [{"role": "user", "content": ...}, ...]')
    return chats, unfit


def _messages(row: SourceRow, system: str | None) -> list[Message]:
    """Checked messages up to the last assistant's turn; RowError for what a template would drop or cannot render."""
    outcome = row.values.get("outcome", "good")  # a data set of stage=export has every judged trace
    if outcome != "good":
        raise RowError(row.place, f"its trace was judged {outcome}", reason="not good")
    given = need(row, "messages")
    if not isinstance(given, list):
        raise RowError(row.place, "`messages` is no list")
    messages = [_message(row, number, message) for number, message in enumerate(given)]
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    if not turns:
        raise RowError(row.place, "no turn of an assistant")
    head = [Message(role="system", content=load(system))] if system and messages[0]["role"] != "system" else []
    if "user" not in (message["role"] for message in messages[: turns[0]]):
        raise RowError(row.place, "the assistant speaks before any user")
    return [*head, *messages[: turns[-1] + 1]]


def _message(row: SourceRow, number: int, message: Any) -> Message:
    if not isinstance(message, Mapping):
        raise RowError(row.place, f"message {number} is no object")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise RowError(row.place, f"message {number} has the role {role!r}, not {', '.join(ROLES)}")
    if not isinstance(content, str) or (role == "assistant" and not content.strip()):
        raise RowError(row.place, f"message {number} ({role}) has no text")
    if message.get("tool_calls"):
        raise RowError(row.place, f"message {number} calls tools")
    return Message(role=role, content=content)


def encode(tokenizer: PreTrainedTokenizerBase, messages: list[Message], turns: str) -> Encoded:
    """Token ids of a chat; the loss is on the assistant's texts with their ends of turn, of the last turn or of all.

    ValueError as `completion_ids` has it. ConfigError where an earlier answer is rendered in another way once the chat
    goes on (a template that drops its thinking): with `all` that would be trained on what is never seen again.
    """
    speaks = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    ids: list[int] = []
    mask: list[bool] = []
    n_prompt = 0
    for i in speaks if turns == "all" else speaks[-1:]:
        before = prompt_ids(tokenizer, messages[:i])
        if before[: len(ids)] != ids:
            why = "the chat template renders an earlier answer in another way once the chat goes on"
            raise ConfigError("sft.turns", turns, why, "use sft.turns=last")
        answer = completion_ids(tokenizer, messages[:i], messages[i]["content"])
        n_prompt = n_prompt or len(before)
        mask += [False] * (len(before) - len(ids)) + [True] * len(answer)
        ids = before + answer
    return Encoded(ids[:n_prompt], ids[n_prompt:], mask[n_prompt:])
