"""Attention over pieces: tiles, padded batches and one dense mask give the same numbers and the same gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from finr1.training.rows import layout as layouts
from finr1.training.rows.attention import attend, padded
from finr1.training.rows.layout import Layout
from finr1.training.rows.rows import RowGroup, make_row
from finr1.training.rows.tiles import Tile, TiledAttention

HEADS, SIZE = 6, 8
# Prompts and completions around the tile's size: shorter, equal, one more, several tiles.
PIECES = [(3, [2]), (4, [4, 1, 5]), (9, [13, 4]), (1, [8]), (17, [])]


def layout() -> Layout:
    return make_row(
        [RowGroup([1] * prompt, [[1] * n for n in ns], list(range(len(ns)))) for prompt, ns in PIECES]
    ).layout


def inputs(key_heads: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(key_heads)
    shape = (1, layout().n_tokens, SIZE)
    made = [torch.randn(heads, *shape[1:], generator=generator) for heads in (HEADS, key_heads, key_heads)]
    return [x.to(dtype)[None].requires_grad_() for x in made]


def dense(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """softmax over an explicit T x T mask, written from what a row promises: the reference."""
    sees = torch.zeros(query.shape[2], query.shape[2], dtype=torch.bool)
    end = 0
    for prompt, completions in PIECES:
        context = slice(end, end + prompt)
        for length in (prompt, *completions):
            for i in range(end, end + length):
                sees[i, context] = i >= context.stop  # a prompt's own tokens follow with the next line
                sees[i, end : i + 1] = True
            end += length
    key, value = (x.repeat_interleave(HEADS // x.shape[1], dim=1) for x in (key, value))
    scores = (query @ key.transpose(-1, -2) * scale).masked_fill(~sees, -torch.inf)
    return (scores.softmax(-1) @ value).transpose(1, 2)


@pytest.mark.parametrize("key_heads", [1, 2, 6])
@pytest.mark.parametrize("tile", [1, 4, 5, 128])
def test_tiles_and_padded_batches_equal_the_dense_mask(
    key_heads: int, tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layouts, "TILE", tile)
    scale, pieces = 0.3, layout()
    weights = torch.randn(1, pieces.n_tokens, HEADS, SIZE, generator=torch.Generator().manual_seed(9))
    found = {}
    for name, function in {
        "dense": lambda q, k, v: dense(q, k, v, scale),
        "tiles": lambda q, k, v: TiledAttention.apply(q[0], k[0], v[0], pieces.tiles, scale)[None],
        "padded": lambda q, k, v: padded(q, k, v, pieces, scale),
    }.items():
        query, key, value = inputs(key_heads)
        out = function(query, key, value)
        (out * weights).sum().backward()
        found[name] = (out, query.grad, key.grad, value.grad)
    for name in ("tiles", "padded"):
        for mine, theirs in zip(found[name], found["dense"], strict=True):
            torch.testing.assert_close(mine, theirs, atol=2e-6, rtol=1e-5)


def test_tiles_cover_every_query_once_and_none_is_larger_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "TILE", 4)
    tiles = layout().tiles.tiles
    queries = [i for tile in tiles for i in range(tile.first, tile.stop)]
    assert sorted(queries) == list(range(layout().n_tokens))
    assert max(tile.stop - tile.first for tile in tiles) == 4
    assert tiles[0] == Tile(range(0), 0, 0, 3)  # the first prompt sees nothing before it
    assert next(tile for tile in tiles if tile.context) == Tile(range(3), 3, 3, 5)  # its completion


def test_in_bf16_the_error_is_that_of_bf16() -> None:
    """Relative to fp32: a rounding of 2^-9 at each of a few places, in the output and in every gradient."""
    pieces, exact, rounded = layout(), inputs(2), inputs(2, torch.bfloat16)
    results = []
    for query, key, value in (exact, rounded):
        out, _ = attend(None, query, key, value, None, scaling=0.3, layout=pieces)
        out.float().square().sum().backward()
        results.append([out.float(), *(x.grad.float() for x in (query, key, value))])
    for wanted, got in zip(*results, strict=True):
        assert 1e-4 < (got - wanted).norm() / wanted.norm() < 0.02


def test_the_default_scale_is_that_of_the_heads_size() -> None:
    query, key, value = inputs(2)
    default, _ = attend(None, query, key, value, None, layout=layout())
    named, _ = attend(None, query, key, value, None, scaling=SIZE**-0.5, layout=layout())
    assert torch.equal(default, named)
    assert not torch.equal(default, attend(None, query, key, value, None, scaling=0.3, layout=layout())[0])
