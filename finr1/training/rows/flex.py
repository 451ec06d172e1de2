"""Attention over a `Row` with torch's flex attention, for GPUs.

One kernel skips every block of 128 x 128 (query, key) pairs that is fully masked, where `padded` computes all prompts
and completions up to the longest of each. Needs compute capability 7.0 and a head size of at least 16 (Triton).

Never run on a GPU. The tests check on CPU what can be checked there: the mask entry by entry, the blocks, the output of
the compiled kernel, and gradients of torch's unfused form (`tests/training/rows/test_flex.py`); `tests/gpu` has the
rest.
"""

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

MIN_HEAD_SIZE = 16
# Rows below 128 tokens would get the kernel for decoding, which has no backward pass.
KERNEL_OPTIONS: Any = {"FORCE_USE_FLEX_ATTENTION": True}


@cache
def compiles(device: torch.device) -> bool:
    """Whether torch can compile flex attention for this device."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= (7, 0)


class Segments(NamedTuple):
    """Per token of a row: the number of its segment, and of its prompt (a prompt's own number for its tokens)."""

    segment_T: Tensor  # int32: prompts 0 … K - 1, then completions
    prompt_T: Tensor  # int32


def sees(segments: Segments) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """The `mask_mod` of a row: a token attends to itself and the earlier tokens of its segment and of its prompt."""
    segment_T, prompt_T = segments

    def mask_mod(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        of_key = segment_T[key]
        return (key <= query) & ((of_key == segment_T[query]) | (of_key == prompt_T[query]))

    return mask_mod


def block_mask(segments: Segments) -> BlockMask:
    """The block mask of a row; building it takes a few bytes per pair of tokens."""
    n_tokens, device = len(segments.segment_T), segments.segment_T.device
    return create_block_mask(sees(segments), 1, None, n_tokens, n_tokens, device=device)


@cache
def compiled() -> Callable[..., Tensor]:
    """Flex attention compiled for rows of any length: one kernel for rows of one block, one for longer rows."""
    # Each dtype, number of heads and pass without gradients compiles once more. Beyond the limit (default: 8) an error
    # is better than the unfused form, which needs memory for every pair of tokens.
    compiler: Any = torch.compile  # its type stub lacks recompile_limit
    return compiler(flex_attention, dynamic=True, fullgraph=True, recompile_limit=64)  # type: ignore[no-any-return]


def flex(query_1HTD: Tensor, key_1JTD: Tensor, value_1JTD: Tensor, blocks: BlockMask, scale: float) -> Tensor:
    """Attention output [1, T, H, D]; H / J query heads share a key head."""
    gqa = query_1HTD.shape[1] != key_1JTD.shape[1]
    options = {"block_mask": blocks, "scale": scale, "enable_gqa": gqa, "kernel_options": KERNEL_OPTIONS}
    return compiled()(query_1HTD, key_1JTD, value_1JTD, **options).transpose(1, 2)
