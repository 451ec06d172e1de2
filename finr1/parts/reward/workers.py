"""Rewards that cannot hurt the run: a hanging or crashing one costs the completion it is about, never the others.

In this process an exception becomes an undecided verdict of that completion. A reward that may hang or take the process
down with it (it runs code, it calls a library in C) goes into worker processes instead: each completion has a time
limit, and a worker that passes it, or ends, is replaced. No torch here: workers start in a fraction of a second.
"""

from __future__ import annotations

import pickle
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from finr1.core.errors import ConfigError, Finr1Error
from finr1.core.types import Verdict
from finr1.parts.reward.base import Reward, RewardItem
from finr1.settings.grpo import WorkerSettings

_START_S = 120.0  # for a worker to come up: it imports the rewards' modules
_CONTEXT = get_context("spawn")  # a fork of a process with torch's threads and an engine in it may hang


@contextmanager
def guarded(rewards: Mapping[str, Reward], settings: WorkerSettings) -> Iterator[dict[str, Guarded]]:
    """The rewards by name, those that `settings` name in worker processes, which end with the block."""
    inside = {name: reward for name, reward in rewards.items() if name in settings.rewards}
    pool = Pool(inside, settings.processes, settings.timeout_s) if inside else None
    try:
        yield {name: Guarded(name, reward, pool if name in inside else None) for name, reward in rewards.items()}
    finally:
        if pool:
            pool.close()


def count_failures(rewards: Mapping[str, Reward]) -> int:
    """Verdicts that were lost so far: the reward hung, raised, or its process ended."""
    return sum(getattr(reward, "failures", 0) for reward in rewards.values())


class Guarded:
    """A reward whose failures are undecided verdicts, and counted; errors meant for the user (Finr1Error) pass."""

    def __init__(self, key: str, reward: Reward, pool: Pool | None = None) -> None:
        self.key, self.reward, self.pool = key, reward, pool
        self.name, self.weight = reward.name, reward.weight
        self.full: float | None = getattr(reward, "full", 1.0)
        self.failures = 0

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]:
        """One verdict a completion, whatever the reward does."""
        if self.pool:
            found = self.pool.grade(self.key, items)
        else:
            try:
                return _checked(self.reward, items)
            except Finr1Error:
                raise
            except Exception:  # of one completion: which one is seen by asking again, one at a time
                found = [_try(self.reward, item) for item in items]
        self.failures += sum(isinstance(one, str) for one in found)
        return [Verdict(None, why=one) if isinstance(one, str) else one for one in found]


class Pool:
    """Worker processes that grade one completion each at a time."""

    def __init__(self, rewards: Mapping[str, Reward], processes: int, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        try:
            self._rewards = pickle.dumps(dict(rewards))
        except Exception as error:
            names = ", ".join(rewards)
            why = f"they cannot be sent to a process ({type(error).__name__}: {error})"
            raise ConfigError("grpo.workers.rewards", names, why, "leave out the one that holds it open") from error
        self._bad_starts = 0
        self._workers = [_Worker(self._rewards, timeout_s) for _ in range(processes)]

    def grade(self, key: str, items: Sequence[RewardItem]) -> list[Verdict | str]:
        """A verdict an item, or why there is none; Finr1Error where a reward raises one."""
        found: list[Verdict | str] = [""] * len(items)
        todo = list(reversed(range(len(items))))
        busy: dict[int, int] = {}  # item by place of its worker
        while todo or busy:
            for place, worker in enumerate(self._replaced()):
                if todo and place not in busy and worker.ask(key, items[todo[-1]]):
                    busy[place] = todo.pop()
            there = [worker for worker in self._workers if not worker.gone]
            if there:  # none where every one had ended while idle: the next round has new ones
                wait([worker.pipe for worker in there], max(0.0, min(w.deadline for w in there) - time.monotonic()))
            for place, worker in enumerate(self._workers):
                answer = None if worker.gone else worker.answer()
                if answer is not None and place in busy:
                    found[busy.pop(place)] = answer
        self._replaced()  # they come up while the trainer works
        return found

    def _replaced(self) -> list[_Worker]:
        lost = [worker for worker in self._workers if worker.gone and not worker.ready]
        self._bad_starts = 0 if any(w.ready for w in self._workers) else self._bad_starts + len(lost)
        if self._bad_starts > 3:
            why = f"no worker process comes up ({lost[0].why})"
            raise ConfigError("grpo.workers.rewards", "[…]", why, "use [] to see the error")
        self._workers = [_Worker(self._rewards, self.timeout_s) if w.gone else w for w in self._workers]
        return self._workers

    def close(self) -> None:
        """End every worker."""
        for worker in self._workers:
            worker.end()


class _Worker:
    """One process. It is starting, then idle or busy, then gone; `deadline` is when it must have said something."""

    def __init__(self, rewards: bytes, timeout_s: float) -> None:
        self.timeout_s, self.gone, self.ready, self.why = timeout_s, False, False, ""
        self.pipe, theirs = _CONTEXT.Pipe()
        self.process = _CONTEXT.Process(target=_serve, args=(theirs, rewards, timeout_s), daemon=True)
        self.process.start()
        theirs.close()
        self.deadline = time.monotonic() + _START_S

    def ask(self, key: str, item: RewardItem) -> bool:
        """Give it a completion to grade; False where it cannot take one now."""
        if not self.ready or self.gone:
            return False
        try:
            self.pipe.send((key, item))
        except OSError:  # it ended while idle
            self.end()
            return False
        self.deadline = time.monotonic() + self.timeout_s
        return True

    def answer(self) -> Verdict | str | None:
        """What it said of its completion, if anything; a worker past its deadline, or ended, is gone afterwards."""
        if not self.pipe.poll():
            if time.monotonic() < self.deadline:
                return None
            return self._lost(f"no verdict within {self.timeout_s:g} s")
        self.deadline = float("inf")
        try:
            said: Any = self.pipe.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            self.process.join(1.0)
            return self._lost(f"its process ended with exit code {self.process.exitcode}")
        if not self.ready:
            self.ready = True
            return None
        if isinstance(said, Finr1Error):
            raise said
        return said  # type: ignore[no-any-return]

    def _lost(self, why: str) -> str | None:
        self.why = why if self.ready else f"{why}, while starting"
        self.end()
        return why if self.ready else None

    def end(self) -> None:
        """Kill it: a hanging one would not listen to anything else."""
        self.gone = True
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(pipe: Connection, pickled: bytes, timeout_s: float) -> None:
    """What a worker does: say that it is there, then grade until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which ends its workers
    rewards: Mapping[str, Reward] = pickle.loads(pickled)
    pipe.send("ready")
    while True:
        try:
            key, item = pipe.recv()
        except EOFError:  # the run is over, or was killed
            return
        # If the run was killed, nobody is left to end a reward that hangs: the kernel does, without asking Python.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, timeout_s + 10)
        try:
            found: Verdict | str | Finr1Error = _try(rewards[key], item)
        except Finr1Error as error:
            found = Finr1Error(str(error))  # its own class may not come through a pipe
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.send(found)


def _try(reward: Reward, item: RewardItem) -> Verdict | str:
    try:
        return _checked(reward, [item])[0]
    except Finr1Error:
        raise
    except (Exception, SystemExit) as error:
        return f"{type(error).__name__}: {error}"[:300]


def _checked(reward: Reward, items: Sequence[RewardItem]) -> list[Verdict]:
    verdicts = [Verdict(*verdict) for verdict in reward.grade(items)]
    if len(verdicts) != len(items):
        raise ValueError(f"{len(verdicts)} verdicts for {len(items)} completions")
    return verdicts
