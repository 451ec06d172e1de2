"""Flex attention over pieces, as far as a CPU can show it: its mask, its blocks, its output, and its gradients.

There is no GPU here: what Triton makes of them is for `tests/gpu`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention import flex_attention as torchs

from finr1.training.rows import attention, flex
from finr1.training.rows.attention import attend, kernel, padded
from finr1.training.rows.layout import Layout
from finr1.training.rows.logprobs import completion_stats
from finr1.training.rows.rows import RowGroup, make_row
from finr1.training.rows.tiles import TiledAttention
from tests.helpers.tiny_model import tiny
from tests.training.rows.test_attention import HEADS, PIECES, inputs

Shape = Sequence[tuple[int, Sequence[int]]]
LONG: Shape = [(140, [30, 129]), (3, [2]), (257, [1, 0, 128]), (1, [])]  # around the blocks of 128
ANY: Any = st.lists(st.tuples(st.integers(1, 9), st.lists(st.integers(0, 7), max_size=4)), min_size=1, max_size=5)
BIG: Any = st.lists(st.tuples(st.integers(1, 300), st.lists(st.integers(0, 200), max_size=3)), min_size=1, max_size=3)
CUDA = torch.device("cuda")


def layout(shape: Shape) -> Layout:
    return make_row([RowGroup([1] * p, [[1] * n for n in ns], list(range(len(ns)))) for p, ns in shape]).layout


def dense(shape: Shape) -> Tensor:
    """[T, T]: which token (row) sees which (column), written from what a row promises."""
    n_tokens = sum(prompt + sum(completions) for prompt, completions in shape)
    sees_TT = torch.zeros(n_tokens, n_tokens, dtype=torch.bool)
    end = 0
    for prompt, completions in shape:
        context = range(end, end + prompt)
        for number, length in enumerate((prompt, *completions)):
            for i in range(end, end + length):
                sees_TT[i, end : i + 1] = True
                if number:
                    sees_TT[i, context.start : context.stop] = True
            end += length
    return sees_TT


def masked(on: Layout) -> Tensor:
    """[T, T]: what the mask function says of each pair."""
    place_T = torch.arange(on.n_tokens)
    nothing = torch.zeros((), dtype=torch.long)
    return flex.sees(on.segments)(nothing, nothing, place_T[:, None], place_T[None])


@given(ANY)
def test_the_mask_function_is_the_dense_mask_entry_by_entry(shape: Shape) -> None:
    assert torch.equal(masked(layout(shape)), dense(shape))


@settings(max_examples=30, deadline=None)
@given(BIG)
def test_blocks_hold_every_pair_that_is_seen_and_full_ones_nothing_else(shape: Shape) -> None:
    """Torch reads the mask function in the blocks that are listed as partial alone."""
    on, sees_TT = layout(shape), dense(shape)
    blocks, size = on.blocks, torchs._DEFAULT_SPARSE_BLOCK_SIZE
    n = -(-on.n_tokens // size)
    assert blocks.shape == (1, 1, on.n_tokens, on.n_tokens) and on.blocks is blocks  # built once
    whole = torch.zeros(n * size, n * size, dtype=torch.bool)
    whole[: on.n_tokens, : on.n_tokens] = sees_TT
    parts = whole.view(n, size, n, size).transpose(1, 2)
    found = {"partial": torch.zeros(n, n, dtype=torch.bool), "full": torch.zeros(n, n, dtype=torch.bool)}
    for kind, counts, columns in (
        ("partial", blocks.kv_num_blocks, blocks.kv_indices),
        ("full", blocks.full_kv_num_blocks, blocks.full_kv_indices),
    ):
        assert counts is not None and columns is not None
        for i in range(n):
            found[kind][i, columns[0, 0, i, : counts[0, 0, i]].long()] = True
    full = parts.flatten(2).all(-1)
    assert torch.equal(found["full"], full)
    assert torch.equal(found["partial"], parts.flatten(2).any(-1) & ~full)


def wide(shape: Shape, key_heads: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(key_heads)
    n_tokens = layout(shape).n_tokens
    return [torch.randn(1, heads, n_tokens, 16, generator=generator) for heads in (HEADS, key_heads, key_heads)]


@pytest.fixture
def unfused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's own form without a kernel, which needs no compiler and keeps every score."""
    monkeypatch.setattr(flex, "compiled", lambda: torchs.flex_attention)


@pytest.mark.usefixtures("unfused")
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("shape", [PIECES, LONG], ids=["short", "long"])
@pytest.mark.parametrize("key_heads", [1, 2, 6])
def test_the_output_is_that_of_tiles_and_of_padded_batches(shape: Shape, key_heads: int) -> None:
    on, (query, key, value) = layout(shape), wide(shape, key_heads)
    found = flex.flex(query, key, value, on.blocks, 0.3)
    tiles = TiledAttention.apply(query[0], key[0], value[0], on.tiles, 0.3)[None]
    for other in (tiles, padded(query, key, value, on, 0.3)):
        assert (found - other).abs().max() <= 1e-5
    assert (found - flex.flex(query, key, value, on.blocks, 0.2)).abs().max() > 1e-2  # the scale is handed on


@pytest.mark.usefixtures("unfused")
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("key_heads", [2, 6])
def test_gradients_are_those_of_padded_batches(key_heads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch refuses a backward pass on CPU, having no kernel for it; its unfused form has one all the same."""
    tensors = [x.requires_grad_() for x in wide(LONG, key_heads)]
    with pytest.raises(NotImplementedError, match="does not support backward on CPU"):
        flex.flex(*tensors, layout(LONG).blocks, 0.3)
    monkeypatch.setattr(torchs, "_validate_device", lambda *_: None)
    weights = torch.randn(1, layout(LONG).n_tokens, HEADS, 16, generator=torch.Generator().manual_seed(9))
    found = []
    for which in ("flex", "padded"):
        query, key, value = (x.detach().clone().requires_grad_() for x in tensors)
        on = layout(LONG)
        out = flex.flex(query, key, value, on.blocks, 0.3) if which == "flex" else padded(query, key, value, on, 0.3)
        (out * weights).sum().backward()
        found.append((query.grad, key.grad, value.grad))
    for mine, theirs in zip(*found, strict=True):
        assert mine is not None and theirs is not None
        assert (mine - theirs).norm() / theirs.norm() <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("key_heads", [2, 6])
def test_the_compiled_kernel_of_the_cpu_gives_the_same(key_heads: int) -> None:
    for shape in (PIECES, LONG):
        query, key, value = wide(shape, key_heads)
        with torch.no_grad():
            found = flex.flex(query, key, value, layout(shape).blocks, 0.3)
        assert (found - padded(query, key, value, layout(shape), 0.3)).abs().max() <= 1e-5


def test_rows_of_other_lengths_need_no_compiler_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One form for rows of one block, one for those of several: else every step of a run would compile."""
    torch.compiler.reset()  # of what other tests have compiled
    counter = CompileCounterWithBackend("eager")
    plain = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **how: plain(function, backend=counter, **how))
    own = flex.compiled.__wrapped__()
    for n in (3, 5, 11, 40, 77, 33, 200, 90):
        shape = [(2 * n, [n, n + 1]), (3, [4])]
        query, key, value = wide(shape, 2)
        with torch.no_grad():
            own(query, key, value, block_mask=layout(shape).blocks, scale=0.3, enable_gqa=True)
    assert counter.frame_count == 2


@pytest.mark.parametrize(
    ("capability", "triton", "able"), [((8, 0), True, True), ((6, 1), True, False), ((9, 0), False, False)]
)
def test_torch_compiles_for_a_gpu_with_triton(
    capability: tuple[int, int], triton: bool, able: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(flex.importlib.util, "find_spec", lambda _: object() if triton else None)
    assert flex.compiles.__wrapped__(CUDA) == able
    assert not flex.compiles.__wrapped__(torch.device("cpu")) and not flex.compiles.__wrapped__(torch.device("meta"))


def test_the_kernel_is_chosen_by_device_head_size_and_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex, "compiles", lambda device: device.type == "cuda")
    cpu = torch.device("cpu")
    assert [kernel(cpu, 64), kernel(cpu, 64, dropout=0.1), kernel(CUDA, 64)] == ["tiles", "padded", "flex"]
    assert kernel(CUDA, 64, dropout=0.1) == kernel(CUDA, 8) == kernel(CUDA, 64, flexible=False) == "padded"
    monkeypatch.setattr(flex, "compiles", lambda _: False)
    assert kernel(CUDA, 64) == "padded"


@pytest.mark.usefixtures("unfused")
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_a_model_computes_with_flex_attention_where_it_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole model: the row's blocks, the scale and the heads arrive; under autocast all three tensors are bf16."""
    row = make_row([RowGroup([3, 1, 4], [[1, 5, 9], [2, 6]], [0, 1]), RowGroup([5, 3], [[5]], [2])])
    calls: list[torch.dtype] = []
    plain = flex.flex

    def counted(query: Tensor, *rest: Any) -> Tensor:
        calls.append(query.dtype)
        return plain(query, *rest)

    with torch.no_grad():
        for kind in ("llama", "qwen3"):
            expected = completion_stats(tiny(kind), row).logprobs_N
            with monkeypatch.context() as patch:
                patch.setattr(attention, "kernel", lambda *_: "flex")
                patch.setattr(flex, "flex", counted)
                model = tiny(kind)
                torch.testing.assert_close(completion_stats(model, row).logprobs_N, expected, atol=1e-5, rtol=0)
                with torch.autocast("cpu", torch.bfloat16):
                    torch.testing.assert_close(completion_stats(model, row).logprobs_N, expected, atol=0.05, rtol=0)
    assert calls == 2 * (3 * [torch.float32] + 3 * [torch.bfloat16])  # 3 layers


def test_a_model_can_exclude_flex_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(attention, "kernel", lambda *arguments: asked.append(arguments[-1]) or "padded")
    for name in (attention.register(), attention.register("padded")):
        completion_stats(tiny(attention=name), make_row([RowGroup([3, 1], [[4]], [0])]))
    assert asked == [True] * 3 + [False] * 3
    query, key, value = inputs(2)
    out, _ = attend(None, query, key, value, None, layout=layout(PIECES))
    assert out.shape == (1, layout(PIECES).n_tokens, HEADS, 8)
