"""Checks that need a GPU; skipped without one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from finr1.training.rows import attention, flex
from finr1.training.rows.logprobs import completion_stats
from finr1.training.rows.rows import RowGroup, make_row
from tests.helpers import runner
from tests.helpers.tiny_model import SHAPES, tiny

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
LONG = [RowGroup([1, 2, 3] * 90, [[4, 5, 9] * 50, [6] * 129, [2]], [0, 1, 2]), RowGroup([7, 7], [[8, 9] * 70], [3])]
ROW = [RowGroup([1, 2, 3], [[4, 5, 9], [6]], [0, 1]), RowGroup([7, 7], [[8, 9]], [2])]


@pytest.mark.parametrize("kind", SHAPES)
def test_log_probs_and_gradients_equal_those_of_the_cpu(kind: str) -> None:
    models = tiny(kind), tiny(kind).cuda()
    found = []
    for model in models:
        logprobs_N = completion_stats(model, make_row(ROW)).logprobs_N
        logprobs_N.sum().backward()
        found.append((logprobs_N.detach().cpu(), *(p.grad.cpu() for p in model.parameters())))
    for of_cpu, of_gpu in zip(*found, strict=True):
        torch.testing.assert_close(of_gpu, of_cpu, atol=1e-4 * float(of_cpu.abs().max()), rtol=0)


@pytest.mark.parametrize("groups", [ROW, LONG], ids=["short", "long"])
@pytest.mark.parametrize(("heads", "key_heads", "size"), [(9, 3, 64), (28, 4, 128), (4, 4, 16)])
def test_flex_attention_and_its_gradients_equal_those_of_padded_batches(
    groups: list[RowGroup], heads: int, key_heads: int, size: int
) -> None:
    """SmolLM2 has 9 and 3 heads, Qwen2.5-7B 28 and 4."""
    device = torch.device("cuda")
    layout = make_row(groups).to(device).layout
    assert attention.kernel(device, size) == "flex"
    for dtype, bound in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        generator = torch.Generator(device).manual_seed(size)
        shapes = [(1, n, layout.n_tokens, size) for n in (heads, key_heads, key_heads)]
        drawn = [torch.randn(shape, generator=generator, device=device) for shape in shapes]
        exact: list[torch.Tensor] = []
        for way in ("padded", "flex"):
            query, key, value = (x.clone().to(dtype).requires_grad_() for x in drawn)
            if way == "flex":
                out = flex.flex(query, key, value, layout.blocks, 0.3)
            else:
                out = attention.padded(query, key, value, layout, 0.3)
            out.float().square().sum().backward()
            found = [x.float() for x in (out.detach(), query.grad, key.grad, value.grad) if x is not None]
            for wanted, got in zip(exact, found, strict=False):
                assert (got - wanted).norm() / wanted.norm() <= bound
            exact = found


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
def test_a_model_with_flex_attention_has_the_gradients_of_one_without(precision: torch.dtype | None) -> None:
    found = []
    for name in (attention.register(), attention.register("padded")):
        model = tiny("qwen3", attention=name, head_dim=32).cuda()
        with torch.autocast("cuda", precision or torch.bfloat16, enabled=precision is not None):
            logprobs_N = completion_stats(model, make_row(LONG)).logprobs_N
        logprobs_N.sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert (found[0] - found[1]).norm() / found[1].norm() <= (1e-5 if precision is None else 3e-2)


@pytest.mark.slow
def test_the_tiny_run_finishes(tmp_path: Path) -> None:
    result = runner.run(tmp_path, "+experiment=tiny", "trainer=gpu1", "engine@engine.policy=vllm_gpu")
    assert result.returncode == 0, result.stderr[-3000:]
    summary = json.loads((tmp_path / "runs" / "tiny" / "7_report" / "summary.json").read_text())
    assert {"sft", "grpo", "evaluate"} <= summary["stages"].keys()
