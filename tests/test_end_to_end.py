"""The whole pipeline at a tiny setting with every real part; SIGKILL in training and resume."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import runner
from runner import SPREAD

from finr1.pipeline import STAGES
from finr1.tracking import read_metrics

pytestmark = pytest.mark.slow


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def manifest(run: Path, folder: str) -> dict[str, Any]:
    return json.loads((run / folder / "manifest.json").read_text())  # type: ignore[no-any-return]


def test_every_stage_left_what_it_should(tiny_run: Path) -> None:
    counts = {f: manifest(tiny_run, f)["counts"] for f in ("2_traces", "3_filtered", "4_sft", "5_grpo")}
    filtered = counts["3_filtered"]
    assert filtered["good"] + filtered["bad"] + filtered["undecided"] == counts["2_traces"]["traces"] == 24
    assert len(rows(tiny_run / "4_sft" / "rows.jsonl")) == counts["4_sft"]["rows"] == 9
    assert counts["5_grpo"]["steps"] == 2
    summary = json.loads((tiny_run / "7_report" / "summary.json").read_text())
    assert list(summary["stages"]) == ["questions", "distil", "filter", "sft", "grpo", "evaluate"]
    for model in ("base", "sft", "grpo"):
        for mode, n in (("greedy", 4), ("sampled", 4 if model == "base" else 8)):
            scores = summary["scores"][model][mode]
            assert scores["n"] == n
            assert 0 <= scores["format"] <= 1
    assert {"sft_vs_base", "grpo_vs_sft"} <= summary["paired"].keys()
    assert summary["versions"]["torch"].startswith("2.13")
    assert (tiny_run / "7_report" / "report.html").stat().st_size > 20_000


def test_only_finr1_speaks_on_the_terminal(tiny_run: Path) -> None:
    """No library's advice or warning between the lines of the stages."""
    lines = (tiny_run.parents[1] / "stderr.txt").read_text().splitlines()
    assert len(lines) >= 2 * len(STAGES)
    assert not [line for line in lines if line.split()[0].rstrip(":") not in STAGES]


def test_training_really_moved(tiny_run: Path) -> None:
    sft, grpo = read_metrics(tiny_run, "sft"), read_metrics(tiny_run, "grpo")
    assert [step for step, _ in sft] == list(range(len(sft))) and len(sft) >= 2
    assert all(math.isfinite(m["loss"]) and m["grad_norm"] > 0 for _, m in sft)
    trained = [m for _, m in grpo if m["groups_with_spread"] > 0]
    assert trained, "no group had spread: the test shows nothing"
    for metrics in trained:
        assert metrics["grad_norm"] > 0
        # bf16 on both sides: small, and not zero, since the two compute differently
        assert 0 < metrics["mismatch"] < 0.05
    versions = [row["weights_version"] for row in rows(tiny_run / "5_grpo" / "samples.jsonl")]
    assert set(versions) == {"step 0", "step 1"}
    from safetensors.torch import load_file

    before, after = (load_file(tiny_run / f / "model" / "model.safetensors") for f in ("4_sft", "5_grpo"))
    assert before.keys() == after.keys()
    assert any(not (before[name] == after[name]).all() for name in before)


def test_lineage_leads_back_to_the_question(tiny_run: Path) -> None:
    questions = {row["id"] for row in rows(tiny_run / "1_questions" / "questions.jsonl")}
    traces = {row["id"]: row for row in rows(tiny_run / "2_traces" / "traces.jsonl")}
    good = {row["trace"]["id"] for row in rows(tiny_run / "3_filtered" / "good.jsonl")}
    for row in rows(tiny_run / "4_sft" / "rows.jsonl"):
        assert row["trace_id"] in good
        assert traces[row["trace_id"]]["question_id"] == row["question_id"] in questions
    trained = {row["question_id"] for row in rows(tiny_run / "4_sft" / "rows.jsonl")}
    for row in rows(tiny_run / "5_grpo" / "questions.jsonl"):
        assert row["question_id"] in questions - trained


def test_the_model_folder_loads_in_transformers(tiny_run: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tiny_run / "5_grpo" / "model"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.dtype == torch.bfloat16 and tokenizer.chat_template
    assert model.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()


def test_a_second_run_starts_nothing(tiny_run: Path) -> None:
    began = time.monotonic()
    result = runner.run(tiny_run.parents[1], "+experiment=tiny", SPREAD)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("done before") == 7
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("stage", ["sft", "grpo", "evaluate"])
def test_sigkill_and_resume(tiny_run: Path, tmp_path: Path, stage: str) -> None:
    """Kill inside a stage once it has done a step; the same command finishes and repeats no finished stage."""
    changed = {
        "sft": "sft.max_grad_norm=0.9",
        "grpo": "grpo.max_grad_norm=0.9",
        "evaluate": "evaluate.sampling.max_new_tokens=23",
    }
    run = tmp_path / "runs" / "tiny"
    subprocess.run(["cp", "-r", str(tiny_run.parent), str(tmp_path)], check=True)
    arguments = ("+experiment=tiny", SPREAD, changed[stage])
    began = time.time()
    process = subprocess.Popen(
        runner.command(*arguments), cwd=tmp_path, env=runner.environment(), stderr=subprocess.DEVNULL
    )
    folder = run / {"sft": "4_sft", "grpo": "5_grpo", "evaluate": "6_scores"}[stage]

    def reached() -> bool:
        if stage == "evaluate":
            found = list(folder.rglob("*.greedy.jsonl"))
            return not (folder / "manifest.json").exists() and any(path.stat().st_size for path in found)
        return (folder / "last.ckpt").exists() and len(read_metrics(run, stage, began)) >= 1

    while not reached():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.time() - began < 300
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "manifest.json").exists()
    killed_at = time.time()
    result = runner.run(tmp_path, *arguments)
    assert result.returncode == 0, result.stderr[-3000:]
    order = ["questions", "distil", "filter", "sft", "grpo", "evaluate", "report"]
    skipped = Counter(line.split()[0] for line in result.stderr.splitlines() if "done before" in line)
    assert sorted(skipped, key=order.index) == order[: order.index(stage)]
    assert "continues where it stopped" in result.stderr
    if stage != "evaluate":
        steps = [step for step, _ in read_metrics(run, stage, began)]
        assert steps == list(range(len(steps)))
        redone = [step for step, _ in read_metrics(run, stage, killed_at)]
        assert redone and 0 not in redone, "it began anew instead of at its checkpoint"
    assert (run / ".old").is_dir()  # the changed setting kept the old folder
    assert manifest(run, "7_report")["stage"] == "report"
