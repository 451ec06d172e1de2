"""Attention over a `Row` by torch's flex attention, on GPUs: one kernel that skips every block of 128 x 128 places in
which nothing is seen, where `padded` computes prompts and completions up to the longest of each.

Never run on a GPU. What a CPU can show is tested: the mask entry by entry, the blocks, the output of the compiled
kernel, and gradients through torch's own unfused form (`pytest tests/data/test_flex.py`); `tests/gpu` has the rest.
Triton's kernels want heads of 16 or more, and compute capability 7.0.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

LEAST_HEAD = 16


# Training rows only: the kernel for decoding, which rows below 128 tokens would get, has no backward pass.
OPTIONS: Any = {"FORCE_USE_FLEX_ATTENTION": True}


@cache
def compiles(device: torch.device) -> bool:
    """Whether torch can compile for this device."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= (7, 0)


def sees(pieces: Pieces) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The `mask_mod` of a row: a token sees what is before it in its own piece and, of a completion, in its prompt."""
    piece_T, context_T = pieces

    def mask_mod(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = piece_T[key]
        return (key <= query) & ((seen == piece_T[query]) | (seen == context_T[query]))

    return mask_mod


def block_mask(pieces: Pieces) -> BlockMask:
    """The blocks of a row that have anything to see; building it takes a few bytes for each pair of tokens, once."""
    from torch.nn.attention.flex_attention import create_block_mask

    n_tokens, device = len(pieces.piece_T), pieces.piece_T.device
    return create_block_mask(sees(pieces), 1, None, n_tokens, n_tokens, device=device)


@cache
def compiled() -> Callable[..., Tensor]:
    """Compiled for rows of any length: one kernel for rows of one block and one for longer ones, not one a length."""
    from torch.nn.attention.flex_attention import flex_attention

    # Types, heads and passes without gradient have kernels of their own. Torch's own limit of 8 is for a function of a
    # model; past it an error is better than its unfused form, which would need memory for every pair of tokens.
    compiler: Any = torch.compile  # whose types lack the limit
    return compiler(flex_attention, dynamic=True, fullgraph=True, recompile_limit=64)  # type: ignore[no-any-return]


def flex(query_1HTD: Tensor, key_1JTD: Tensor, value_1JTD: Tensor, blocks: BlockMask, scale: float) -> Tensor:
    """[1, T, H, D]; H / J query heads share a key head."""
    gqa = query_1HTD.shape[1] != key_1JTD.shape[1]
    options = {"block_mask": blocks, "scale": scale, "enable_gqa": gqa, "kernel_options": OPTIONS}
    return compiled()(query_1HTD, key_1JTD, value_1JTD, **options).transpose(1, 2)


class Pieces(NamedTuple):
    """The same token by token: the number of a token's piece, and of the one that it sees whole, its prompt."""

    piece_T: Tensor  # int32: prompts 0 … K - 1, then completions
    context_T: Tensor  # of a prompt's tokens the prompt itself
