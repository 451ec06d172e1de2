"""Ask an engine many requests: every result once, failed calls held back until a later one succeeds, one stop rule.

Distil, the cache of the judges and the evaluation ask through it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from threading import Lock
from typing import NoReturn

from finr1.core.errors import Finr1Error
from finr1.core.types import Completion
from finr1.parts.engine.base import Engine, OnDone, Request, StreamEngine
from finr1.parts.engine.ledger import Ledger
from finr1.settings.sampling import Sampling

STOP_AFTER = 128  # consecutive failed calls after which an engine counts as down


class Asker:
    """Asks the engine of one role. A call fails where all its completions do.

    Args:
        role: of the engine, for the error.
        ledger: counts the calls and, of a streaming engine, what earlier attempts paid towards its ceiling.
        stop_after: Finr1Error after so many consecutive failed calls (0: never).
        chunk: requests at a time of an engine that does not stream (0: all).
        worked: whether a call succeeded before, in an earlier attempt.
    """

    def __init__(
        self,
        role: str,
        engine: Engine,
        ledger: Ledger | None = None,
        stop_after: int = STOP_AFTER,
        chunk: int = 0,
        worked: bool = False,
    ) -> None:
        self.role, self.engine, self.ledger = role, engine, ledger or Ledger()
        self.stop_after, self.chunk, self.worked = stop_after, chunk, worked
        self.failures = 0  # consecutive, up to the latest call
        self._errors = ("", "")  # of the first and the last of them
        self._held: list[Callable[[], None]] = []
        self._lock = Lock()  # an engine may report from its own threads

    def ask(self, requests: Iterable[Request], sampling: Sampling, keep: OnDone) -> None:
        """Ask these requests; `keep(index, completions)` gets each result once, one at a time, in any order.

        A failed call is kept once a later one has succeeded, at the latest by `finish` or `flush`.
        """
        if isinstance(self.engine, StreamEngine):
            self.engine.ledger = self.ledger
            self.engine.stream(requests, sampling, self._once(sampling.n, 0, keep))
            return
        rest, start = iter(requests), 0
        while batch := list(islice(rest, self.chunk or None)):
            report = self._once(sampling.n, start, keep)
            for index, completions in enumerate(self.engine.generate(batch, sampling, report)):
                report(index, completions)  # an engine may leave `on_done` uncalled
            start += len(batch)

    def finish(self) -> None:
        """Keep the failed calls that are held back; Finr1Error if no call ever succeeded."""
        if self.failures and not self.worked:
            self._stop()
        self.flush()

    def flush(self) -> None:
        """Keep the failed calls that are held back."""
        held, self._held = self._held, []
        for deliver in held:
            deliver()

    def _once(self, n: int, start: int, keep: OnDone) -> OnDone:
        seen: set[int] = set()

        def report(index: int, completions: Sequence[Completion]) -> None:
            with self._lock:
                if index not in seen:
                    seen.add(index)
                    if len(completions) != n:
                        raise RuntimeError(f"{self.engine.name}: {len(completions)} completions for {n} samples")
                    self._count(completions)
                    self._held.append(partial(keep, start + index, completions))
                    if not self.failures:
                        self.flush()

        return report

    def _count(self, completions: Sequence[Completion]) -> None:
        failed = all(completion.finish_reason == "error" for completion in completions)
        self.ledger.asked(failed)
        self.failures = self.failures + 1 if failed else 0
        self.worked = self.worked or not failed
        if failed:
            last = completions[0].error
            self._errors = (last if self.failures == 1 else self._errors[0], last)
            if 0 < self.stop_after <= self.failures:
                self._stop()

    def _stop(self) -> NoReturn:
        first, last = self._errors
        raise Finr1Error(
            f"engine.{self.role}={self.engine.name}: the last {self.failures} calls all failed, the first with "
            f"`{first}`, the last with `{last}`; fix it and start again: those calls are repeated"
        )
