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
    untrained: Sequence[int] = ()  # assistant turns before the last that say `weight: 0` or `train: false`


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
                    chats.append(Chat(row.origin, *_messages(row, system)))
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


def _messages(row: SourceRow, system: str | None) -> tuple[list[Message], list[int]]:
    """Check the messages up to the last turn to train on; RowError for what a chat template would drop or not render.

    Also returns the indices of the assistant turns before it that carry no loss.
    """
    outcome = row.values.get("outcome", "good")  # a data set of stage=export has every judged trace
    if outcome != "good":
        raise RowError(row.place, f"its trace was judged {outcome}", reason="not good")
    raw = need(row, "messages")
    if not isinstance(raw, list):
        raise RowError(row.place, "`messages` is not a list")
    messages = [_message(row, number, message) for number, message in enumerate(raw)]
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    trained = [i for i in turns if _is_trained(row, i, raw[i])]
    if not trained:
        raise RowError(row.place, "no assistant turn" + (" to train on" if turns else ""))
    head = [Message(role="system", content=load(system))] if system and messages[0]["role"] != "system" else []
    if "user" not in (message["role"] for message in messages[: turns[0]]):
        raise RowError(row.place, "the first assistant turn comes before any user turn")
    untrained = [len(head) + i for i in turns if i < trained[-1] and i not in trained]
    return [*head, *messages[: trained[-1] + 1]], untrained


def _is_trained(row: SourceRow, number: int, message: Mapping[str, Any]) -> bool:
    """Whether an assistant turn carries the loss, by its `weight` (0 or 1) and `train` (a boolean)."""
    weight, train = message.get("weight"), message.get("train")
    if weight not in (None, 0, 1) or train not in (None, False, True):
        raise RowError(row.place, f"message {number} has weight={weight!r}, train={train!r}: only 0 and 1 are known")
    return weight != 0 and train is not False


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
    thinking = message.get("reasoning_content")
    if role == "assistant" and isinstance(thinking, str) and thinking.strip() and "</think>" not in content:
        content = f"<think>\n{thinking.strip()}\n</think>\n{content}"
    return Message(role=role, content=content)


def encode(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], turns: str, untrained: Sequence[int] = ()
) -> Encoded:
    """Tokenise a chat; the loss is on the assistant's text with its end-of-turn token, of the last turn or of all.

    ValueError: see `completion_ids`. ConfigError where the template renders an earlier answer differently in a longer
    chat (it drops the thinking), so that `all` would train on text that the model never sees at inference.
    """
    is_trained = (message["role"] == "assistant" and i not in untrained for i, message in enumerate(messages))
    assistant_turns = [i for i, trained in enumerate(is_trained) if trained]
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
