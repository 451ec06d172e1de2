"""Rate limits and spend ceilings of engine `http`; thread-safe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic

from finr1.parts.engine.base import Spend


class Pace:
    """Spaces requests evenly under `requests_per_minute` and `tokens_per_minute`; None: no such limit.

    Evenly, not in bursts, because a server may start its minute at any moment. `clock` returns seconds.
    """

    def __init__(
        self,
        requests_per_minute: float | None = None,
        tokens_per_minute: float | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._request_s = 60 / requests_per_minute if requests_per_minute else 0.0
        self._token_s = 60 / tokens_per_minute if tokens_per_minute else 0.0
        self._clock, self._lock = clock, Lock()
        self._next_request = self._next_token = self._held = clock()

    def take(self, tokens: int) -> float:
        """Reserve the next free slot for a request of about this many tokens; return the seconds until it."""
        with self._lock:
            now = self._clock()
            slot = max(now, self._held, self._next_request, self._next_token)
            self._next_request = slot + self._request_s
            self._next_token = max(now, self._next_token) + tokens * self._token_s
            return slot - now

    def correct(self, tokens: int) -> None:
        """Add the difference between the tokens used and those that `take` assumed."""
        with self._lock:
            self._next_token += tokens * self._token_s

    def hold(self, seconds: float) -> None:
        """Send nothing for this long, as the server asked."""
        with self._lock:
            self._held = max(self._held, self._clock() + seconds)

    @property
    def held(self) -> bool:
        """Whether a hold is in force."""
        return self._clock() < self._held


@dataclass
class Budget:
    """Counts what is spent and keeps it below a ceiling of tokens or of money (None: no ceiling).

    A question starts only if its worst case fits beside what is spent and reserved, so that completions never exceed
    the ceiling.
    """

    max_tokens: int | None = None
    max_money: float | None = None
    spent: Spend = field(default_factory=Spend)
    _reserved: dict[int, tuple[int, int]] = field(default_factory=dict)
    _number: int = 0
    _answers: int = 0
    _answer_tokens: int = 0
    _lock: Lock = field(default_factory=Lock)

    def reserve(self, prompt_tokens: int, completion_tokens: int) -> int | None:
        """Reserve the worst case of one question; return its number, or None where it does not fit now."""
        with self._lock:
            held = [(prompt_tokens, completion_tokens), *self._reserved.values()]
            prompt, completion = (sum(column) for column in zip(*held, strict=True))
            prompt, completion = prompt + self.spent.prompt_tokens, completion + self.spent.completion_tokens
            if self.max_tokens is not None and prompt + completion > self.max_tokens:
                return None
            if self.max_money is not None and self.spent.money(prompt, completion) > self.max_money:
                return None
            self._number += 1
            self._reserved[self._number] = (prompt_tokens, completion_tokens)
            return self._number

    def release(self, number: int) -> None:
        """Release the reservation of a finished question."""
        with self._lock:
            del self._reserved[number]

    def pay(self, prompt_tokens: int, completion_tokens: int, answers: int = 0) -> None:
        """Count tokens that the server charges for, and the answers that they paid for."""
        with self._lock:
            self.spent.prompt_tokens += prompt_tokens
            self.spent.completion_tokens += completion_tokens
            if answers:
                self._answers += answers
                self._answer_tokens += completion_tokens

    def expected(self, otherwise: int) -> int:
        """Mean tokens per answer so far; `otherwise` before the first."""
        return self._answer_tokens // self._answers if self._answers else otherwise

    @property
    def idle(self) -> bool:
        """Whether no question is in flight."""
        return not self._reserved
