"""Attention over a row on CPU in tiles, as plain batched matrix products.

Faster than torch's flash kernel on such rows, above all in the backward pass (`experiments/benchmarks/attention.py`).
Tiles of similar size are computed as one batch, so that a product occupies several threads and a layer needs few calls.
Index tensors, computed once per row, map the tokens that a batch reads and the places of its results.

Shape letters: B tiles of a batch, N queries and X keys of its largest tile, J key heads, R query heads per key head,
H = J R query heads, T tokens, D head size. Index tensors number (token, head) pairs as `token * heads + head`, the
memory order of transformers.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

MAX_SCORES = 3 << 19  # attention scores of a batch of several tiles: 3 MB in bf16, to fit the processor's cache
MAX_PADDING = 1.2  # padded size of a batch / its real (query, key) pairs


class Tile(NamedTuple):
    """Queries `first … stop - 1` of a segment: they attend to all of `context` and, causally, to the segment."""

    context: range  # the prompt before a completion; empty for a prompt
    start: int  # of the segment
    first: int
    stop: int

    @property
    def queries(self) -> int:
        return self.stop - self.first

    @property
    def keys(self) -> int:
        """Number of keys that the last query attends to."""
        return len(self.context) + self.stop - self.start


class TileBatch(NamedTuple):
    """Index tensors of a batch of tiles of similar size."""

    tiles: int  # B
    query_JBRN: Tensor  # index into [T H, D], flattened; padding points past the end
    key_JBX: Tensor  # index into [T J, D], flattened; padding points to the first token
    mask_B1NX: Tensor  # 0 or -inf, for the last keys only: all queries attend to the keys before them


class Plan(NamedTuple):
    """How to compute the tiles of a row for a given number of heads."""

    batches: list[TileBatch]
    place_TH: Tensor  # the index of each query's result in the concatenated outputs of all batches
    padded: bool  # whether any batch has padding queries
    key_copies: Tensor  # indices into the concatenated keys of all batches, sorted by the key that they copy
    start_TJ: Tensor  # where the copies of each key start in `key_copies`


class Tiles:
    """The tiles of a row of `n_tokens` tokens; plans are cached."""

    def __init__(self, tiles: Sequence[Tile], n_tokens: int) -> None:
        self.tiles, self.n_tokens = list(tiles), n_tokens
        self._plans: dict[tuple[int, int, torch.dtype], Plan] = {}

    def plan(self, groups: int, repeats: int, dtype: torch.dtype) -> Plan:
        """The plan for J = `groups` key heads with R = `repeats` query heads each."""
        key = groups, repeats, dtype
        if key not in self._plans:
            self._plans[key] = self._plan(*key)
        return self._plans[key]

    def _plan(self, groups: int, repeats: int, dtype: torch.dtype) -> Plan:
        heads = groups * repeats
        parts = divide(self.tiles, MAX_SCORES // heads)
        batches = [_batch(tiles, groups, repeats, self.n_tokens, dtype) for tiles in parts]
        queries, keys = torch.cat([b.query_JBRN for b in batches]), torch.cat([b.key_JBX for b in batches])
        real = queries < self.n_tokens * heads
        place_TH = torch.empty(self.n_tokens * heads, dtype=torch.long)
        place_TH[queries[real]] = real.nonzero()[:, 0]
        copies = torch.cat([_real_keys(tiles, groups) for tiles in parts]).nonzero()[:, 0]
        order = keys[copies].argsort(stable=True)
        counts_TJ = keys[copies].bincount(minlength=self.n_tokens * groups)
        return Plan(batches, place_TH, not bool(real.all()), copies[order], counts_TJ.cumsum(0) - counts_TJ)


def divide(tiles: Sequence[Tile], max_pairs: int) -> list[list[Tile]]:
    """Batch tiles by size: at most `max_pairs` (query, key) pairs per batch, padding included, or a single tile."""
    batches: list[list[Tile]] = []
    pairs = n_queries = n_keys = 0
    for tile in sorted(tiles, key=lambda tile: (tile.keys, tile.queries)):
        size = tile.queries * tile.keys
        n, x = max(n_queries, tile.queries), max(n_keys, tile.keys)
        padded = n * x * (len(batches[-1]) + 1) if batches else 0
        if batches and padded <= max_pairs and padded <= MAX_PADDING * (pairs + size):
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
    sees_BN = torch.full((len(tiles), n), x)  # each query attends to this many of its tile's keys; padding to all
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
    """Which keys of a batch are not padding (bool, flattened)."""
    keys_B1 = torch.tensor([[tile.keys] for tile in tiles])
    return (torch.arange(int(keys_B1.max())) < keys_B1).expand(groups, -1, -1).flatten()


class TiledAttention(torch.autograd.Function):
    """softmax(Q K^T scale + mask) V, batch by batch; the backward pass recomputes the probabilities from Q, K and V.

    Queries of heads that share a key head are stacked along N, so that keys need not be repeated.
    """

    @staticmethod
    def forward(ctx: Any, query_HTD: Tensor, key_JTD: Tensor, value_JTD: Tensor, tiles: Tiles, scale: float) -> Tensor:
        """The attention output [T, H, D]."""
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
        """Gradients of query, key and value; a key's gradient is summed over tiles in fp32."""
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
        # Several tiles attend to a prompt's key. embedding_bag sums in fp32 and in a fixed order.
        d_key, d_value = (
            embedding_bag(plan.key_copies, _joined(parts), plan.start_TJ, mode="sum").view(n_tokens, groups, size)
            for parts in (d_keys, d_values)
        )
        return *(x.transpose(0, 1) for x in (d_query, d_key, d_value)), None, None


def _rows(x_HTD: Tensor, with_padding: bool = False) -> Tensor:
    """Flatten to [T H, D], with one more row of zeros for padding queries."""
    x_THD = x_HTD.transpose(0, 1)
    rows = x_THD.reshape(-1, x_THD.shape[-1])
    return torch.cat([rows, rows.new_zeros(1, rows.shape[1])]) if with_padding else rows


def _take(rows: Tensor, index: Tensor, many: int) -> Tensor:
    """Select rows by index, as `many` equal parts: [J B, …, D]."""
    return rows.index_select(0, index).view(many, -1, rows.shape[1])


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _probabilities(query: Tensor, key: Tensor, batch: TileBatch, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries [J B, R N, D], keys [J B, X, D] and attention probabilities [J B, R N, X] of a batch."""
    many = groups * batch.tiles
    query_of, key_of = _take(query, batch.query_JBRN, many), _take(key, batch.key_JBX, many)
    scores = torch.bmm(query_of, key_of.transpose(1, 2))
    n, x = batch.mask_B1NX.shape[2:]
    scores.view(groups, batch.tiles, -1, n, scores.shape[-1])[..., -x:].add_(batch.mask_B1NX)
    return query_of, key_of, scores.softmax(-1)
