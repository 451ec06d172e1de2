"""Rewards that cannot hurt the run: a hanging or crashing one loses the verdict of its completion and nothing else.

In the trainer's process an exception makes the verdict of its completion undecided. A reward that may hang or crash (it
runs code, it calls a C library) runs in worker processes instead: a completion that takes longer than the time limit,
or ends its process, is undecided, and the process is replaced. This module imports no torch, so that workers start
quickly.
"""

from __future__ import annotations

import math
import pickle
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import TimeoutError
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from numbers import Real
from typing import Any

from pebble import ProcessExpired, ProcessPool

from finr1.core.errors import ConfigError, Finr1Error
from finr1.core.types import Verdict
from finr1.parts.reward.base import Reward, RewardItem
from finr1.settings.grpo import WorkerSettings

_STARTS = 4  # pools started in a row without any verdict before the rewards are blamed


@contextmanager
def guarded(rewards: Mapping[str, Reward], settings: WorkerSettings) -> Iterator[dict[str, Guarded]]:
    """Guard the rewards by name; those in `settings` run in worker processes, which end with the block."""
    in_workers = {name: reward for name, reward in rewards.items() if name in settings.rewards}
    workers = Workers(in_workers, settings.processes, settings.timeout_s) if in_workers else None
    try:
        yield {name: Guarded(name, reward, workers if name in in_workers else None) for name, reward in rewards.items()}
    finally:
        if workers:
            workers.close()


def count_failures(rewards: Mapping[str, Reward]) -> int:
    """Verdicts lost so far because the reward hung, raised, or crashed."""
    return sum(getattr(reward, "failures", 0) for reward in rewards.values())


class Guarded:
    """A reward whose failures become undecided verdicts and are counted; errors for the user (Finr1Error) pass."""

    def __init__(self, key: str, reward: Reward, workers: Workers | None = None) -> None:
        self.key, self.reward, self.workers = key, reward, workers
        self.weight = reward.weight
        self.failures = 0

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]:
        """One verdict per completion, whatever the reward does."""
        if self.workers:
            graded = self.workers.grade(self.key, items)
        else:
            try:
                return _grade_all(self.key, self.reward, items)
            except Finr1Error:
                raise
            except Exception:  # find the completion at fault: grade them one by one
                graded = [_grade_one(self.key, self.reward, item) for item in items]
        self.failures += sum(isinstance(verdict, str) for verdict in graded)
        return [Verdict(None, why=verdict) if isinstance(verdict, str) else verdict for verdict in graded]


class Workers:
    """Worker processes that grade one completion each at a time; ConfigError where the rewards cannot be sent there."""

    def __init__(self, rewards: Mapping[str, Reward], processes: int, timeout_s: float) -> None:
        self.processes, self.timeout_s = processes, timeout_s
        try:
            self._rewards = pickle.dumps(dict(rewards))
        except Exception as error:
            why = f"they cannot be sent to a process ({type(error).__name__}: {error})"
            remedy = "leave out the one that holds it open"
            raise ConfigError("grpo.workers.rewards", ", ".join(rewards), why, remedy) from error
        self._pool = self._start()

    def _start(self) -> ProcessPool:
        # Spawned: forking a process with torch's threads and an engine may hang.
        return ProcessPool(self.processes, 0, _load, (self._rewards,), get_context("spawn"))

    def grade(self, key: str, items: Sequence[RewardItem]) -> list[Verdict | str]:
        """A verdict per completion, or the reason why it is lost; Finr1Error where a reward raises one."""
        verdicts: dict[int, Verdict | str] = {}
        fruitless = 0  # pools in a row that gave no verdict
        while len(verdicts) < len(items):
            more = self._try(key, {i: item for i, item in enumerate(items) if i not in verdicts})
            verdicts |= more
            fruitless = 0 if more else fruitless + 1
            if fruitless == _STARTS:
                why = "no worker process can start"
                raise ConfigError("grpo.workers.rewards", "[…]", why, "use [] to see the error")
            if len(verdicts) < len(items):  # an idle worker died, or none could start: pebble gives up the pool
                self.close()
                self._pool = self._start()
        return [verdicts[i] for i in range(len(items))]

    def _try(self, key: str, items: Mapping[int, RewardItem]) -> dict[int, Verdict | str]:
        """The verdicts that this pool gives; none for completions not started when it broke."""
        verdicts: dict[int, Verdict | str] = {}
        try:
            arguments = [(key, item, self.timeout_s) for item in items.values()]
            futures = [self._pool.schedule(_serve, one, timeout=self.timeout_s) for one in arguments]
        except RuntimeError:  # the pool broke since the last call
            return verdicts
        for i, future in zip(items, futures, strict=True):
            try:
                verdict = future.result()
            except TimeoutError:
                verdicts[i] = f"no verdict within {self.timeout_s:g} s"
            except ProcessExpired as error:
                verdicts[i] = f"its process ended with exit code {error.exitcode}"
            except BrokenProcessPool:
                continue
            else:
                if isinstance(verdict, Finr1Error):
                    raise verdict
                verdicts[i] = verdict
        return verdicts

    def close(self) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()


_loaded: dict[str, Reward] = {}  # in a worker process


def _load(pickled: bytes) -> None:
    _loaded.update(pickle.loads(pickled))


def _serve(key: str, item: RewardItem, timeout_s: float) -> Verdict | str | Finr1Error:
    """Grade a completion in a worker process."""
    # If the run is killed, nothing ends a reward that hangs: the kernel does, without asking Python.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, timeout_s + 10)
    try:
        return _grade_one(key, _loaded[key], item)
    except Finr1Error as error:
        return Finr1Error(str(error))  # its subclass may not survive pickling
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _grade_one(key: str, reward: Reward, item: RewardItem) -> Verdict | str:
    try:
        return _grade_all(key, reward, [item])[0]
    except Finr1Error:
        raise
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}"[:300]


def _grade_all(key: str, reward: Reward, items: Sequence[RewardItem]) -> list[Verdict]:
    """The reward's verdicts; ConfigError for a value that is no finite number, which no average survives."""
    verdicts = [Verdict(*verdict) for verdict in reward.grade(items)]
    values: list[Any] = [verdict.value for verdict in verdicts]
    for value in values:
        if value is not None and not (isinstance(value, Real) and math.isfinite(value)):
            remedy = "let it return a number, or None for undecided"
            raise ConfigError(f"reward.{key}", repr(value)[:60], "a reward is a finite number", remedy)
    if len(verdicts) != len(items):
        raise ValueError(f"{len(verdicts)} verdicts for {len(items)} completions")
    return verdicts
