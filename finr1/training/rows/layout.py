"""The layout of a packed row: where its prompts and completions are, in the form each attention kernel needs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

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
        prompt_KP, real_KP = _pad(self.prompts)
        completion_CL, real_CL = _pad(self.completions)
        place_T = torch.empty(self.n_tokens, dtype=torch.long)
        real = torch.cat([real_KP.flatten(), real_CL.flatten()])
        place_T[torch.cat([prompt_KP.flatten(), completion_CL.flatten()])[real]] = real.nonzero()[:, 0]
        prompt_of_C = torch.tensor(self.prompt_of, dtype=torch.long)
        n_completions, longest = completion_CL.shape
        sees_prompt_CLP = real_KP[prompt_of_C][:, None].expand(-1, longest, -1)
        causal_CLL = torch.ones(longest, longest, dtype=torch.bool).tril().expand(n_completions, -1, -1)
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

    def to(self, device: torch.device) -> Self:
        """The same layout with its tensors on this device."""
        return replace(self, device=device)


def _pad(segments: Sequence[range]) -> tuple[Tensor, Tensor]:
    """Positions of the tokens of each segment, padded with 0 to the longest, and which of them are not padding."""
    start_S = torch.tensor([segment.start for segment in segments], dtype=torch.long)
    length_S = torch.tensor([len(segment) for segment in segments], dtype=torch.long)
    offset = torch.arange(max(map(len, segments), default=0))
    real = offset < length_S[:, None]
    return (start_S[:, None] + offset).where(real, 0), real
