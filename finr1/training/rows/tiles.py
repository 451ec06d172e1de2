"""Attention of a row's pieces on CPU, in tiles: every product a plain matrix product over several tiles at once.

torch's flash kernel takes longer on such rows, most of it in its backward pass (`experiments/benchmarks/attention.py`).
Tiles of about the same size make one batch, so that a product is large enough for several threads and a layer takes few
calls. Which tokens a batch takes, and where its results go, are index tensors, made once a row.

Shape letters: B tiles of a batch, N queries and X keys of the longest of them, J key heads, R query heads that share
one, H = J R. Rows of an index are (token, head) pairs, the head the faster one: that is how transformers has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

SCORES = 3 << 19  # of a batch of several tiles: 3 MB in bf16, which a processor's cache holds
WASTE = 1.2  # places of a batch, to pairs of a query and a key in it


class Tile(NamedTuple):
    """Queries `first … stop - 1` of a piece: they see the whole context and, causally, the piece from its start."""

    context: range  # the prompt before a completion; empty for a prompt
    start: int  # of the piece
    first: int
    stop: int

    @property
    def queries(self) -> int:
        """How many."""
        return self.stop - self.first

    @property
    def keys(self) -> int:
        """How many the last query sees."""
        return len(self.context) + self.stop - self.start


class TileBatch(NamedTuple):
    """Index tensors of tiles of about the same size."""

    tiles: int
    query_JBRN: Tensor  # rows of [T H, D], padding names one after the last; flat
    key_JBX: Tensor  # rows of [T J, D], padding names those of the first token; flat
    mask_B1NX: Tensor  # of the last keys, those that not all queries see: 0 where one is seen, else -inf


class Plan(NamedTuple):
    """How the tiles of a row are computed by a model with so many heads."""

    batches: list[TileBatch]
    place_TH: Tensor  # of each query, its row in all batches' results
    padded: bool  # whether there are queries that are none
    used: Tensor  # rows of all batches' keys, token by token: those that are copies of one row of [T J, D] …
    start_TJ: Tensor  # … begin here


class Tiles:
    """The tiles of a row of `n_tokens` tokens; plans are kept."""

    def __init__(self, tiles: Sequence[Tile], n_tokens: int) -> None:
        self.tiles, self.n_tokens = list(tiles), n_tokens
        self._plans: dict[tuple[int, int, torch.dtype], Plan] = {}

    def plan(self, groups: int, repeats: int, dtype: torch.dtype) -> Plan:
        """For J groups of R query heads."""
        key = groups, repeats, dtype
        if key not in self._plans:
            self._plans[key] = self._plan(*key)
        return self._plans[key]

    def _plan(self, groups: int, repeats: int, dtype: torch.dtype) -> Plan:
        heads = groups * repeats
        parts = divide(self.tiles, SCORES // heads)
        batches = [_batch(tiles, groups, repeats, self.n_tokens, dtype) for tiles in parts]
        queries, keys = torch.cat([b.query_JBRN for b in batches]), torch.cat([b.key_JBX for b in batches])
        real = queries < self.n_tokens * heads
        place_TH = torch.empty(self.n_tokens * heads, dtype=torch.long)
        place_TH[queries[real]] = real.nonzero()[:, 0]
        seen = torch.cat([_real_keys(tiles, groups) for tiles in parts])
        used = seen.nonzero()[:, 0]
        order = keys[used].argsort(stable=True)
        counts_TJ = keys[used].bincount(minlength=self.n_tokens * groups)
        return Plan(batches, place_TH, not bool(real.all()), used[order], counts_TJ.cumsum(0) - counts_TJ)


def divide(tiles: Sequence[Tile], most: int) -> list[list[Tile]]:
    """Batches of at most `most` places (of a query and a key), or of one tile; little of it is padding."""
    batches: list[list[Tile]] = []
    pairs = n_queries = n_keys = 0
    for tile in sorted(tiles, key=lambda tile: (tile.keys, tile.queries)):
        size = tile.queries * tile.keys
        n, x = max(n_queries, tile.queries), max(n_keys, tile.keys)
        places = n * x * (len(batches[-1]) + 1) if batches else 0
        if batches and places <= most and places <= WASTE * (pairs + size):
            batches[-1].append(tile)
            pairs, n_queries, n_keys = pairs + size, n, x
        else:
            batches.append([tile])
            pairs, n_queries, n_keys = size, tile.queries, tile.keys
    return batches


def _batch(tiles: Sequence[Tile], groups: int, repeats: int, n_tokens: int, dtype: torch.dtype) -> TileBatch:
    heads = groups * repeats
    n, x = max(tile.queries for tile in tiles), max(tile.keys for tile in tiles)
    query_BN = torch.full((len(tiles), n), n_tokens)
    key_BX = torch.zeros(len(tiles), x, dtype=torch.long)
    sees_BN = torch.full((len(tiles), n), x)  # so many of its tile's keys; padding may see any
    for b, tile in enumerate(tiles):
        query_BN[b, : tile.queries] = torch.arange(tile.first, tile.stop)
        own = torch.arange(tile.start, tile.stop)
        key_BX[b, : tile.keys] = torch.cat([torch.arange(tile.context.start, tile.context.stop), own])
        before = len(tile.context) + tile.first - tile.start
        sees_BN[b, : tile.queries] = before + 1 + torch.arange(tile.queries)
    head_JR = torch.arange(heads).view(groups, 1, repeats, 1)
    query_JBRN = query_BN[None, :, None] * heads + head_JR
    query_JBRN = query_JBRN.where(query_BN[None, :, None] < n_tokens, n_tokens * heads)
    key_JBX = key_BX * groups + torch.arange(groups)[:, None, None]
    seen_B1NX = torch.arange(min(int(sees_BN.min()), x - 1), x) < sees_BN[:, None, :, None]
    mask_B1NX = torch.zeros(seen_B1NX.shape, dtype=dtype).masked_fill_(~seen_B1NX, -torch.inf)
    return TileBatch(len(tiles), query_JBRN.flatten(), key_JBX.flatten(), mask_B1NX)


def _real_keys(tiles: Sequence[Tile], groups: int) -> Tensor:
    """Which of a batch's keys are no padding."""
    keys_B1 = torch.tensor([[tile.keys] for tile in tiles])
    return (torch.arange(int(keys_B1.max())) < keys_B1).expand(groups, -1, -1).flatten()


class TiledAttention(torch.autograd.Function):
    """softmax(Q K^T scale + mask) V, batch by batch; the backward pass computes the probabilities anew.

    The queries of the heads that share a key head lie one below the other, so that no key is repeated for them. What is
    kept for the backward pass is Q, K and V.
    """

    @staticmethod
    def forward(ctx: Any, query_HTD: Tensor, key_JTD: Tensor, value_JTD: Tensor, tiles: Tiles, scale: float) -> Tensor:
        """[T, H, D]."""
        heads, n_tokens, size = query_HTD.shape
        groups = len(key_JTD)
        plan = tiles.plan(groups, heads // groups, query_HTD.dtype)
        query, key, value = _rows(query_HTD * scale, plan.padded), _rows(key_JTD), _rows(value_JTD)
        outs = []
        for batch in plan.batches:
            *_, probs = _probabilities(query, key, batch, groups)
            outs.append(torch.bmm(probs, _take(value, batch.key_JBX, groups * batch.tiles)).view(-1, size))
        ctx.save_for_backward(query, key, value)
        ctx.plan, ctx.scale, ctx.shape = plan, scale, (heads, groups, n_tokens, size)
        return _joined(outs).index_select(0, plan.place_TH).view(n_tokens, heads, size)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Gradients of query, key and value; sums over the tiles that see a key are in fp32."""
        query, key, value = ctx.saved_tensors
        plan, (heads, groups, n_tokens, size) = ctx.plan, ctx.shape
        grad = _rows(gradients[0].transpose(0, 1), plan.padded)
        d_queries, d_keys, d_values = [], [], []
        for batch in plan.batches:
            many = groups * batch.tiles
            query_of, key_of, probs = _probabilities(query, key, batch, groups)
            grad_of = _take(grad, batch.query_JBRN, many)
            d_probs = torch.bmm(grad_of, _take(value, batch.key_JBX, many).transpose(1, 2))
            d_scores = torch._softmax_backward_data(d_probs, probs, -1, probs.dtype)
            d_queries.append(torch.bmm(d_scores, key_of).view(-1, size))
            d_keys.append(torch.bmm(d_scores.transpose(1, 2), query_of).view(-1, size))
            d_values.append(torch.bmm(probs.transpose(1, 2), grad_of).view(-1, size))
        d_query = _joined(d_queries).index_select(0, plan.place_TH).mul_(ctx.scale).view(n_tokens, heads, size)
        # Several tiles see a prompt's key. A bag adds its rows in fp32, always in the same order.
        d_key, d_value = (
            embedding_bag(plan.used, _joined(parts), plan.start_TJ, mode="sum").view(n_tokens, groups, size)
            for parts in (d_keys, d_values)
        )
        return *(x.transpose(0, 1) for x in (d_query, d_key, d_value)), None, None


def _rows(x_HTD: Tensor, with_padding: bool = False) -> Tensor:
    """[T H, D], and a row of zeros for queries that are none."""
    x_THD = x_HTD.transpose(0, 1)
    rows = x_THD.reshape(-1, x_THD.shape[-1])
    return torch.cat([rows, rows.new_zeros(1, rows.shape[1])]) if with_padding else rows


def _take(rows: Tensor, index: Tensor, many: int) -> Tensor:
    """[J B, …, D]: the rows that the index names, in so many parts."""
    return rows.index_select(0, index).view(many, -1, rows.shape[1])


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _probabilities(query: Tensor, key: Tensor, batch: TileBatch, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of one batch: its queries [J B, R N, D], the keys they see [J B, X, D], and the attention [J B, R N, X]."""
    many = groups * batch.tiles
    query_of, key_of = _take(query, batch.query_JBRN, many), _take(key, batch.key_JBX, many)
    scores = torch.bmm(query_of, key_of.transpose(1, 2))
    n, x = batch.mask_B1NX.shape[2:]
    scores.view(groups, batch.tiles, -1, n, scores.shape[-1])[..., -x:].add_(batch.mask_B1NX)
    return query_of, key_of, scores.softmax(-1)
