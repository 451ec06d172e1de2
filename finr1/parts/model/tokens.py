"""A model's tokenizer, and the token ids of prompts and completions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finr1.core.errors import ConfigError
from finr1.core.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

THINK = "<think>"


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model folder; ConfigError if it has no chat template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    if not tokenizer.chat_template:
        raise ConfigError("model.path", folder, "its tokenizer has no chat template", "use an instruct model")
    return tokenizer


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> list[int]:
    """Token ids of the chat, with the header of the assistant's turn.

    ConfigError where the chat template takes no system message; ValueError where it refuses the chat otherwise.
    """
    from jinja2 import TemplateError

    chat: Any = messages
    try:
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=False)
    except TemplateError as error:
        if messages[0]["role"] != "system":
            raise ValueError(f"the chat template refuses it ({error})") from error
        prompt_ids(tokenizer, messages[1:])
        why = f"the model's chat template takes no system message ({error})"
        raise ConfigError("prompt.system", "…", why, "use prompt.system=null, and chats without one") from error
    return list(ids)


def begun(tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int]) -> str:
    """The `<think>` and white space with which the chat template ends a prompt, so that answers lack it; else empty."""
    tail = str(tokenizer.decode(list(prompt[-24:]))).rpartition(THINK)
    return THINK + tail[2] if tail[1] and not tail[2].strip() else ""


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that the chat template writes after an answer: not everywhere the tokenizer's end of sequence."""
    chat: Any = [Message(role="user", content="question"), Message(role="assistant", content="ANSWER")]
    after = str(tokenizer.apply_chat_template(chat, tokenize=False)).rpartition("ANSWER")[2]
    known: Any = tokenizer
    ids: list[int] = known.encode(after, add_special_tokens=False)
    end: int = next((i for i in ids if i in known.added_tokens_decoder), known.eos_token_id)
    return end


def completion_ids(tokenizer: PreTrainedTokenizerBase, messages: list[Message], text: str) -> list[int]:
    """Token ids of an assistant's answer, after `prompt_ids`, with its end-of-turn token: those that carry the loss.

    Chat templates may render an answer in a chat differently (move or drop its thinking): here it is as the model
    samples it. ValueError where it contains the end of turn, or has no thinking and the template begins one.
    """
    if start := begun(tokenizer, prompt_ids(tokenizer, messages)):
        if not text.lstrip().startswith(THINK):
            raise ValueError(f"the chat template begins with {THINK}, the answer does not")
        text = text.lstrip()
        text = text.removeprefix(start if text.startswith(start) else THINK)
    ids, end = tokenizer.encode(text, add_special_tokens=False), end_of_turn(tokenizer)
    if end in ids[:-1]:
        raise ValueError("the answer contains the end-of-turn token")
    return ids if ids[-1:] == [end] else [*ids, end]
