"""Attention over a `Row` in two pieces, registered with transformers as `finr1`.

Prompts attend causally to themselves, once; each completion attends to its prompt and, causally, to itself. The same
numbers as one dense T x T mask (tests hold it to 1e-5 in fp32) at a fraction of the work and memory, for any causal LM
of transformers with rotary positions that hands extra keywords to the attention interface (Llama, Qwen2, Qwen3).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from finr1.data.rows import Layout

NAME = "finr1"


def register() -> str:
    """Make the attention known to transformers; returns the name for `attn_implementation`."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attend)
    # Without a mask function of its own transformers would warn; the layout says what sees what.
    AttentionMaskInterface.register(NAME, lambda *_, **__: None)
    return NAME


def attend(
    module: Any,
    query_1HTD: Tensor,
    key_1HTD: Tensor,
    value_1HTD: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    layout: Layout | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: H heads (fewer of keys and values), D their size; returns [1, T, H, D]."""
    if layout is None:
        raise ValueError("attention `finr1` needs the row's layout: call the model with layout=row.layout")
    query_THD, key_THD, value_THD = (x[0].transpose(0, 1) for x in (query_1HTD, key_1HTD, value_1HTD))
    heads, size = query_THD.shape[1:]
    repeats = heads // key_THD.shape[1]
    prompt_query, prompt_key, prompt_value = (
        _gather(x_THD, layout.prompt_KP) for x_THD in (query_THD, key_THD, value_THD)
    )
    pieces = [_sdpa(prompt_query, prompt_key, prompt_value, repeats, scaling, dropout, causal=True)]
    if layout.completion_CL.numel():
        query_CHLD = _gather(query_THD, layout.completion_CL)
        key_CHXD, value_CHXD = (
            torch.cat([prompt[layout.prompt_of_C], _gather(x, layout.completion_CL)], dim=2)
            for prompt, x in ((prompt_key, key_THD), (prompt_value, value_THD))
        )
        pieces.append(_sdpa(query_CHLD, key_CHXD, value_CHXD, repeats, scaling, dropout, mask=layout.mask_C1LX))
    flat = torch.cat([piece.transpose(1, 2).reshape(-1, heads, size) for piece in pieces])
    return flat.index_select(0, layout.place_T)[None], None


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
    scaling: float | None,
    dropout: float,
    mask: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    if repeats > 1:
        key, value = (x.repeat_interleave(repeats, dim=1) for x in (key, value))
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, is_causal=causal, scale=scaling
    )
