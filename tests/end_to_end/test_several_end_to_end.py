"""SFT and GRPO on two ranks through the command line, with the real model and one vLLM engine per rank."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from finr1.core.tracking import read_metrics
from tests.helpers import runner

pytestmark = pytest.mark.slow


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_two_ranks_train_and_write_one_run(tiny_run: Path, tmp_path: Path) -> None:
    """The other stages are reused from a run of one process; what the ranks train is written once and complete."""
    run = tmp_path / "runs" / "tiny"
    for folder in ("1_questions", "2_traces", "3_filtered"):
        shutil.copytree(tiny_run / folder, run / folder)
    few = ("benchmark.worked.limit=4", "evaluate.sampled=false")
    # full fine-tuning would need 6 GB
    ranks = ("trainer.fit.devices=2", "sft.rows_per_step=2", "grpo.group_size=4", "model.adapter=lora")
    exact = ("model.dtype=float32", "trainer.fit.precision=32-true")  # in bf16 an untrained policy's mismatch is large
    result = runner.run(tmp_path, "+experiment=tiny", runner.SPREAD, *few, *ranks, *exact)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stderr.count("done before") == 3  # and each trained stage is reported by one rank
    assert [result.stderr.count(f"{stage}  ") for stage in ("sft ", "grpo ")] == [2, 2]
    questions = {row["question_id"] for row in rows(run / "5_grpo" / "questions.jsonl")}
    assert len(questions) == 4
    assert {row["question_id"] for row in rows(run / "5_grpo" / "pass_rates.jsonl")} == questions
    samples = rows(run / "5_grpo" / "samples.jsonl")
    assert [row["step"] for row in samples] == [0] * 8 + [1] * 8  # two questions, four completions, of both ranks
    for step in (0, 1):
        assert len({row["question_id"] for row in samples if row["step"] == step}) == 2
    sft, grpo = read_metrics(run, "sft"), read_metrics(run, "grpo")
    assert [step for step, _ in sft] == [0] and [step for step, _ in grpo] == [0, 1]
    assert all(math.isfinite(m["grad_norm"]) and m["grad_norm"] > 0 for _, m in sft)
    trained = [m for _, m in grpo if m["groups_with_spread"] > 0]
    assert trained and all(0 < m["mismatch"] < 1e-3 and m["canary"] < 1e-3 for m in trained), trained
    assert not list(run.rglob("*.ckpt")) and not (run / "5_grpo" / "rollouts").exists()
    for stage in ("4_sft", "5_grpo"):
        assert (run / stage / "model" / "model.safetensors").is_file()
