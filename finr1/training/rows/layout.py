"""The layout of a packed row: where its prompts and completions are, in the form each attention kernel needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from finr1.training.rows.flex import Segments, block_mask
from finr1.training.rows.tiles import Tile, Tiles

TILE = 128  # most queries per tile on CPU


class Padded(NamedTuple):
    """A layout as index tensors: prompts padded to [K, P], completions to [C, L]."""

    prompt_KP: Tensor  # index into the row; padding repeats index 0
    completion_CL: Tensor  # index into the row; padding repeats index 0
    prompt_of_C: Tensor  # the prompt of each completion
    mask_C1LX: Tensor  # bool, X = P + L: which keys (prompt, then own completion) a completion token attends to
    place_T: Tensor  # index of each token in the concatenation of prompt_KP and completion_CL, both flattened


@dataclass(frozen=True)
class Layout:
    """Where the segments (prompts and completions) of a row are. Derived forms are computed on first use."""

    n_tokens: int
    prompts: Sequence[range]
    completions: Sequence[range]
    prompt_of: Sequence[int]  # the prompt of each completion
    device: torch.device | str = "cpu"

    @cached_property
    def tiles(self) -> Tiles:
        """Every segment split into tiles of at most `TILE` queries."""
        contexts = [range(0)] * len(self.prompts) + [self.prompts[k] for k in self.prompt_of]
        tiles = [
            Tile(context, segment.start, first, min(first + TILE, segment.stop))
            for context, segment in zip(contexts, [*self.prompts, *self.completions], strict=True)
            for first in range(segment.start, segment.stop, TILE)
        ]
        return Tiles(tiles, self.n_tokens)

    @cached_property
    def padded(self) -> Padded:
        """All prompts as one padded batch, all completions as another."""
        n_prompt = max(map(len, self.prompts))
        n_completion = max(map(len, self.completions), default=0)
        prompt_KP = torch.zeros(len(self.prompts), n_prompt, dtype=torch.long)
        completion_CL = torch.zeros(len(self.completions), n_completion, dtype=torch.long)
        place_T = torch.empty(self.n_tokens, dtype=torch.long)
        for k, prompt in enumerate(self.prompts):
            prompt_KP[k, : len(prompt)] = torch.arange(prompt.start, prompt.stop)
            place_T[prompt.start : prompt.stop] = k * n_prompt + torch.arange(len(prompt))
        for c, completion in enumerate(self.completions):
            index_L = torch.arange(len(completion))
            completion_CL[c, : len(completion)] = completion.start + index_L
            place_T[completion.start : completion.stop] = prompt_KP.numel() + c * n_completion + index_L
        lengths_K = torch.tensor([len(prompt) for prompt in self.prompts])
        prompt_of_C = torch.tensor(self.prompt_of, dtype=torch.long)
        sees_prompt_CP = torch.arange(n_prompt) < lengths_K[prompt_of_C][:, None]
        causal_LL = torch.ones(n_completion, n_completion, dtype=torch.bool).tril()
        sees_prompt_CLP = sees_prompt_CP[:, None, :].expand(-1, n_completion, -1)
        causal_CLL = causal_LL[None].expand(len(self.completions), -1, -1)
        mask_C1LX = torch.cat([sees_prompt_CLP, causal_CLL], dim=-1)[:, None].contiguous()
        tensors = (prompt_KP, completion_CL, prompt_of_C, mask_C1LX, place_T)
        return Padded(*(tensor.to(self.device) for tensor in tensors))

    @cached_property
    def segments(self) -> Segments:
        """The segment of each token."""
        segment_T = torch.empty(self.n_tokens, dtype=torch.int32)
        prompt_T = torch.empty_like(segment_T)
        prompt_of = [*range(len(self.prompts)), *self.prompt_of]
        for number, (segment, prompt) in enumerate(zip([*self.prompts, *self.completions], prompt_of, strict=True)):
            segment_T[segment.start : segment.stop] = number
            prompt_T[segment.start : segment.stop] = prompt
        return Segments(segment_T.to(self.device), prompt_T.to(self.device))

    @cached_property
    def blocks(self) -> BlockMask:
        """The block mask of flex attention."""
        return block_mask(self.segments)

    def to(self, device: torch.device) -> Layout:
        """The same layout with its tensors on this device."""
        return replace(self, device=device)
