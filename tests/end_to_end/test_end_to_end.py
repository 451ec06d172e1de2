"""`+experiment=tiny` with every real part; SIGKILL and resume."""

from __future__ import annotations

import filecmp
import json
import math
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from finr1.core.tracking import read_metrics
from finr1.run.stages import PIPELINE, STAGES, chosen
from tests.helpers import runner
from tests.helpers.runner import SPREAD

pytestmark = pytest.mark.slow


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def manifest(run: Path, folder: str) -> dict[str, Any]:
    return json.loads((run / folder / "manifest.json").read_text())  # type: ignore[no-any-return]


def test_every_stage_writes_its_output(tiny_run: Path) -> None:
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


def test_the_terminal_shows_only_lines_of_finr1(tiny_run: Path) -> None:
    """No warnings of libraries between the lines of the stages."""
    lines = (tiny_run.parents[1] / "stderr.txt").read_text().splitlines()
    assert len(lines) >= 2 * len(chosen(PIPELINE))
    assert not [line for line in lines if line.split()[0].rstrip(":") not in STAGES]


def test_training_changes_the_weights(tiny_run: Path) -> None:
    sft, grpo = read_metrics(tiny_run, "sft"), read_metrics(tiny_run, "grpo")
    assert [step for step, _ in sft] == list(range(len(sft))) and len(sft) >= 2
    assert all(math.isfinite(m["loss"]) and m["grad_norm"] > 0 for _, m in sft)
    trained = [m for _, m in grpo if m["groups_with_spread"] > 0]
    assert trained, "no group had spread: the test shows nothing"
    for metrics in trained:
        assert metrics["grad_norm"] > 0
        # small, also in bf16, and not zero, since the two compute differently
        assert 0 < metrics["mismatch"] < 0.05
    versions = {row["step"]: row["weights_version"] for row in rows(tiny_run / "5_grpo" / "samples.jsonl")}
    moved = grpo[0][1]["groups_with_spread"] > 0  # weights that a step left alone keep their name
    assert versions == {0: "step 0", 1: "step 1" if moved else "step 0"}
    from safetensors.torch import load_file

    before, after = (load_file(tiny_run / f / "model" / "model.safetensors") for f in ("4_sft", "5_grpo"))
    assert before.keys() == after.keys()
    assert any(not (before[name] == after[name]).all() for name in before)


def test_rows_can_be_traced_back_to_their_question(tiny_run: Path) -> None:
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
    from omegaconf import OmegaConf
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tiny_run / "5_grpo" / "model"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chosen_dtype = OmegaConf.load(tiny_run / "config.yaml").model.dtype  # by the CPU (tests/core/test_cpu.py)
    assert str(model.dtype) == f"torch.{chosen_dtype}" and tokenizer.chat_template
    assert model.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()


def test_a_second_run_starts_nothing(tiny_run: Path) -> None:
    began = time.monotonic()
    result = runner.run(tiny_run.parents[1], "+experiment=tiny", SPREAD)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("done before") == 7
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("stage", ["sft", "grpo", "evaluate"])
def test_a_killed_and_resumed_run_is_bit_identical(tiny_run: Path, tmp_path: Path, stage: str) -> None:
    """Kill a stage after its first step: the same command repeats no finished stage, and weights, rollouts and
    completions are bit-identical to those of an uninterrupted run. An evaluation keeps the completions it had; the
    missing ones are sampled in another batch, where bf16 may round differently."""
    order = ["questions", "distil", "filter", "sft", "grpo", "evaluate", "report"]
    run = tmp_path / "runs" / "tiny"
    subprocess.run(["cp", "-r", str(tiny_run.parent), str(tmp_path)], check=True)
    for later in order[order.index(stage) :]:
        shutil.rmtree(run / STAGES[later].folder)
    arguments = ("+experiment=tiny", SPREAD)
    began = time.time()
    process = subprocess.Popen(
        runner.command(*arguments), cwd=tmp_path, env=runner.environment(), stderr=subprocess.DEVNULL
    )
    folder = run / STAGES[stage].folder

    def has_done_a_step() -> bool:
        if stage == "evaluate":
            return any(path.stat().st_size for path in folder.rglob("*.greedy.jsonl"))
        return any(folder.glob("checkpoints/*.ckpt")) and len(read_metrics(run, stage, began)) >= 1

    while not has_done_a_step():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.time() - began < 300
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (folder / "manifest.json").exists()
    killed_at = time.time()
    completions_at_kill = completions(run)
    result = runner.run(tmp_path, *arguments)
    assert result.returncode == 0, result.stderr[-3000:]
    skipped = Counter(line.split()[0] for line in result.stderr.splitlines() if "done before" in line)
    assert sorted(skipped, key=order.index) == order[: order.index(stage)]
    assert "resumes" in result.stderr
    if stage != "evaluate":
        steps = [step for step, _ in read_metrics(run, stage, began)]
        assert steps == list(range(len(steps)))
        redone = [step for step, _ in read_metrics(run, stage, killed_at)]
        assert redone and 0 not in redone, "it restarted from scratch instead of from its checkpoint"
    assert_same_outputs(tiny_run, run, completions_at_kill)


def completions(run: Path) -> dict[Path, list[str]]:
    """Files of completions with their complete rows, sorted: questions finish in any order."""
    files = {path.relative_to(run): path.read_text() for path in (run / "6_scores").rglob("*.*.jsonl")}
    return {path: sorted(text[: text.rfind("\n") + 1].splitlines()) for path, text in files.items()}


def assert_same_outputs(tiny_run: Path, run: Path, completions_at_kill: Mapping[Path, list[str]]) -> None:
    """Weights, rollouts and completions are bit-identical. A file of completions that was partly written keeps its
    rows, and has as many completions per question as it should."""
    for name in ("sft", "grpo"):
        weights = Path(STAGES[name].folder, "model", "model.safetensors")
        assert filecmp.cmp(tiny_run / weights, run / weights, shallow=False), f"different weights after {name}"
    for name in ("5_grpo/questions.jsonl", "5_grpo/samples.jsonl"):
        assert (run / name).read_bytes() == (tiny_run / name).read_bytes()
    expected, actual = completions(tiny_run), completions(run)
    assert expected.keys() == actual.keys() and len(expected) == 6
    for path, lines in expected.items():
        kept = completions_at_kill.get(path, [])
        if 0 < len(kept) < len(lines):
            assert set(kept) <= set(actual[path]), path.name
            assert ids(actual[path]) == ids(lines)
        else:
            assert actual[path] == lines, path.name


def ids(lines: Sequence[str]) -> list[tuple[str, int]]:
    return sorted((row["question_id"], row["sample"]) for row in map(json.loads, lines))


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_sigkill_at_a_random_moment(tiny_run: Path, tmp_path: Path, stage: str) -> None:
    """Twice, anywhere in the stage: while it loads, samples, updates or saves. The times of the kills are printed."""
    run, arguments = tmp_path / "runs" / "tiny", ("+experiment=tiny", SPREAD)
    subprocess.run(["cp", "-r", str(tiny_run.parent), str(tmp_path)], check=True)
    for later in ("sft", "grpo", "evaluate", "report")[("sft", "grpo").index(stage) :]:
        shutil.rmtree(run / STAGES[later].folder)
    folder = run / STAGES[stage].folder
    for _ in range(2):
        began, moment = time.time(), random.random() * manifest(tiny_run, STAGES[stage].folder)["seconds"]
        print(f"{stage}: SIGKILL {moment:.2f} s after its start")
        process = subprocess.Popen(
            runner.command(*arguments), cwd=tmp_path, env=runner.environment(), stderr=subprocess.DEVNULL
        )
        while not (folder / "begun.json").exists() and process.poll() is None:
            assert time.time() - began < 300
            time.sleep(0.02)
        time.sleep(moment)
        process.kill()
        process.wait()
    result = runner.run(tmp_path, *arguments)
    assert result.returncode == 0, result.stderr[-3000:]
    assert_same_outputs(tiny_run, run, {})


def test_the_full_size_experiment_trains_a_small_model(tiny_run: Path, tmp_path: Path) -> None:
    """`grpo_fin` on another run's rows and SFT weights, as its comment says, reduced to what two cores can do."""
    small = ("model=smollm2_135m", "trainer=cpu", "engine@engine.policy=vllm", "logger=local")
    short = ("grpo.steps=2", "grpo.questions_per_step=2", "grpo.group_size=4", "grpo.sampling.max_new_tokens=64")
    lengths = ("model.max_model_len=512", "evaluate.sampling.max_new_tokens=64", "engine.policy.kv_cache_gib=0.25")
    checked = ("benchmark=[worked]", "benchmark.worked.limit=4")  # as the rows were
    rows_from = (f"grpo.rows={tiny_run}", f"grpo.init_from={tiny_run / '4_sft' / 'model'}")
    result = runner.run(tmp_path, "+experiment=grpo_fin", *small, *short, *lengths, *checked, *rows_from, SPREAD)
    assert result.returncode == 0, result.stderr[-3000:]
    run = tmp_path / "runs" / "grpo_fin"
    metrics = [m for _, m in read_metrics(run, "grpo")]
    assert len(metrics) == 2
    trained = [m for m in metrics if m["groups_with_spread"] > 0]
    assert trained and all(m["grad_norm"] > 0 and 0 < m["mismatch"] < 0.05 for m in trained)
    allowed = {row["question_id"] for row in rows(tiny_run / "3_filtered" / "rl.jsonl")}
    assert {row["question_id"] for row in rows(run / "5_grpo" / "samples.jsonl")} <= allowed
    assert (run / "5_grpo" / "model" / "model.safetensors").is_file()


def test_a_sweep_over_rewards_runs_every_job(tmp_path: Path) -> None:
    """Two pipelines with real engines, each in its own process, compared in one table at the end."""
    few = ("benchmark.worked.limit=2", "grpo.select.max_candidates=3")
    result = runner.run(tmp_path, "--multirun", "+experiment=tiny", *few, "reward=[format],[format,accuracy]")
    assert result.returncode == 0, result.stderr[-3000:]
    folder = tmp_path / "runs" / "tiny.sweep"
    graded = {}
    for name in ("reward=format", "reward=format+accuracy"):
        run = folder / name
        assert (run / "7_report" / "report.html").stat().st_size > 20_000
        assert (run / "5_grpo" / "model" / "model.safetensors").is_file()
        graded[name] = {reward for row in rows(run / "5_grpo" / "samples.jsonl") for reward in row["rewards"]}
    assert graded == {"reward=format": {"format"}, "reward=format+accuracy": {"format", "accuracy"}}
    table = json.loads((folder / "sweep.json").read_text())["jobs"]
    assert [job["exit_code"] for job in table] == [0, 0] and all(job["scores"] for job in table)
