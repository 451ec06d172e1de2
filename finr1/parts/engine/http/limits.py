"""Rate limits and spend ceilings of engine `http`; thread-safe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic

from finr1.parts.engine.ledger import Ledger, Tokens


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
    """Keeps what a ledger says, at most, below a ceiling of tokens or money (None: none); prices per million tokens.

    A call starts only if the longest answers that its question still needs fit beside what is paid and reserved.
    """

    max_tokens: int | None = None
    max_money: float | None = None
    price_in: float = 0.0
    price_out: float = 0.0
    ledger: Ledger = field(default_factory=Ledger)
    _reserved: dict[object, Tokens] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def reserve(self, question: object, tokens: Tokens) -> bool:
        """Reserve this much for a question in place of what it had; whether it fits (else it has nothing)."""
        with self._lock:
            self._reserved.pop(question, None)
            held = [self.ledger.account.at_most, tokens, *self._reserved.values()]
            total = Tokens(*map(sum, zip(*held, strict=True)))
            if self.max_tokens is not None and sum(total) > self.max_tokens:
                return False
            if self.max_money is not None and self.money(total) > self.max_money:
                return False
            self._reserved[question] = tokens
            return True

    def release(self, question: object) -> None:
        """Release the reservation of a finished question."""
        with self._lock:
            self._reserved.pop(question, None)

    def money(self, tokens: Tokens) -> float:
        """The cost of these tokens."""
        return (tokens.prompt * self.price_in + tokens.completion * self.price_out) / 1e6

    @property
    def idle(self) -> bool:
        """Whether nothing is reserved."""
        return not self._reserved
