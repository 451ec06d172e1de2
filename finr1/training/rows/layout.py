"""Where each token of a row stands: positions, what it attends to, and the padded form of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from finr1.training.rows.flex import Pieces, block_mask
from finr1.training.rows.tiles import Tile, Tiles

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

TILE = 128  # queries whose attention scores exist at once on CPU


class Padded(NamedTuple):
    """The same as index tensors: prompts padded to [K, P], completions to [C, L].

    `place_T` gives each token's place in the concatenation of both, flattened.
    """

    prompt_KP: Tensor  # index into the row; padding repeats index 0
    completion_CL: Tensor
    prompt_of_C: Tensor
    mask_C1LX: Tensor  # bool, X = P + L: which keys (prompt, then own completion) a completion token sees
    place_T: Tensor


@dataclass(frozen=True)
class Layout:
    """Where a row's pieces are, for the attention; each form is made when first asked for, tensors on the device."""

    n_tokens: int
    prompts: Sequence[range]
    completions: Sequence[range]
    prompt_of: Sequence[int]  # the prompt of each completion
    device: torch.device | str = "cpu"

    @cached_property
    def tiles(self) -> Tiles:
        """Every piece cut into tiles of at most `TILE` queries."""
        contexts = [range(0)] * len(self.prompts) + [self.prompts[k] for k in self.prompt_of]
        tiles = [
            Tile(context, piece.start, first, min(first + TILE, piece.stop))
            for context, piece in zip(contexts, [*self.prompts, *self.completions], strict=True)
            for first in range(piece.start, piece.stop, TILE)
        ]
        return Tiles(tiles, self.n_tokens)

    @cached_property
    def padded(self) -> Padded:
        """All prompts in one batch, all completions in another."""
        n_prompt = max(map(len, self.prompts))
        n_completion = max(map(len, self.completions), default=0)
        prompt_KP = torch.zeros(len(self.prompts), n_prompt, dtype=torch.long)
        completion_CL = torch.zeros(len(self.completions), n_completion, dtype=torch.long)
        place_T = torch.empty(self.n_tokens, dtype=torch.long)
        for k, piece in enumerate(self.prompts):
            prompt_KP[k, : len(piece)] = torch.arange(piece.start, piece.stop)
            place_T[piece.start : piece.stop] = k * n_prompt + torch.arange(len(piece))
        for c, piece in enumerate(self.completions):
            completion_CL[c, : len(piece)] = torch.arange(piece.start, piece.stop)
            place_T[piece.start : piece.stop] = prompt_KP.numel() + c * n_completion + torch.arange(len(piece))
        lengths_K = torch.tensor([len(piece) for piece in self.prompts])
        prompt_of_C = torch.tensor(self.prompt_of, dtype=torch.long)
        sees_prompt_CP = torch.arange(n_prompt) < lengths_K[prompt_of_C][:, None]
        causal_LL = torch.ones(n_completion, n_completion, dtype=torch.bool).tril()
        parts = [
            sees_prompt_CP[:, None, :].expand(-1, n_completion, -1),
            causal_LL[None].expand(len(self.completions), -1, -1),
        ]
        mask_C1LX = torch.cat(parts, dim=-1)[:, None].contiguous()
        found = (prompt_KP, completion_CL, prompt_of_C, mask_C1LX, place_T)
        return Padded(*(tensor.to(self.device) for tensor in found))

    @cached_property
    def pieces(self) -> Pieces:
        """Which piece each token is of."""
        piece_T = torch.empty(self.n_tokens, dtype=torch.int32)
        context_T = torch.empty_like(piece_T)
        contexts = [*range(len(self.prompts)), *self.prompt_of]
        for number, (piece, context) in enumerate(zip([*self.prompts, *self.completions], contexts, strict=True)):
            piece_T[piece.start : piece.stop] = number
            context_T[piece.start : piece.stop] = context
        return Pieces(piece_T.to(self.device), context_T.to(self.device))

    @cached_property
    def blocks(self) -> BlockMask:
        """What flex attention wants to know."""
        return block_mask(self.pieces)

    def to(self, device: torch.device) -> Layout:
        """The same with its tensors on a device."""
        return replace(self, device=device)
