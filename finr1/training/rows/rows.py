"""Packed rows: several prompts and completions in one forward pass, without attending to each other.

A row is one sequence of tokens made of *groups*. A group is a prompt followed by its completions; every completion
attends to its prompt and to itself, never to another completion or group. SFT packs groups of one completion; GRPO
packs a prompt once with its G completions, which saves computing the prompt G times.

Shape letters: T tokens of the row, N completion tokens that carry the loss, K groups, C completions of the row,
P the longest prompt, L the longest completion.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from finr1.training.rows.layout import Layout


class RowGroup(NamedTuple):
    """Token ids of a prompt and its completions, and the number of each completion in the batch.

    `masks` marks the tokens of each completion that carry the loss (default: all). A multi-turn chat is one completion
    whose mask excludes the user's turns.
    """

    prompt: Sequence[int]
    completions: Sequence[Sequence[int]]
    numbers: Sequence[int]
    masks: Sequence[Sequence[bool]] = ()

    @property
    def n_tokens(self) -> int:
        return len(self.prompt) + sum(map(len, self.completions))

    @property
    def n_targets(self) -> int:
        """Number of tokens that carry the loss."""
        return sum(map(sum, self.masks)) if self.masks else sum(map(len, self.completions))


@dataclass(frozen=True)
class Row:
    """One packed row, ready for a forward pass of batch size 1."""

    ids_T: Tensor
    positions_T: Tensor
    predict_N: Tensor  # the position whose hidden state predicts completion token n
    target_N: Tensor  # that token
    number_N: Tensor  # the number of its completion in the batch
    layout: Layout

    @property
    def n_tokens(self) -> int:
        return len(self.ids_T)

    @property
    def apart(self) -> tuple[Tensor, Tensor]:
        """Each prompt with its only completion as a row of its own, padded [C, L], and where its tokens are (bool).

        ValueError where completions share a prompt.
        """
        if list(self.layout.prompt_of) != list(range(len(self.layout.prompts))):
            raise ValueError("the model trains in single rows: each completion needs its own prompt (see `pack`)")
        lengths = [len(prompt) + len(c) for prompt, c in zip(self.layout.prompts, self.layout.completions, strict=True)]
        ids_CL = pad_sequence(list(torch.split(self.ids_T, lengths)), batch_first=True)
        place_L, length_C = torch.arange(ids_CL.shape[1]), torch.tensor(lengths)
        return ids_CL, (place_L < length_C[:, None]).to(ids_CL.device)

    def to(self, device: torch.device) -> Self:
        """The row on this device; itself if it is there already."""
        if self.ids_T.device == device:
            return self
        return replace(self, **{name: part.to(device) for name, part in vars(self).items()})


def make_row(groups: Sequence[RowGroup]) -> Row:
    """Concatenate groups into a row: each prompt, then its completions, whose positions all continue the prompt's."""
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


def is_single(inner: Any) -> bool:
    """Whether a model takes each completion alone, in a row of its own (`model/check.py`)."""
    return bool(getattr(inner, "single_rows", False))


def pack(groups: Sequence[RowGroup], row_tokens: int, single: bool = False) -> list[list[RowGroup]]:
    """Pack groups into rows of at most `row_tokens` tokens, by best-fit decreasing.

    A group that exceeds the budget is split between completions (its prompt is then computed once per row); a single
    completion that exceeds it gets its own row. Every completion is packed exactly once. With `single` each gets its
    own prompt, and the budget counts them padded to the longest of the row.
    """
    if single:
        return _pack_single(groups, row_tokens)
    pieces = [piece for group in groups for piece in _split(group, row_tokens)]
    rows: list[list[RowGroup]] = []
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


def _pack_single(groups: Sequence[RowGroup], row_tokens: int) -> list[list[RowGroup]]:
    rows: list[list[RowGroup]] = []
    pieces = [_choose(group, [i]) for group in groups for i in range(len(group.completions))]
    for piece in sorted(pieces, key=lambda piece: -piece.n_tokens):
        if rows and (len(rows[-1]) + 1) * rows[-1][0].n_tokens <= row_tokens:
            rows[-1].append(piece)
        else:
            rows.append([piece])
    return rows


def _split(group: RowGroup, row_tokens: int) -> list[RowGroup]:
    if group.n_tokens <= row_tokens or len(group.completions) <= 1:
        return [group]
    pieces: list[RowGroup] = []
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


def _choose(group: RowGroup, which: Sequence[int]) -> RowGroup:
    return RowGroup(
        group.prompt,
        [group.completions[i] for i in which],
        [group.numbers[i] for i in which],
        [group.masks[i] for i in which] if group.masks else (),
    )
