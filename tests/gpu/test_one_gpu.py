"""What only a GPU can show; skipped, and so far never run, where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import runner
import torch
from tiny_model import SHAPES, tiny

from finr1.data.logprobs import completion_stats
from finr1.data.rows import Group, make_row

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
ROW = [Group([1, 2, 3], [[4, 5, 9], [6]], [0, 1]), Group([7, 7], [[8, 9]], [2])]


@pytest.mark.parametrize("kind", SHAPES)
def test_log_probs_and_gradients_are_those_of_the_cpu(kind: str) -> None:
    models = tiny(kind), tiny(kind).cuda()
    found = []
    for model in models:
        logprobs_N = completion_stats(model, make_row(ROW)).logprobs_N
        logprobs_N.sum().backward()
        found.append((logprobs_N.detach().cpu(), *(p.grad.cpu() for p in model.parameters())))
    for of_cpu, of_gpu in zip(*found, strict=True):
        torch.testing.assert_close(of_gpu, of_cpu, atol=1e-4 * float(of_cpu.abs().max()), rtol=0)


@pytest.mark.slow
def test_the_tiny_run_walks_to_its_report(tmp_path: Path) -> None:
    result = runner.run(tmp_path, "+experiment=tiny", "trainer=gpu1", "engine@engine.policy=vllm_gpu")
    assert result.returncode == 0, result.stderr[-3000:]
    summary = json.loads((tmp_path / "runs" / "tiny" / "7_report" / "summary.json").read_text())
    assert {"sft", "grpo", "evaluate"} <= summary["stages"].keys()
