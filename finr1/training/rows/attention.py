"""Attention over a `Row`, segment by segment, registered with transformers as `finr1`.

Prompts attend causally to themselves; each completion attends to its prompt and, causally, to itself. The result equals
that of a dense T x T mask (tests: 1e-5 in fp32) at a fraction of the work and memory, for any causal LM of transformers
that passes extra keywords to the attention interface (`model/check.py` compares each model that is loaded).

Three kernels: `tiles` on CPU (`tiles.py`), `flex` on GPUs that torch can compile for (`flex.py`), and `padded`, torch's
scaled dot-product attention over two padded batches: elsewhere, with dropout, and with `model.attention=padded`.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

from finr1.training.rows import flex
from finr1.training.rows.layout import Layout
from finr1.training.rows.tiles import TiledAttention

NAME = "finr1"
NAMES = {"auto": NAME, "padded": f"{NAME}_padded"}


def register(which: str = "auto") -> str:
    """Register the attention with transformers; returns the name for `attn_implementation`.

    `which` is the setting `model.attention`: `auto`, or `padded` for a GPU without flex attention.
    """
    for kind, name in NAMES.items():
        AttentionInterface.register(name, attend if kind == "auto" else partial(attend, flexible=False))
        # The layout replaces the mask, but without a mask function transformers would warn.
        AttentionMaskInterface.register(name, lambda *_, **__: None)
    return NAMES[which]


def kernel(device: torch.device, head_size: int, dropout: float = 0.0, flexible: bool = True) -> str:
    """The kernel used on this device: tiles | flex | padded."""
    if device.type == "cpu" and not dropout:
        return "tiles"
    fits = flexible and not dropout and head_size >= flex.MIN_HEAD_SIZE
    return "flex" if fits and flex.compiles(device) else "padded"


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
    """The attention interface of transformers: H query heads, J key heads, D head size; returns [1, T, H, D].

    Values may have smaller heads than queries and keys.
    """
    if layout is None:
        raise ValueError("attention `finr1` needs the row's layout: call the model with layout=row.layout")
    size, device, of_value = query_1HTD.shape[-1], query_1HTD.device, value_1JTD.shape[-1]
    if of_value < size:
        value_1JTD = pad(value_1JTD, (0, size - of_value))
        out = attend(module, query_1HTD, key_1JTD, value_1JTD, None, scaling, dropout, layout, flexible)[0]
        return out[..., :of_value], None
    scale = size**-0.5 if scaling is None else scaling
    chosen = kernel(device, size, dropout, flexible)
    if chosen == "padded":
        return padded(query_1HTD, key_1JTD, value_1JTD, layout, scale, dropout), None
    inputs = [query_1HTD, key_1JTD, value_1JTD]
    if torch.is_autocast_enabled(device.type):
        # Rotary embedding returns fp32 queries and keys: every tile would cast them again, and autocast does not cover
        # flex attention.
        inputs = [x.to(torch.get_autocast_dtype(device.type)) for x in inputs]
    if chosen == "flex":
        query_1HTD, key_1JTD, value_1JTD = inputs
        return flex.flex(query_1HTD, key_1JTD, value_1JTD, layout.blocks, scale), None
    tiled: Any = TiledAttention.apply(*(x[0] for x in inputs), layout.tiles, scale)  # type: ignore[no-untyped-call]
    return tiled[None], None


def padded(
    query_1HTD: Tensor, key_1JTD: Tensor, value_1JTD: Tensor, layout: Layout, scale: float, dropout: float = 0.0
) -> Tensor:
    """Attention by torch's own kernels [1, T, H, D]: all prompts in one call, all completions in another."""
    query_THD, key_TJD, value_TJD = (x[0].transpose(0, 1) for x in (query_1HTD, key_1JTD, value_1JTD))
    heads, size = query_THD.shape[1:]
    repeats = heads // key_TJD.shape[1]
    index = layout.padded
    prompt_query, prompt_key, prompt_value = (_gather(x, index.prompt_KP) for x in (query_THD, key_TJD, value_TJD))
    options = {"dropout_p": dropout, "scale": scale}
    parts = [_sdpa(prompt_query, prompt_key, prompt_value, repeats, is_causal=True, **options)]
    if index.completion_CL.numel():
        query_CHLD = _gather(query_THD, index.completion_CL)
        key_CJXD, value_CJXD = (
            torch.cat([prompt[index.prompt_of_C], _gather(x, index.completion_CL)], dim=2)
            for prompt, x in ((prompt_key, key_TJD), (prompt_value, value_TJD))
        )
        parts.append(_sdpa(query_CHLD, key_CJXD, value_CJXD, repeats, attn_mask=index.mask_C1LX, **options))
    flat = torch.cat([part.transpose(1, 2).reshape(-1, heads, size) for part in parts])
    return flat.index_select(0, index.place_T)[None]


def _gather(x_THD: Tensor, index_BS: Tensor) -> Tensor:
    """Select tokens: [B, H, S, D]."""
    # index_select, not x[index]: its backward pass adds rows, that of indexing sorts and scatters.
    flat = x_THD.index_select(0, index_BS.flatten())
    return flat.view(*index_BS.shape, *x_THD.shape[1:]).transpose(1, 2)


def _sdpa(query: Tensor, key: Tensor, value: Tensor, repeats: int, **options: Any) -> Tensor:
    if repeats > 1:
        key, value = (x.repeat_interleave(repeats, dim=1) for x in (key, value))
    return scaled_dot_product_attention(query, key, value, **options)
