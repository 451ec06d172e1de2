"""Parse the replies of OpenAI-compatible servers into completions, or into the reason why there are none."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from finr1.core.files import encodable
from finr1.core.types import Completion, FinishReason, Message

THINK = "<think>\n"
FINISH: Mapping[str, FinishReason] = {  # any other reason is a stop too, with the server's word in `meta`
    "stop": "stop",
    "eos": "stop",
    "eos_token": "stop",  # Hugging Face's TGI, as `stop_sequence`
    "stop_sequence": "stop",
    "end_turn": "stop",
    "": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",  # Mistral
}
INCOMPLETE = {"content_filter": False, "insufficient_system_resource": True, "error": True, "abort": True}  # ask again?


class Fault(Exception):
    """Why a request failed. `again`: retry it; `after_s`: Retry-After; `lost`: the server may charge for it."""

    def __init__(
        self, why: str, again: bool = True, status: int = 0, after_s: float | None = None, lost: bool = False
    ) -> None:
        super().__init__(why)
        self.again, self.status, self.after_s, self.lost = again, status, after_s, lost


class Reply(NamedTuple):
    """A parsed reply: its usable choices, why others were unusable, and (prompt, completion) tokens if reported."""

    choices: list[Completion]
    fault: Fault | None
    usage: tuple[int, int] | None


def read_reply(raw: bytes, led_in: bool = False) -> Reply:
    """Parse a reply; Fault if it is not a chat completion."""
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Fault("broken JSON in the answer", lost=True) from error
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list):
        raise Fault(f"no choices in the answer: {error_words(raw)}")
    meta = {"model": data["model"]} if isinstance(data.get("model"), str) else {}
    completions: list[Completion] = []
    fault = None
    for choice in choices:
        try:
            completions.append(with_meta(read_choice(choice, led_in), **meta))
        except Fault as error:
            fault = error
    return Reply(completions, fault, _usage(data.get("usage")))


def _usage(usage: object) -> tuple[int, int] | None:
    counts = [usage.get(key) for key in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else []
    prompt, completion = (n if isinstance(n, int) and n >= 0 else None for n in counts or (None, None))
    return None if prompt is None or completion is None else (prompt, completion)


def read_choice(choice: object, led_in: bool = False) -> Completion:
    """Parse one choice; reasoning may be in a separate field (`reasoning_content`, `reasoning`). Fault if empty or
    incomplete."""
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise Fault("a choice without a message")
    given = choice.get("finish_reason")
    reason = str(given or "")[:40].lower()
    if reason in INCOMPLETE:
        raise Fault(f"finish_reason {reason}", again=INCOMPLETE[reason])
    finish = FINISH.get(reason, "stop")
    content, reasoning_field = message.get("content"), message.get("reasoning_content") or message.get("reasoning")
    if isinstance(content, list):
        content, thought = _parts(content)
        reasoning_field = reasoning_field or thought
    text = encodable(content) if isinstance(content, str) else ""
    reasoning = encodable(reasoning_field) if isinstance(reasoning_field, str) and reasoning_field.strip() else None
    if not text.strip() and not (finish == "length" and reasoning):
        raise Fault("empty content")
    if led_in and reasoning is None and not text.lstrip().startswith(THINK.strip()):
        text = THINK + text
    meta = {} if reason in FINISH else {"finish_reason": encodable(str(given))}
    return Completion(text, finish, reasoning=reasoning, meta=meta)


def _parts(content: Sequence[object]) -> tuple[str, str]:
    """Text and thinking of a message given as typed parts: `{"type": "text", "text": …}`, `thinking`."""
    said = {"text": "", "thinking": ""}
    for part in content:
        if isinstance(part, dict) and (kind := str(part.get("type"))) in said:
            value = part.get(kind)
            said[kind] += value if isinstance(value, str) else _parts(value)[0] if isinstance(value, list) else ""
    return said["text"], said["thinking"]


def retry_after_s(value: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float | None:
    """Seconds to wait by a Retry-After header (a number or an HTTP date); None if missing or malformed."""
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
    """Split the completion tokens over the choices by length: servers report only the sum."""
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
    """The message of an error body in the common formats, or the beginning of the body."""
    text = raw[:4000].decode("utf-8", "replace")
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return text
    error = data.get("error", data) if isinstance(data, dict) else text
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or text
    return str(error)


def n_bytes(text: str) -> int:
    """Bytes of UTF-8."""
    return len(text.encode("utf-8", "replace"))


def text_tokens(completion: Completion) -> int:
    """Estimated tokens of a completion, at 3 bytes each; at least one."""
    return max(1, n_bytes((completion.reasoning or "") + completion.text) // 3)


def prompt_tokens(messages: Sequence[Message]) -> int:
    """Estimated tokens of a chat, at 3 bytes each, with an allowance for the chat template."""
    return sum(n_bytes(message["content"]) // 3 + 8 for message in messages)


def prompt_tokens_at_most(messages: Sequence[Message]) -> int:
    """Upper bound on the tokens of a chat: one per byte, with an allowance for the chat template."""
    return sum(n_bytes(message["content"]) + 32 for message in messages)
