"""Attention over a `Row` in pieces, registered with transformers as `finr1`.

Prompts attend causally to themselves, once; each completion attends to its prompt and, causally, to itself. The same
numbers as one dense T x T mask (tests hold it to 1e-5 in fp32) at a fraction of the work and memory, for any causal LM
of transformers with rotary positions that hands extra keywords to the attention interface (Llama, Qwen2, Qwen3).

On CPU the pieces go one by one through `TiledAttention`, whose every product is a plain matrix product; torch's flash
kernel takes 2 to 2.5 times as long on such rows, most of it in its backward pass
(`experiments/benchmarks/attention.py`). On a GPU for which torch can compile they go through flex attention
(`finr1/data/flex.py`), elsewhere and with dropout padded, in two batches, through torch's own kernels: always with
`model.attention=padded`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from finr1.data import flex
from finr1.data.rows import Layout, Tile

NAME = "finr1"
NAMES = {"auto": NAME, "padded": f"{NAME}_padded"}


def register(which: str = "auto") -> str:
    """Make the attention known to transformers; returns the name for `attn_implementation`.

    `which` is `model.attention`: `auto`, or `padded` for a GPU without flex attention.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    for kind, name in NAMES.items():
        AttentionInterface.register(name, attend if kind == "auto" else partial(attend, flexible=False))
        # Without a mask function of its own transformers would warn; the layout says what sees what.
        AttentionMaskInterface.register(name, lambda *_, **__: None)
    return NAMES[which]


def kernel(device: torch.device, head_size: int, dropout: float = 0.0, flexible: bool = True) -> str:
    """What computes the attention there: tiles | flex | padded."""
    if device.type == "cpu" and not dropout:
        return "tiles"
    return "flex" if flexible and not dropout and head_size >= flex.LEAST_HEAD and flex.compiles(device) else "padded"


def attend(
    module: Any,
    query_1HTD: Tensor,
    key_1JTD: Tensor,
    value_1JTD: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    layout: Layout | None = None,
    flexible: bool = True,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: H heads, J of keys and values, D their size; returns [1, T, H, D]."""
    if layout is None:
        raise ValueError("attention `finr1` needs the row's layout: call the model with layout=row.layout")
    size, device = query_1HTD.shape[-1], query_1HTD.device
    scale = size**-0.5 if scaling is None else scaling
    chosen = kernel(device, size, dropout, flexible)
    if chosen == "padded":
        return padded(query_1HTD, key_1JTD, value_1JTD, layout, scale, dropout), None
    parts = [query_1HTD, key_1JTD, value_1JTD]
    if torch.is_autocast_enabled(device.type):
        # Rotary embedding leaves queries and keys in fp32: each tile's products would cast them anew, and autocast does
        # not know flex attention.
        parts = [x.to(torch.get_autocast_dtype(device.type)) for x in parts]
    if chosen == "flex":
        query_1HTD, key_1JTD, value_1JTD = parts
        return flex.flex(query_1HTD, key_1JTD, value_1JTD, layout.blocks, scale), None
    out: Any = TiledAttention.apply(*(x[0] for x in parts), layout.tiles, scale)  # type: ignore[no-untyped-call]
    return out[None], None


class TiledAttention(torch.autograd.Function):
    """softmax(Q K^T scale + mask) V, tile by tile; the backward pass computes the probabilities anew.

    R query heads share a key head: their queries are laid one below the other, so that nothing is repeated. No tensor
    is larger than [J, R * TILE, keys of the tile], and the memory kept for the backward pass is that of Q, K and V.
    """

    @staticmethod
    def forward(
        ctx: Any, query_HTD: Tensor, key_JTD: Tensor, value_JTD: Tensor, tiles: Sequence[Tile], scale: float
    ) -> Tensor:
        """[T, H, D]."""
        heads, n_tokens, size = query_HTD.shape
        query_JRTD = (query_HTD * scale).reshape(len(key_JTD), -1, n_tokens, size)
        key_JTD, value_JTD = key_JTD.contiguous(), value_JTD.contiguous()
        out_THD = query_HTD.new_empty(n_tokens, heads, size)
        for tile in tiles:
            *_, probs_JQX = _probabilities(query_JRTD, key_JTD, tile)
            out_JQD = torch.bmm(probs_JQX, _seen(value_JTD, tile))
            out_THD[tile.first : tile.stop] = out_JQD.view(heads, -1, size).transpose(0, 1)
        ctx.save_for_backward(query_JRTD, key_JTD, value_JTD)
        ctx.tiles, ctx.scale = tiles, scale
        return out_THD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Gradients of query, key and value; sums over the tiles that see a key are in fp32."""
        (out_THD,) = gradients
        query_JRTD, key_JTD, value_JTD = ctx.saved_tensors
        groups, repeats, n_tokens, size = query_JRTD.shape
        grad_JRTD = out_THD.view(n_tokens, groups, repeats, size).permute(1, 2, 0, 3)
        d_query = torch.empty_like(query_JRTD)
        d_key, d_value = (torch.zeros_like(x, dtype=torch.float32) for x in (key_JTD, value_JTD))
        for tile in ctx.tiles:
            query_JQD, key_JXD, probs_JQX = _probabilities(query_JRTD, key_JTD, tile)
            grad_JQD = grad_JRTD[:, :, tile.first : tile.stop].reshape(query_JQD.shape)
            d_probs_JQX = torch.bmm(grad_JQD, _seen(value_JTD, tile).transpose(1, 2))
            d_scores_JQX = torch._softmax_backward_data(d_probs_JQX, probs_JQX, -1, probs_JQX.dtype)
            d_query[:, :, tile.first : tile.stop] = torch.bmm(d_scores_JQX, key_JXD).view(groups, repeats, -1, size)
            _add_seen(d_key, tile, torch.bmm(d_scores_JQX.transpose(1, 2), query_JQD))
            _add_seen(d_value, tile, torch.bmm(probs_JQX.transpose(1, 2), grad_JQD))
        d_query_HTD = d_query.mul_(ctx.scale).view(groups * repeats, n_tokens, size)
        return d_query_HTD, d_key.to(key_JTD.dtype), d_value.to(value_JTD.dtype), None, None


def _probabilities(query_JRTD: Tensor, key_JTD: Tensor, tile: Tile) -> tuple[Tensor, Tensor, Tensor]:
    """Of one tile: its queries [J, Q = R * queries, D], the keys they see [J, X, D], and the attention [J, Q, X]."""
    groups, repeats, _, size = query_JRTD.shape
    n = tile.stop - tile.first
    query_JQD = query_JRTD[:, :, tile.first : tile.stop].reshape(groups, repeats * n, size)
    key_JXD = _seen(key_JTD, tile)
    scores_JQX = torch.bmm(query_JQD, key_JXD.transpose(1, 2))
    scores_JQX.view(groups, repeats, n, -1)[..., -n:].add_(_later(n, scores_JQX.dtype))
    return query_JQD, key_JXD, scores_JQX.softmax(-1)


def _seen(x_JTD: Tensor, tile: Tile) -> Tensor:
    """The tokens that a tile sees: the context, then the piece up to the tile's end."""
    own = x_JTD[:, tile.start : tile.stop]
    return torch.cat([x_JTD[:, tile.context.start : tile.context.stop], own], dim=1) if tile.context else own


def _add_seen(total_JTD: Tensor, tile: Tile, x_JXD: Tensor) -> None:
    """The inverse of `_seen`: add to the tokens that a tile saw."""
    n = len(tile.context)
    if n:
        total_JTD[:, tile.context.start : tile.context.stop] += x_JXD[:, :n]
    total_JTD[:, tile.start : tile.stop] += x_JXD[:, n:]


@lru_cache(maxsize=256)
def _later(n: int, dtype: torch.dtype) -> Tensor:
    """[n, n]: -inf for what comes after a query, else 0."""
    return torch.full((n, n), -torch.inf, dtype=dtype).triu_(1)


def padded(
    query_1HTD: Tensor, key_1JTD: Tensor, value_1JTD: Tensor, layout: Layout, scale: float, dropout: float = 0.0
) -> Tensor:
    """[1, T, H, D] by torch's kernels: all prompts in one call, all completions in another."""
    query_THD, key_TJD, value_TJD = (x[0].transpose(0, 1) for x in (query_1HTD, key_1JTD, value_1JTD))
    heads, size = query_THD.shape[1:]
    repeats = heads // key_TJD.shape[1]
    pieces = layout.padded
    prompt_query, prompt_key, prompt_value = (_gather(x, pieces.prompt_KP) for x in (query_THD, key_TJD, value_TJD))
    parts = [_sdpa(prompt_query, prompt_key, prompt_value, repeats, scale, dropout, causal=True)]
    if pieces.completion_CL.numel():
        query_CHLD = _gather(query_THD, pieces.completion_CL)
        key_CJXD, value_CJXD = (
            torch.cat([prompt[pieces.prompt_of_C], _gather(x, pieces.completion_CL)], dim=2)
            for prompt, x in ((prompt_key, key_TJD), (prompt_value, value_TJD))
        )
        parts.append(_sdpa(query_CHLD, key_CJXD, value_CJXD, repeats, scale, dropout, mask=pieces.mask_C1LX))
    flat = torch.cat([part.transpose(1, 2).reshape(-1, heads, size) for part in parts])
    return flat.index_select(0, pieces.place_T)[None]


def _gather(x_THD: Tensor, index_BS: Tensor) -> Tensor:
    """[B, H, S, D]: the tokens that the index names."""
    # index_select, not x[index]: its backward adds rows, where indexing's would sort and scatter.
    flat = x_THD.index_select(0, index_BS.flatten())
    return flat.view(*index_BS.shape, *x_THD.shape[1:]).transpose(1, 2)


def _sdpa(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    repeats: int,
    scale: float,
    dropout: float,
    mask: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    if repeats > 1:
        key, value = (x.repeat_interleave(repeats, dim=1) for x in (key, value))
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=scale
    )
