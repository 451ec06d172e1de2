"""Tiles in batches: each query once, no key left out, little padding, and the numbers of any other division."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finr1.training.rows import tiles as tiled
from finr1.training.rows.rows import RowGroup, make_row
from finr1.training.rows.tiles import Tile, TiledAttention, Tiles, divide

SHAPES = st.lists(st.tuples(st.integers(1, 40), st.lists(st.integers(1, 30), max_size=4)), min_size=1, max_size=4)


def tiles_of(shape: list[tuple[int, list[int]]]) -> Tiles:
    groups = [RowGroup([1] * prompt, [[1] * n for n in ns], range(len(ns))) for prompt, ns in shape]
    return make_row(groups).layout.tiles


def test_a_plan_by_hand() -> None:
    """A prompt of 2 tokens and completions of 1 and 2, for one key head of two query heads."""
    tiles = tiles_of([(2, [1, 2])])
    assert tiles.tiles == [Tile(range(0), 0, 0, 2), Tile(range(2), 2, 2, 3), Tile(range(2), 3, 3, 5)]
    # Of 2, 3 and 4 keys: two neighbours in one batch would be 1.4 to 1.8 times as large as both.
    assert [len(part) for part in divide(tiles.tiles, 100)] == [1, 1, 1]
    plan = tiles.plan(1, 2, torch.float32)
    assert [batch.query_JBRN.tolist() for batch in plan.batches] == [[0, 2, 1, 3], [4, 5], [6, 8, 7, 9]]
    assert [batch.key_JBX.tolist() for batch in plan.batches] == [[0, 1], [0, 1, 2], [0, 1, 3, 4]]
    assert plan.batches[0].mask_B1NX.tolist() == [[[[-torch.inf], [0.0]]]]
    assert plan.place_TH.tolist() == [0, 2, 1, 3, 4, 5, 6, 8, 7, 9] and not plan.padded
    # Token 0 is a key in all three batches, token 2 in one: rows of the joined keys, token by token.
    assert plan.key_copies.tolist() == [0, 2, 5, 1, 3, 6, 4, 7, 8] and plan.start_TJ.tolist() == [0, 3, 6, 7, 8]
    assert tiles.plan(1, 2, torch.float32) is plan


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.integers(1, 4000))
def test_every_tile_is_in_one_batch_of_little_padding(shape: list[tuple[int, list[int]]], most: int) -> None:
    tiles = tiles_of(shape).tiles
    parts = divide(tiles, most)
    assert sorted((tile for part in parts for tile in part), key=lambda tile: tile.first) == sorted(
        tiles, key=lambda tile: tile.first
    )
    for part in parts:
        places = len(part) * max(tile.queries for tile in part) * max(tile.keys for tile in part)
        assert len(part) == 1 or places <= most
        assert places <= tiled.MAX_PADDING * sum(tile.queries * tile.keys for tile in part)


@pytest.mark.parametrize(("scores", "waste"), [(1, 1.0), (10**9, 100.0)])
def test_the_batching_of_tiles_does_not_change_the_result(
    scores: int, waste: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tile by tile, or all in one batch with much padding: as by default."""
    shape = [(5, [3, 9]), (17, [1]), (2, [6, 6, 2])]
    generator = torch.Generator().manual_seed(0)
    n_tokens = tiles_of(shape).n_tokens
    query, key, value = (torch.randn(heads, n_tokens, 8, generator=generator) for heads in (6, 2, 2))
    grad = torch.randn(n_tokens, 6, 8, generator=generator)
    found = []
    for change in (False, True):
        if change:
            monkeypatch.setattr(tiled, "MAX_SCORES", scores)
            monkeypatch.setattr(tiled, "MAX_PADDING", waste)
        inputs = [x.clone().requires_grad_() for x in (query, key, value)]
        tiles = tiles_of(shape)
        out = TiledAttention.apply(*inputs, tiles, 0.3)
        out.backward(grad)
        found.append([out, *(x.grad for x in inputs)])
    assert len(tiles.plan(2, 3, torch.float32).batches) == (9 if scores == 1 else 1)
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
