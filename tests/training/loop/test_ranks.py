"""Several ranks do what one does: who takes what, the same gradients, resume bit for bit, errors in one line."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from finr1.core.ranks import ALONE, LOST, Ranks
from tests.helpers import runner
from tests.helpers.runner import REPO, start

SEVERAL = REPO / "tests" / "helpers" / "several.py"
CASES = {"sft": "sft", "grpo": "grpo"}
Found = dict[str, dict[str, Any]]


class Fake(Ranks):
    """A rank whose fellows give what is written here."""

    def __init__(self, rank: int, world: int, gathered: Sequence[Any] = ()) -> None:
        super().__init__(rank, world)
        self.gathered = list(gathered)

    def gather(self, value: Any) -> list[Any]:
        assert self.gathered[self.rank] == value
        return self.gathered


@pytest.mark.parametrize("n", range(8))
def test_unshard_restores_the_order_of_shard(n: int) -> None:
    items = list("abcdefgh"[:n])
    parts = [Fake(r, 3).shard(items) for r in range(3)]
    assert [len(part) for part in parts] == sorted((len(part) for part in parts), reverse=True)
    for rank in range(3):
        assert Fake(rank, 3, parts).unshard(parts[rank]) == items


def test_rows_are_shared_out_by_their_size() -> None:
    # largest first: 9 to rank 0, 7 to rank 1, 6 to 1 (7 < 9), 5 to 0 (9 < 13), 4 to 1 (13 < 14), 2 to 0 (14 < 17)
    names, sizes = ["two", "nine", "five", "seven", "six", "four"], [2, 9, 5, 7, 6, 4]
    assert Ranks(0, 2).share(names, sizes) == ["two", "nine", "five"]
    assert Ranks(1, 2).share(names, sizes) == ["seven", "six", "four"]
    assert [Ranks(r, 3).share(["one"], [5]) for r in range(3)] == [["one"], [], []]
    assert ALONE.share(names, sizes) == ALONE.shard(names) == names
    for world in range(1, 9):
        held = [name for r in range(world) for name in Ranks(r, world).share(names, sizes)]
        assert Counter(held) == Counter(names)


@pytest.mark.slow
def test_two_ranks_have_the_gradients_of_one(both: tuple[Found, Found]) -> None:
    """Every loss, with groups left out, steps in which a rank has no row, and several updates a rollout."""
    one, two = both
    assert one.keys() == two.keys()
    for variant in one:
        alone, together = one[variant]["gradients"], two[variant]["gradients"]
        assert len(alone) == len(together) >= 3
        for expected, found in zip(alone, together, strict=True):
            assert expected.keys() == found.keys() and expected
            norm = torch.stack([g.norm() for g in expected.values()]).norm()
            assert norm > 1e-3
            for name in expected:
                scale = float(expected[name].abs().max().clamp_min(1e-6))
                assert float((expected[name] - found[name]).abs().max()) / scale < 1e-5, f"{variant}: {name}"


@pytest.mark.slow
def test_the_first_rank_writes_what_one_would(both: tuple[Found, Found]) -> None:
    """All rows in the step's order, and the metrics of the whole step."""
    machine = ("_s", "mfu", "memory_gib")
    for variant, alone in both[0].items():
        together = both[1][variant]
        for (step, metrics), (its_step, its) in zip(alone["metrics"], together["metrics"], strict=True):
            assert step == its_step and metrics.keys() == its.keys()
            for name in metrics:
                if not name.endswith(machine):
                    assert its[name] == pytest.approx(metrics[name], rel=1e-4, abs=1e-5), f"{variant}: {name}"
        assert alone["files"].keys() == together["files"].keys()
        for name, rows in alone["files"].items():
            for row, its_row in zip(rows, together["files"][name], strict=True):
                advantage, its_advantage = (r.pop("advantage", 0.0) for r in (row, its_row))
                assert row == its_row and advantage == pytest.approx(its_advantage, abs=1e-5)


@pytest.mark.slow
def test_each_variant_exercises_what_it_is_named_for(trained: Path) -> None:
    """Each shows what it is there for: something is clipped, left out, undecided, asked anew."""
    left = torch.load(trained / "grpo.1.pt")
    found = {variant: [row for _, row in left[variant]["metrics"]] for variant in left}
    assert [row["groups_with_spread"] for row in found["dapo"]] == pytest.approx([0.5, 0.25, 0.75])
    assert any(row["undecided"] > 0 for row in found["dapo"]) and any(row["clip_ratio"] > 0 for row in found["dapo"])
    assert len(left["dapo, two updates"]["gradients"]) > 3
    assert all(row["corrected"] > 0 for row in found["token_mask"])
    assert max(row["groups_asked"] for row in found["asked anew"]) > 4
    assert "eval_accuracy" in found["evaluated"][-1]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_two_ranks_that_are_killed_end_as_if_nothing_had_been(tmp_path: Path, stage: str) -> None:
    """With dropout and a reward that draws: each rank's random states are those it had. The second rank is killed."""
    assert start(2, SEVERAL, f"{stage}.drawn", tmp_path / "whole").returncode == 0
    killed = start(2, SEVERAL, f"{stage}.drawn", tmp_path / "killed", KILL="1")
    assert killed.returncode == 128 + 9
    assert killed.stderr.splitlines()[-1] == (
        "error: rank 1 was ended by SIGKILL; start the same command again to continue"
    )
    resumed = start(2, SEVERAL, f"{stage}.drawn", tmp_path / "killed")
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    whole, left = (torch.load(tmp_path / f / f"{stage}.drawn.2.pt")["drawn"] for f in ("whole", "killed"))
    assert 0 < len(left["gradients"]) < len(whole["gradients"]), "it began anew instead of at its checkpoint"
    assert all(torch.equal(whole["weights"][name], left["weights"][name]) for name in whole["weights"])
    assert whole["files"] == left["files"]


FAILS = """
import sys
from finr1.core import ranks
from finr1.__main__ import main
from finr1.core.errors import ConfigError
import finr1.__main__ as command

def run(cfg, arguments):
    together = ranks.init_ranks()
    if together.rank == 1:
        raise ConfigError("some.key", 3, "it cannot be", "repair it")
    together.gather(None)
    return 0

command.run = run
sys.exit(main([]))
"""


@pytest.mark.slow
def test_a_rank_that_fails_ends_all_in_one_line(tmp_path: Path) -> None:
    done = start(2, "-c", FAILS)
    assert done.returncode == 2
    assert done.stderr.strip() == "error: some.key=3: it cannot be; repair it"
    assert LOST not in (0, 1, 2)


@pytest.mark.slow
def test_ranks_that_lose_each_other_do_not_end_in_silence() -> None:
    done = start(2, "-c", FAILS.replace("together.rank == 1", "True").replace("ConfigError(", "ranks.LostRank("))
    assert done.returncode == LOST
    assert done.stderr.strip() == "error: the ranks lost contact, and none reports why; check the network between them"


ENDS = """
import sys
import torch
from finr1.core import ranks
from finr1.__main__ import main
import finr1.__main__ as command

def run(cfg, arguments):
    ranks.init_ranks().sum(torch.ones(5, requires_grad=True).sum().detach())
    return 0

command.run = run
sys.exit(main([]))
"""


@pytest.mark.slow
def test_ranks_that_are_done_end_without_fault() -> None:
    """Left to the interpreter's end, one in four such runs was aborted by torch's threads, beside others."""
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: start(2, "-c", ENDS), range(9)))
    assert [(run.returncode, run.stderr) for run in done] == [(0, "")] * 9


ORPHAN = """
import os, sys, time
from pathlib import Path
from finr1.core import ranks

launcher, folder = os.getppid(), Path(sys.argv[1])
def tell(what):
    half = folder / f"half.{ranks.number()}"
    half.write_text(str(os.getpid()))
    half.rename(folder / f"{what}.{ranks.number()}")

if sys.argv[2] == "late":
    tell("ready")
    while os.getppid() == launcher:
        time.sleep(0.05)
try:
    together = ranks.init_ranks()
except ranks.LostRank:
    tell("lost")
    sys.exit(ranks.LOST)
if ranks.number() == 0 or sys.argv[2] == "late":
    tell("ready")
    time.sleep(600)
tell("ready")
together.gather(None)  # waits for the first rank
tell("done")
"""


def running(pid: int) -> bool:
    """Whether there is such a process, and it is more than an entry that nobody has collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def until(what: Callable[[], bool], limit_s: float) -> bool:
    """Whether it became true in time."""
    end = time.monotonic() + limit_s
    while not what() and time.monotonic() < end:
        time.sleep(0.05)
    return what()


@pytest.mark.slow
@pytest.mark.parametrize("when", ["met", "late"])
def test_no_rank_outlives_a_launcher_that_is_killed(tmp_path: Path, when: str) -> None:
    """One that computes, one that waits for it; and both before they have met, which none could then wait for."""
    command = [sys.executable, "-c", runner.LAUNCH, "2", "-c", ORPHAN, str(tmp_path), when]
    launcher = subprocess.Popen(command, env=runner.environment())
    ready = [tmp_path / f"ready.{rank}" for rank in (0, 1)]
    assert until(lambda: all(path.exists() for path in ready), 300)
    pids = [int(path.read_text()) for path in ready]
    assert all(map(running, pids))
    launcher.kill()
    launcher.wait()
    assert until(lambda: not any(map(running, pids)), 120)
    left = {path.name for path in tmp_path.iterdir()} - {path.name for path in ready}
    assert left == ({"lost.0", "lost.1"} if when == "late" else set())
