"""SIGKILL at twenty random points of the filter: the same rows in the end, and nothing on disk is judged again."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from finr1.core.jsonl import read_jsonl
from tests.helpers import runner

FILES = ("verdicts.jsonl", "good.jsonl", "bad.jsonl", "undecided.jsonl", "rl.jsonl", "filter_summary.json")
KILLS = 20


@pytest.mark.slow
def test_sigkill_at_random_points_changes_nothing_and_judges_nothing_twice(tmp_path: Path) -> None:
    rng = random.Random(20)
    data = ["source.worked.n_train=160", "source.worked.n_test=2", "benchmark.worked.limit=2"]

    def words(stage: str, name: str, log: Path) -> list[str]:
        judge = ["judge.answer.exact._target_=tests.helpers.slow_judge.SlowExact", f"+judge.answer.exact.log={log}"]
        return [f"stage={stage}", f"name={name}", *data, "filter.chunk=3", "filter.audit_share=0.5", *judge]

    log, whole_log = tmp_path / "log", tmp_path / "whole_log"
    for stage in ("questions", "distil"):
        done = runner.run(tmp_path, *words(stage, "killed", log))
        assert done.returncode == 0, done.stderr
    runs = tmp_path / "runs"
    shutil.copytree(runs / "killed", runs / "whole")
    done = runner.run(tmp_path, *words("filter", "whole", whole_log))
    assert done.returncode == 0, done.stderr
    once = whole_log.read_text().splitlines()
    n = len(once)
    assert n == len(set(once)) == sum(1 for _ in read_jsonl(runs / "whole" / "2_traces" / "traces.jsonl"))

    path = runs / "killed" / "3_filtered" / "verdicts.jsonl"
    killed_at: list[tuple[set[str], int]] = []  # what was on disk after each kill, and how much had been judged
    log.touch()
    for _ in range(KILLS):
        begun, goal = len(log.read_bytes().splitlines()), rng.randint(0, 9)
        process = subprocess.Popen(
            runner.command(*words("filter", "killed", log)),
            cwd=tmp_path,
            env=runner.environment(),
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and len(log.read_bytes().splitlines()) < begun + goal:
            time.sleep(0.001)
        time.sleep(rng.random() / 50)
        process.kill()
        assert process.wait(300) in (-signal.SIGKILL, 0)
        on_disk = {row["question_id"] for row in read_jsonl(path)} if path.exists() else set()
        killed_at.append((on_disk, len(log.read_bytes().splitlines())))
    done = runner.run(tmp_path, *words("filter", "killed", log))
    assert done.returncode == 0, done.stderr

    sizes = [len(on_disk) for on_disk, _ in killed_at]
    assert sizes == sorted(sizes) and len({size for size in sizes if 0 < size < n}) >= 5, sizes
    judged = log.read_text().splitlines()
    for on_disk, count in killed_at:
        assert not on_disk & set(judged[count:])
    for name in FILES:
        ours, theirs = (runs / run / "3_filtered" / name for run in ("killed", "whole"))
        same = ours.read_text().replace(str(log), "") == theirs.read_text().replace(str(whole_log), "")
        assert same, f"{name} differs"
