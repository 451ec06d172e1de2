"""A model's tokenizer, and the token ids of prompts and completions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from finr1.core.errors import ConfigError
from finr1.core.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model folder; ConfigError if it has no chat template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    if not tokenizer.chat_template:
        raise ConfigError("model.path", folder, "its tokenizer has no chat template", "use an instruct model")
    return tokenizer


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> list[int]:
    """Token ids of the chat, with the header of the assistant's turn."""
    return _render(tokenizer, messages, header=True)


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[Message], header: bool = False) -> list[int]:
    """Token ids by the chat template; ConfigError if it has no system message, ValueError if it refuses the chat."""
    from jinja2 import TemplateError

    chat: Any = messages
    try:
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=header, tokenize=True, return_dict=False)
        return list(ids)
    except TemplateError as error:
        if messages[0]["role"] == "system":
            _render(tokenizer, messages[1:], header)  # ValueError if the system message is not the reason
            why = f"the model's chat template refuses a system message ({error})"
            raise ConfigError("prompt.system", "…", why, "set prompt.system=null, or use another model") from error
        raise ValueError(f"the chat template refuses the chat ({error})") from error


def completion_ids(tokenizer: PreTrainedTokenizerBase, messages: list[Message], text: str) -> list[int]:
    """Token ids of an assistant's answer with its end-of-turn token: the tokens that carry the loss.

    ValueError if the chat template does not render the answer as `prompt + answer + end of turn` (it strips or moves
    the thinking, for example): the loss mask would be wrong.
    """
    ids = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
    whole = _render(tokenizer, [*messages, Message(role="assistant", content=text)])
    expected = prompt_ids(tokenizer, messages) + ids
    if whole[: len(expected)] != expected:
        raise ValueError("the chat template does not render an answer as prompt + answer + end of turn")
    return ids
