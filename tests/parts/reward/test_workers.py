"""A reward that hangs, raises or crashes loses the verdict of one completion and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing import active_children
from pathlib import Path

import pytest

from finr1.core.errors import ConfigError, Finr1Error
from finr1.core.types import Verdict
from finr1.parts.reward.accuracy import Accuracy
from finr1.parts.reward.base import RewardItem
from finr1.parts.reward.workers import Guarded, Workers, count_failures, guarded
from finr1.settings.grpo import WorkerSettings
from tests.helpers.runner import environment
from tests.helpers.stages import question


class Obeys:
    """Does what the completion says; otherwise gives its length."""

    name, weight = "obeys", 2.0

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]:
        return [self._one(item.text) for item in items]

    def _one(self, text: str) -> Verdict:
        match text:
            case "hang":
                while True:
                    time.sleep(60)
            case "spin":
                while True:
                    pass
            case "raise":
                raise ValueError("not this one")
            case "exit":
                sys.exit(3)
            case "die":
                os._exit(7)
            case "stop":
                raise ConfigError("reward.obeys", "stop", "the purse is empty", "fill it")
            case "undecided":
                return Verdict(None, why="cannot tell")
        return Verdict(float(len(text)), why=str(os.getpid()))


class Open:
    """Holds what no process can be sent."""

    name, weight = "open", 1.0

    def __init__(self) -> None:
        self.file = sys.stdout

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]:
        return [Verdict(1.0)] * len(items)


class Short:
    """Returns a verdict too few."""

    name, weight = "short", 1.0

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]:
        return [Verdict(1.0)] * (len(items) - 1)


def items(*texts: str) -> list[RewardItem]:
    return [RewardItem(question("q"), text, False) for text in texts]


WORKERS = WorkerSettings(rewards=["obeys"], processes=2, timeout_s=1.5)


@pytest.mark.slow
def test_workers_lose_only_the_completions_that_break_the_reward() -> None:
    with guarded({"obeys": Obeys(), "accuracy": Accuracy()}, WORKERS) as rewards:
        obeys = rewards["obeys"]
        assert obeys.weight == 2.0
        found = obeys.grade(items("a", "hang", "bb", "raise", "die", "undecided", "ccc", "exit", "spin", "dddd"))
        assert [v.value for v in found] == [1, None, 2, None, None, None, 3, None, None, 4]
        assert [v.why for v in found if v.value is None] == [
            "no verdict within 1.5 s",
            "ValueError: not this one",
            "its process ended with exit code 7",
            "cannot tell",
            "SystemExit: 3",
            "no verdict within 1.5 s",
        ]
        assert count_failures(rewards) == 5  # "cannot tell" is a verdict
        again = obeys.grade(items("a", "bb", "ccc"))  # replaced workers go on, and what was late is not mixed in
        assert [v.value for v in again] == [1, 2, 3] and count_failures(rewards) == 5
        assert {int(v.why) for v in again}.isdisjoint({os.getpid()})
        assert obeys.grade([]) == []
        assert rewards["accuracy"].workers is None


def test_workers_grade_all_completions_in_order() -> None:
    workers = Workers({"obeys": Obeys()}, processes=2, timeout_s=30)
    try:
        found = workers.grade("obeys", items(*("x" * n for n in range(1, 41))))
        assert [v.value for v in found if isinstance(v, Verdict)] == list(range(1, 41))
        assert len({v.why for v in found if isinstance(v, Verdict)}) in (1, 2)  # one may not be up yet
    finally:
        workers.close()


@pytest.mark.slow
def test_workers_that_die_while_idle_are_replaced_without_a_loss() -> None:
    workers = Workers({"obeys": Obeys()}, processes=2, timeout_s=30)
    try:
        workers.grade("obeys", items(*"abcd"))
        for process in active_children():
            process.kill()
            process.join()
        assert [v.value for v in workers.grade("obeys", items("a", "bb")) if isinstance(v, Verdict)] == [1, 2]
    finally:
        workers.close()


@pytest.mark.slow
def test_hanging_workers_are_killed() -> None:
    with guarded({"obeys": Obeys()}, WORKERS) as rewards:
        rewards["obeys"].grade(items("a"))
        before = [process.pid for process in active_children()]
        began = time.monotonic()
        rewards["obeys"].grade(items("spin", "hang"))
        assert time.monotonic() - began < 30
        after = [process.pid for process in active_children()]
        assert before and not set(before) & set(after)
    for pid in (*before, *after):
        assert pid is not None
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_in_the_trainers_process_an_exception_loses_one_verdict() -> None:
    reward = Guarded("obeys", Obeys())
    found = reward.grade(items("a", "raise", "bb"))
    assert [v.value for v in found] == [1, None, 2] and found[1].why == "ValueError: not this one"
    assert reward.failures == 1
    short = Guarded("short", Short())
    assert [v.value for v in short.grade(items("a", "b"))] == [None, None] and short.failures == 2


@pytest.mark.parametrize("names", [[], ["obeys"]])
def test_an_error_for_the_user_ends_the_run(names: list[str]) -> None:
    with (
        guarded({"obeys": Obeys()}, WorkerSettings(rewards=names)) as rewards,
        pytest.raises(Finr1Error, match="obeys=stop: the purse is empty; fill it"),
    ):
        rewards["obeys"].grade(items("stop"))


@pytest.mark.parametrize("value", ["1", float("inf"), float("nan"), [1.0]])
def test_a_reward_that_is_no_finite_number_is_one_line_that_names_it(value: object) -> None:
    class Odd:
        name, weight = "odd", 1.0

        def grade(self, items: Sequence[RewardItem]) -> list[Verdict]:
            return [Verdict(1.0), Verdict(value)][: len(items)]  # type: ignore[arg-type]

    with pytest.raises(ConfigError, match=r"reward\.mine=.*: a reward is a finite number; ") as error:
        Guarded("mine", Odd()).grade(items("a", "b"))
    assert "\n" not in str(error.value)
    assert Guarded("mine", Odd()).grade(items("a")) == [Verdict(1.0)]


def test_a_reward_that_cannot_be_pickled_is_one_line() -> None:
    with (
        pytest.raises(ConfigError, match=r"grpo\.workers\.rewards=open: they cannot be sent"),
        guarded({"open": Open()}, WorkerSettings(rewards=["open"])),
    ):
        pass


class Unloadable:
    """Can be pickled, but not unpickled."""

    name, weight = "unloadable", 1.0

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return int, ("not a number",)

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]:
        return []


def test_workers_that_cannot_start_are_one_line() -> None:
    with (
        guarded({"unloadable": Unloadable()}, WorkerSettings(rewards=["unloadable"])) as rewards,
        pytest.raises(
            ConfigError, match=r"grpo\.workers\.rewards=\[…\]: no worker process can start; use \[\] to see the error"
        ),
    ):
        rewards["unloadable"].grade(items("a"))


ORPHAN = """
import os, signal, sys
from multiprocessing import active_children
from tests.parts.reward.test_workers import Obeys, items
from finr1.parts.reward.workers import Workers

if __name__ == "__main__":
    workers = Workers({"obeys": Obeys()}, processes=2, timeout_s=60)
    assert len(workers.grade("obeys", items("a", "b"))) == 2
    print(*(process.pid for process in active_children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_workers_of_a_killed_run_exit() -> None:
    run = subprocess.run([sys.executable, "-c", ORPHAN], env=environment(), capture_output=True, text=True)
    pids = list(map(int, run.stdout.split()))
    assert len(pids) == 2, run.stderr
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)
