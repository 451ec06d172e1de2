"""Attention over a `Row` in pieces, registered with transformers as `finr1`.

Prompts attend causally to themselves, once; each completion attends to its prompt and, causally, to itself. The same
numbers as one dense T x T mask (tests hold it to 1e-5 in fp32) at a fraction of the work and memory, for any causal LM
of transformers with rotary positions that hands extra keywords to the attention interface (Llama, Qwen2, Qwen3).

On CPU the pieces go in tiles (`tiles.py`). On a GPU for which torch can compile they go through flex attention
(`flex.py`), elsewhere and with dropout padded, in two batches, through torch's own kernels: always
with `model.attention=padded`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from finr1.training.rows import flex
from finr1.training.rows.layout import Layout
from finr1.training.rows.tiles import TiledAttention

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
