"""The training batch of a GRPO step: groups packed into rows, with the advantage of every completion."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from finr1.core.types import Completion, Group
from finr1.settings.grpo import GrpoSettings
from finr1.training.grpo.advantage import Advantages
from finr1.training.grpo.loss import Count
from finr1.training.rows.rows import RowGroup, pack


class Batch(NamedTuple):
    """Packed groups of a step; the C completions of all its groups are numbered in order."""

    updates: list[list[list[RowGroup]]]  # optimiser step, row, group
    advantages_C: Tensor
    lengths_C: Tensor  # tokens; 0 for a completion outside the loss
    sampler_logprobs_C: list[Tensor]  # the engine's log-probs of each completion's tokens
    all_tokens: int  # of every completion of the step, with or without spread in its group
    all_completions: int

    @property
    def n_tokens(self) -> int:
        """Completion tokens in the loss."""
        return int(self.lengths_C.sum())

    def normaliser(self, rows: list[list[RowGroup]], kind: str) -> Count:
        """The normaliser of the loss of one of the `updates`.

        `entering` counts what is in the loss, `all` every completion except masked ones (as TRL).
        """
        n = len(self.updates)
        if kind == "all":
            return Count(self.all_tokens / n, self.all_completions / n, self.all_tokens / n)
        own = sum(len(ids) for groups in rows for group in groups for ids in group.completions)
        return Count(self.n_tokens / n, int((self.lengths_C > 0).sum()) / n, own)


def collate(
    groups: Sequence[Group], adv: Advantages, settings: GrpoSettings, seed: int = 0, single: bool = False
) -> Batch:
    """Pack the completions that enter the loss into rows that share their prompts (`single`: see `pack`).

    With several updates per rollout the groups are shuffled by `seed` and split between the optimiser steps (DAPO §4.1:
    16 per rollout). Every completion is used once, so several updates cost no more than one. A group belongs to
    one optimiser step, and none is empty.
    """
    size = len(groups[0].completions)
    completions: list[Completion] = [c for g in groups for c in g.completions]
    mask_truncated = settings.loss.mask_truncated
    counted = [bool(c.token_ids) and not (mask_truncated and c.finish_reason == "length") for c in completions]
    enters = [e and k for e, k in zip(adv.enters_PG.flatten().tolist(), counted, strict=True)]
    packed: list[RowGroup] = []
    for i, group in enumerate(groups):
        numbers = [n for n in range(i * size, (i + 1) * size) if enters[n]]
        if numbers:
            prompt = group.completions[0].prompt_token_ids
            packed.append(RowGroup(prompt, [completions[n].token_ids for n in numbers], numbers))
    n_updates = min(settings.updates_per_rollout, len(packed))
    if n_updates > 1:
        order = torch.randperm(len(packed), generator=torch.Generator().manual_seed(seed)).tolist()
        packed = [packed[i] for i in order]
    return Batch(
        updates=[pack(packed[i::n_updates], settings.row_tokens, single) for i in range(n_updates)],
        advantages_C=adv.advantages_PG.flatten(),
        lengths_C=torch.tensor([len(c.token_ids) if e else 0 for c, e in zip(completions, enters, strict=True)]),
        sampler_logprobs_C=[torch.tensor(list(c.logprobs), dtype=torch.float32) for c in completions],
        all_tokens=sum(len(c.token_ids) for c, k in zip(completions, counted, strict=True) if k),
        all_completions=sum(counted),
    )
