"""The whole pipeline with the real engine and adapters synced separately (`lora_sync=adapter`); killed and resumed."""

from __future__ import annotations

import filecmp
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from finr1.core.files import read_json
from finr1.core.jsonl import read_jsonl
from finr1.core.tracking import read_metrics
from tests.helpers import runner
from tests.helpers.runner import SPREAD

pytestmark = pytest.mark.slow

FP32 = ("model.dtype=float32", "trainer.fit.precision=32-true", "grpo.canary.bound=1e-3")
COMMAND = ("+experiment=tiny", "engine.policy.lora_sync=adapter", SPREAD)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`+experiment=tiny` with LoRA, engine and trainer in fp32."""
    folder = tmp_path_factory.mktemp("whole")
    done = runner.run(folder, *COMMAND, *FP32, "model.adapter=lora")
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "runs" / "tiny"


def test_the_engine_has_the_trained_weights_after_each_update(run: Path) -> None:
    steps = [metrics for _, metrics in read_metrics(run, "grpo")]
    assert len(steps) >= 2 and all(m["grad_norm"] > 0 for m in steps)
    assert all(m["mismatch"] < 1e-4 and m["canary"] < 1e-4 for m in steps)
    assert read_json(run / "7_report" / "summary.json")["scores"].keys() == {"base", "sft", "grpo"}
    versions = {row["step"]: row["weights_version"] for row in read_jsonl(run / "5_grpo" / "samples.jsonl")}
    assert versions == {step: f"step {step}" for step in range(len(steps))}


def test_a_killed_and_resumed_grpo_is_bit_identical(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "runs" / "tiny"
    shutil.copytree(run, copy)
    for later in ("5_grpo", "6_scores", "7_report"):
        shutil.rmtree(copy / later)
    arguments, began = (*COMMAND, *FP32, "model.adapter=lora", "stage=grpo"), time.time()
    process = subprocess.Popen(
        runner.command(*arguments), cwd=tmp_path, env=runner.environment(), stderr=subprocess.DEVNULL
    )
    while not any((copy / "5_grpo").glob("checkpoints/*.ckpt")):
        assert process.poll() is None and time.time() - began < 300
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (copy / "5_grpo" / "manifest.json").exists()
    killed_at, done = time.time(), runner.run(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    redone = [step for step, _ in read_metrics(copy, "grpo", killed_at)]
    assert redone and 0 not in redone, "it restarted from scratch instead of from its checkpoint"
    for name in ("model/model.safetensors", "samples.jsonl", "questions.jsonl"):
        assert filecmp.cmp(run / "5_grpo" / name, copy / "5_grpo" / name, shallow=False), name


def test_adapters_on_4_bit_weights_without_merging(tmp_path: Path) -> None:
    """Log-probs of engine and trainer agree as closely as bf16 allows."""
    done = runner.run(tmp_path, *COMMAND, "model.adapter=qlora", "stage=pipeline")
    assert done.returncode == 0, done.stderr[-3000:]
    for _, metrics in read_metrics(tmp_path / "runs" / "tiny", "grpo"):
        assert 0 < metrics["mismatch"] < 0.06 and 0 < metrics["canary"] < 0.15
