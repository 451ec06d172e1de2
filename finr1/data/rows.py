"""Rows: how several pieces of text share one forward pass without seeing each other.

A row is one sequence of tokens made of *groups*. A group is a prompt and the completions that follow it; every
completion sees its prompt and itself, never another completion nor another group. SFT packs groups of one completion;
GRPO puts a prompt once and its G completions after it, which saves computing the prompt G times.

Shape letters: T tokens of the row, N completion tokens that carry the loss, K groups, C completions of the row,
P the longest prompt, L the longest completion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from finr1.data.flex import block_mask
from finr1.data.tiles import Tile, Tiles

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask


class Group(NamedTuple):
    """Token ids of one prompt and of its completions, and the number of each completion in the batch.

    `masks` says of each completion which of its tokens carry the loss; without masks all do. A chat of several turns is
    one completion whose mask leaves out what the user says.
    """

    prompt: Sequence[int]
    completions: Sequence[Sequence[int]]
    numbers: Sequence[int]
    masks: Sequence[Sequence[bool]] = ()

    @property
    def n_tokens(self) -> int:
        """Tokens the group takes in a row."""
        return len(self.prompt) + sum(map(len, self.completions))

    @property
    def n_targets(self) -> int:
        """Tokens that carry the loss."""
        return sum(map(sum, self.masks)) if self.masks else sum(map(len, self.completions))


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


class Pieces(NamedTuple):
    """The same token by token: the number of a token's piece, and of the one that it sees whole, its prompt."""

    piece_T: Tensor  # int32: prompts 0 … K - 1, then completions
    context_T: Tensor  # of a prompt's tokens the prompt itself


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


@dataclass(frozen=True)
class Row:
    """One packed row, ready for a forward pass of batch size 1."""

    ids_T: Tensor
    positions_T: Tensor
    predict_N: Tensor  # the position whose hidden state predicts completion token n
    target_N: Tensor  # that token
    number_N: Tensor  # which completion of the batch it belongs to
    layout: Layout

    @property
    def n_tokens(self) -> int:
        """Tokens in the row."""
        return len(self.ids_T)

    def to(self, device: torch.device) -> Row:
        """The same on a device; itself where it is there."""
        if self.ids_T.device == device:
            return self
        return Row(
            ids_T=self.ids_T.to(device),
            positions_T=self.positions_T.to(device),
            predict_N=self.predict_N.to(device),
            target_N=self.target_N.to(device),
            number_N=self.number_N.to(device),
            layout=self.layout.to(device),
        )


def make_row(groups: Sequence[Group]) -> Row:
    """Lay groups out one after the other: prompt, then its completions. Positions restart after the prompt."""
    ids: list[int] = []
    positions: list[int] = []
    prompts: list[range] = []
    completions: list[range] = []
    prompt_of: list[int] = []
    predict: list[int] = []
    target: list[int] = []
    number: list[int] = []
    for group in groups:
        if not group.prompt:
            raise ValueError("a group needs at least one prompt token: the first completion token is predicted from it")
        start = len(ids)
        ids += group.prompt
        positions += range(len(group.prompt))
        prompts.append(range(start, len(ids)))
        last_of_prompt = len(ids) - 1
        masks: Sequence[Sequence[bool] | None] = group.masks or [None] * len(group.completions)
        for completion, its_number, mask in zip(group.completions, group.numbers, masks, strict=True):
            begin = len(ids)
            ids += completion
            positions += range(len(group.prompt), len(group.prompt) + len(completion))
            completions.append(range(begin, len(ids)))
            prompt_of.append(len(prompts) - 1)
            before = [last_of_prompt, *range(begin, len(ids) - 1)] if completion else []
            if mask is not None:
                chosen = [i for i, carries in zip(range(len(completion)), mask, strict=True) if carries]
                before, completion = [before[i] for i in chosen], [completion[i] for i in chosen]
            predict += before
            target += completion
            number += [its_number] * len(before)
    return Row(
        ids_T=torch.tensor(ids),
        positions_T=torch.tensor(positions),
        predict_N=torch.tensor(predict, dtype=torch.long),
        target_N=torch.tensor(target, dtype=torch.long),
        number_N=torch.tensor(number, dtype=torch.long),
        layout=Layout(len(ids), prompts, completions, prompt_of),
    )


def pack(groups: Sequence[Group], row_tokens: int) -> list[list[Group]]:
    """Best-fit decreasing: put groups into as few rows of at most `row_tokens` tokens as that rule finds.

    A group longer than the budget is split by completions where it has several (its prompt is then computed once a
    row); a single completion longer than the budget gets a row of its own. Every completion comes out exactly once.
    """
    pieces = [piece for group in groups for piece in _split(group, row_tokens)]
    rows: list[list[Group]] = []
    free: list[int] = []
    for piece in sorted(pieces, key=lambda piece: -piece.n_tokens):
        fitting = [i for i, room in enumerate(free) if room >= piece.n_tokens]
        if fitting:
            best = min(fitting, key=lambda i: free[i])
            rows[best].append(piece)
            free[best] -= piece.n_tokens
        else:
            rows.append([piece])
            free.append(row_tokens - piece.n_tokens)
    return rows


def _split(group: Group, row_tokens: int) -> list[Group]:
    if group.n_tokens <= row_tokens or len(group.completions) <= 1:
        return [group]
    pieces: list[Group] = []
    taken: list[int] = []
    room = row_tokens - len(group.prompt)
    used = 0
    for i, completion in enumerate(group.completions):
        if taken and used + len(completion) > room:
            pieces.append(_choose(group, taken))
            taken, used = [], 0
        taken.append(i)
        used += len(completion)
    return [*pieces, _choose(group, taken)]


def _choose(group: Group, which: Sequence[int]) -> Group:
    return Group(
        group.prompt,
        [group.completions[i] for i in which],
        [group.numbers[i] for i in which],
        [group.masks[i] for i in which] if group.masks else (),
    )
