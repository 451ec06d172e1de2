"""Metrics: the local mirror, and what W&B gets offline."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from finr1.core.errors import ConfigError
from finr1.core.tracking import Tracker, read_metrics
from finr1.parts.logger.wandb import WandbLogger
from tests.helpers.runner import REPO
from tests.helpers.wandb_file import read


class ListSink:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.rows: list[tuple[dict[str, float], str, int]] = []
        self.tables: list[str] = []
        self.closed: list[bool] = []

    def start(self, run_dir: Path, name: str, config: Mapping[str, Any]) -> None: ...

    def log(self, metrics: Mapping[str, float], step_name: str, step: int) -> None:
        self.rows.append((dict(metrics), step_name, step))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self.tables.append(name)

    def close(self, failed: bool) -> None:
        self.closed.append(failed)


def test_the_mirror_keeps_the_last_row_of_a_step_and_sorts_them(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path)
    tracker.log("grpo", {"reward": 0.5, "loss": 1.0}, step=1)
    tracker.log("sft", {"loss": 9.0}, step=1)
    tracker.log("grpo", {"reward": 0.25}, step=0)
    tracker.log("grpo", {"reward": 0.75}, step=1)  # a resumed stage logs step 1 again
    assert read_metrics(tmp_path, "grpo") == [(0, {"reward": 0.25}), (1, {"reward": 0.75, "loss": 1.0})]
    assert read_metrics(tmp_path, "distil") == []


def test_rows_before_since_belong_to_an_older_attempt(tmp_path: Path) -> None:
    Tracker(tmp_path).log("sft", {"loss": 3.0}, step=5)
    ((step, metrics),) = read_metrics(tmp_path, "sft", since=0.0)
    assert (step, metrics) == (5, {"loss": 3.0})
    assert read_metrics(tmp_path, "sft", since=4e9) == []


def test_values_that_are_not_finite_survive_the_mirror(tmp_path: Path) -> None:
    Tracker(tmp_path).log("sft", {"loss": float("nan"), "grad_norm": float("inf")}, step=0)
    ((_, metrics),) = read_metrics(tmp_path, "sft")
    assert metrics["loss"] != metrics["loss"] and metrics["grad_norm"] == float("inf")


def test_sinks_get_full_names_and_the_stages_own_step(tmp_path: Path) -> None:
    logger = ListSink()
    tracker = Tracker(tmp_path, [logger])
    tracker.log("grpo", {"reward": 0.5}, step=3)
    tracker.table("grpo/samples", ["a"], [[1]])
    tracker.close(failed=True)
    assert logger.rows == [({"grpo/reward": 0.5}, "grpo/step", 3)]
    assert logger.tables == ["grpo/samples"] and logger.closed == [True]


def test_an_unknown_mode_of_wandb_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"logger\.wandb.mode=ofline: no such mode"):
        WandbLogger(mode="ofline")


_RUN = """
import sys
from pathlib import Path
from finr1.core.tracking import Tracker
from finr1.parts.logger.wandb import WandbLogger
folder, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
logger = WandbLogger(project="finr1-test", mode="offline", tags=["a"])
logger.start(folder, "my run", {"seed": 3, "grpo": {"steps": 2}})
tracker = Tracker(folder, [logger])
for step in range(first, last):
    tracker.log("grpo", {"reward": step / 10}, step)
tracker.log("sft", {"loss": 2.5}, first)
tracker.close()
"""


def test_wandb_offline_holds_name_config_and_metrics_and_a_second_process_continues_the_run(tmp_path: Path) -> None:
    for first, last in ((0, 2), (2, 3)):  # processes of their own: wandb keeps a service a process
        command = [sys.executable, "-c", _RUN, str(tmp_path), str(first), str(last)]
        done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    runs = [read(file) for file in files]
    assert len(runs) == 2
    run_id = (tmp_path / "wandb_id").read_text().strip()
    for run in runs:
        assert (run["id"], run["name"], run["project"], run["exit_code"]) == (run_id, "my run", "finr1-test", 0)
        assert run["config"]["seed"] == 3 and run["config"]["grpo"] == {"steps": 2}
        assert run["metrics"]["grpo/*"] == "grpo/step" and run["metrics"]["sft/*"] == "sft/step"
    rewards = [(row["grpo/step"], row["grpo/reward"]) for run in runs for row in run["history"] if "grpo/reward" in row]
    assert rewards == [(0, 0.0), (1, 0.1), (2, 0.2)]
    assert [row["sft/loss"] for run in runs for row in run["history"] if "sft/loss" in row] == [2.5, 2.5]
