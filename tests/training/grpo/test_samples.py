"""Sampled completions: the run folder and W&B's offline files hold the same rows, also after a kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from finr1.core.jsonl import read_jsonl
from finr1.core.types import Verdict
from finr1.training.grpo.record import table
from tests.helpers.runner import REPO
from tests.helpers.tiny_engine import TinyEngine
from tests.helpers.wandb_file import read
from tests.training.grpo.test_step import walk

_RUN = """
import sys
from pathlib import Path
from tests.training.grpo.test_step import SHORT, Killed, walk
from tests.helpers.tiny_engine import TinyEngine
from finr1.settings.grpo import SamplesSettings
from finr1.training.grpo.step import GrpoModule
from finr1.core.tracking import Tracker
from finr1.parts.logger.wandb import WandbLogger
folder = Path(sys.argv[1])
logger = WandbLogger(project="finr1-test", mode="offline")
logger.start(folder, "my run", {})
kind = Killed if sys.argv[2] == "killed" else GrpoModule
try:
    walk(folder, TinyEngine(SHORT), kind, Tracker(folder, [logger]), samples=SamplesSettings(2, 5))
except RuntimeError as error:
    assert str(error) == "killed" == sys.argv[2], error
logger.close(False)
"""


@pytest.mark.slow
def test_wandb_and_the_run_folder_hold_the_same_samples_after_a_kill(tmp_path: Path) -> None:
    path = str(REPO)
    for kind in ("killed", "whole"):
        command = [sys.executable, "-c", _RUN, str(tmp_path), kind]
        done = subprocess.run(
            command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
    rows = list(read_jsonl(tmp_path / "samples.jsonl"))
    assert [row["step"] for row in rows] == [0] * 5 + [2] * 5  # not step 1; the killed step 2 came to no table
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    runs = [read(file) for file in files]
    run_id = (tmp_path / "wandb_id").read_text().strip()
    assert [run["id"] for run in runs] == [run_id] * 2
    (checkpoint, *_) = sorted((tmp_path / "checkpoints").glob("*.ckpt"))
    assert torch.load(checkpoint, weights_only=True)["runs"] == {"WandbLogger": run_id}
    shown: list[dict[str, Any]] = []
    for file, run in zip(files, runs, strict=True):
        for row in run["history"]:
            if "grpo/samples.path" in row:
                assert row["grpo/samples._type"] == "table-file"
                found = json.loads((file.parent / "files" / row["grpo/samples.path"]).read_text())
                shown += [dict(zip(found["columns"], values, strict=True)) for values in found["data"]]
    assert len(shown) == 10
    for row, seen in zip(rows, shown, strict=True):
        for name in ("step", "prompt", "completion", "advantage", "reward", "weights_version", "truncated"):
            assert seen[name] == row[name], name
        assert seen["verdict/odd"] == row["rewards"]["odd"]["value"] and seen["why/odd"] == row["rewards"]["odd"]["why"]


def test_each_reward_has_columns_and_undecided_stays_none() -> None:
    row = {"step": 3, "completion": "c", "reward": None, "advantage": 0.0}
    found = {"form": Verdict(1.0, None, "good"), "judge": Verdict(None, None, "timed out")}
    rewards = {name: {"value": v.value, "why": v.why} for name, v in found.items()}
    columns, values = table([{**row, "rewards": rewards}])
    verdicts = ["verdict/form", "why/form", "verdict/judge", "why/judge"]
    assert columns == ["step", "completion", "reward", "advantage", *verdicts]
    assert values == [[3, "c", None, 0.0, 1.0, "good", None, "timed out"]]
    assert table([]) == ([], [])


def test_samples_of_every_step_by_default(tmp_path: Path) -> None:
    walk(tmp_path, TinyEngine())
    assert {row["step"] for row in read_jsonl(tmp_path / "samples.jsonl")} == {0, 1, 2}
