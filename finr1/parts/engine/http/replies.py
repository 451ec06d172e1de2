"""What an OpenAI-compatible server said: completions out of a reply, or why there are none."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from finr1.core.types import Completion, FinishReason, Message

THINK = "<think>\n"
FINISH: Mapping[Any, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",  # Hugging Face's TGI, as `stop_sequence`
    "stop_sequence": "stop",
    "end_turn": "stop",
    None: "stop",
    "": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",  # Mistral
}


class Fault(Exception):
    """Why an attempt gave nothing. `after_s` is what the server asked to wait; `lost`: it may have been charged for."""

    def __init__(
        self, why: str, again: bool = True, status: int = 0, after_s: float | None = None, lost: bool = False
    ) -> None:
        super().__init__(why)
        self.again, self.status, self.after_s, self.lost = again, status, after_s, lost


class Reply(NamedTuple):
    """A readable answer: its usable choices, why others were not, and the server's count of tokens, if it gave one."""

    choices: list[Completion]
    fault: Fault | None
    usage: tuple[int, int] | None


def read_reply(raw: bytes, led_in: bool = False) -> Reply:
    """What the server said; Fault where it is no chat completion."""
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Fault("broken JSON in the answer", lost=True) from error
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list):
        raise Fault(f"no choices in the answer: {error_words(raw)}")
    meta = {"model": data["model"]} if isinstance(data.get("model"), str) else {}
    found: list[Completion] = []
    fault = None
    for choice in choices:
        try:
            found.append(with_meta(read_choice(choice, led_in), **meta))
        except Fault as error:
            fault = error
    return Reply(found, fault, _usage(data.get("usage")))


def _usage(usage: object) -> tuple[int, int] | None:
    counts = [usage.get(key) for key in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else []
    prompt, completion = (n if isinstance(n, int) and n >= 0 else None for n in counts or (None, None))
    return None if prompt is None or completion is None else (prompt, completion)


def read_choice(choice: object, led_in: bool = False) -> Completion:
    """One choice; its reasoning may come apart (`reasoning_content`, `reasoning`) or in the text. Fault if empty."""
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise Fault("a choice without a message")
    finish = choice.get("finish_reason")
    if not isinstance(finish, str | None) or finish not in FINISH:
        raise Fault(f"finish_reason {str(finish)[:40]}", again=finish != "content_filter")
    content, apart = message.get("content"), message.get("reasoning_content") or message.get("reasoning")
    if isinstance(content, list):
        content, thought = _parts(content)
        apart = apart or thought
    text = _encodable(content) if isinstance(content, str) else ""
    reasoning = _encodable(apart) if isinstance(apart, str) and apart.strip() else None
    if not text.strip() and not (FINISH[finish] == "length" and reasoning):
        raise Fault("empty content")
    if led_in and reasoning is None and not text.lstrip().startswith(THINK.strip()):
        text = THINK + text
    return Completion(text, FINISH[finish], reasoning=reasoning)


def _parts(content: Sequence[object]) -> tuple[str, str]:
    """Text and thinking of a message in parts, as some servers write it: `{"type": "text", "text": …}`, `thinking`."""
    said = {"text": "", "thinking": ""}
    for part in content:
        if isinstance(part, dict) and (kind := str(part.get("type"))) in said:
            value = part.get(kind)
            said[kind] += value if isinstance(value, str) else _parts(value)[0] if isinstance(value, list) else ""
    return said["text"], said["thinking"]


def retry_after_s(value: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float | None:
    """Seconds that a Retry-After header asks to wait (a number or an HTTP date); None for none, or one unreadable."""
    try:
        seconds = float(value)
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now()).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def share(choices: Sequence[Completion], tokens: int) -> list[Completion]:
    """The choices, each with its part of the completion tokens: a server tells only their sum."""
    sizes = [text_tokens(choice) for choice in choices]
    done = given = 0
    shared = []
    for choice, size in zip(choices, sizes, strict=True):
        done += size
        upto = tokens * done // sum(sizes)
        shared.append(with_meta(choice, n_tokens=upto - given))
        given = upto
    return shared


def with_meta(completion: Completion, **more: Any) -> Completion:
    """The completion with more in its `meta`."""
    return replace(completion, meta={**completion.meta, **more})


def error_words(raw: bytes) -> str:
    """The words of an error body, in the shapes that servers use, or its beginning."""
    text = raw[:4000].decode("utf-8", "replace")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return text
    error = data.get("error", data) if isinstance(data, dict) else text
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or text
    return str(error)


def _encodable(text: str) -> str:
    """JSON may hold lone surrogates, which no file can."""
    return text.encode("utf-8", "replace").decode()


def n_bytes(text: str) -> int:
    """Bytes of UTF-8."""
    return len(text.encode("utf-8", "replace"))


def text_tokens(completion: Completion) -> int:
    """About so many tokens, at 3 bytes each; at least one."""
    return max(1, n_bytes((completion.reasoning or "") + completion.text) // 3)


def prompt_tokens(messages: Sequence[Message]) -> int:
    """About so many tokens, at 3 bytes each and some for the chat template."""
    return sum(n_bytes(message["content"]) // 3 + 8 for message in messages)


def prompt_tokens_at_most(messages: Sequence[Message]) -> int:
    """No byte-level tokenizer makes more than a token a byte; the rest is for the chat template."""
    return sum(n_bytes(message["content"]) + 32 for message in messages)
