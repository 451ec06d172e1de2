"""The fused RMSNorm against transformers' own: values, gradients, types."""

from __future__ import annotations

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from finr1.training.model.cpu.norm import RmsNorm, fuse_norms
from finr1.training.rows.logprobs import completion_stats
from finr1.training.rows.rows import RowGroup, make_row
from tests.helpers.tiny_model import SHAPES, tiny

ROW = [RowGroup([1, 2, 3], [[4, 5, 9], [6]], [0, 1]), RowGroup([7, 7], [[8, 9]], [2])]


def test_rms_norm_by_hand() -> None:
    """mean(3^2, 4^2, 0, 5^2) = 12.5; eps 3.5 makes the root 4."""
    x, weight = torch.tensor([[3.0, -4.0, 0.0, 5.0]]), torch.tensor([1.0, 2.0, 3.0, -4.0])
    assert RmsNorm.apply(x, weight, 3.5, torch.float32).tolist() == [[0.75, -2.0, 0.0, -5.0]]


def test_rms_norm_gradients_equal_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, generator=generator, dtype=torch.float64).requires_grad_()
    weight = torch.randn(5, generator=generator, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: RmsNorm.apply(x, w, 0.1, torch.float64), (x, weight))


@pytest.mark.parametrize("kind", list(SHAPES))
def test_a_model_has_the_same_log_probs_and_gradients(kind: str) -> None:
    models = tiny(kind), tiny(kind)
    for model in models:
        for p in model.parameters():  # norms begin as ones, which would hide the weight
            p.data.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    assert fuse_norms(models[1]) == (13 if kind == "qwen3" else 7)  # 3 layers; qwen3's have two more
    found = []
    for model in models:
        stats = completion_stats(model, make_row(ROW))
        stats.logprobs_N.sum().backward()
        found.append((stats.logprobs_N, *(p.grad for p in model.parameters())))
    for plain, fused in zip(*found, strict=True):
        # Against the tensor's largest entry: another machine adds in another order, and small entries are differences.
        torch.testing.assert_close(fused, plain, atol=1e-5 * float(plain.detach().abs().max()), rtol=0)
    assert models[0].state_dict().keys() == models[1].state_dict().keys()


def test_under_autocast_it_is_as_near_to_fp32_as_transformers_own_and_of_bf16() -> None:
    generator = torch.Generator().manual_seed(0)
    plain, fused = LlamaRMSNorm(64), LlamaRMSNorm(64)
    plain.weight.data = fused.weight.data = torch.randn(64, generator=generator)
    fuse_norms(fused)
    x = torch.randn(50, 64, generator=generator)
    exact = plain(x)
    with torch.autocast("cpu", torch.bfloat16):
        own, ours = plain(x).bfloat16(), fused(x)  # a linear layer casts transformers' result
    assert ours.dtype == torch.bfloat16
    off = [float(((y.float() - exact).norm() / exact.norm()).detach()) for y in (own, ours)]
    assert 1e-4 < off[1] <= 1.001 * off[0] < 0.01


def test_without_autocast_the_output_has_the_inputs_dtype() -> None:
    norm = LlamaRMSNorm(4).bfloat16()
    fuse_norms(norm)
    assert norm(torch.ones(2, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
