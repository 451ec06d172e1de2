"""Group-relative advantages."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


def down_sample(rewards_PG: Tensor, m: int) -> Tensor:
    """The rewards with NaN for all but the m completions of each group whose rewards vary most.

    Sampling is cheap and training is not: PODS, arXiv 2504.13818 §3.2, shows that the subset of largest variance is
    some i highest and m - i lowest rewards. Groups with m or fewer decided completions stay as they are.
    """
    chosen_PG = torch.full_like(rewards_PG, torch.nan)
    for p, rewards_G in enumerate(rewards_PG):
        decided = [g for g in range(len(rewards_G)) if not rewards_G[g].isnan()]
        order = sorted(decided, key=lambda g: float(rewards_G[g]))
        if len(order) > m:
            options = [order[: m - i] + order[len(order) - i :] for i in range(m + 1)]
            order = max(options, key=lambda option: float(rewards_G[option].var(unbiased=False)))
        chosen_PG[p, order] = rewards_G[order]
    return chosen_PG


class Advantages(NamedTuple):
    """Of P groups of G completions: the advantages, and which completions and groups enter the loss."""

    advantages_PG: Tensor  # 0 where a completion does not enter
    enters_PG: Tensor  # bool: decided, and in a group with spread
    spread_P: Tensor  # bool: rewards of the decided completions differ by more than the tolerance


def centre(rewards_PG: Tensor, scale: str = "group", tolerance: float = 1e-6) -> Advantages:
    """A_i = r_i - mean(r), divided by the group's (population) standard deviation with `scale="group"`.

    DeepSeekMath, arXiv 2402.03300 Eq. 21; Fin-R1, arXiv 2503.16252 §4.2, with A_i = (r_i - mean) / max(eps, std).
    `scale="none"` leaves the division out (Dr. GRPO, arXiv 2503.20783 §3.2). NaN marks an undecided completion: it
    counts in neither mean nor deviation. A group whose decided rewards differ by no more than `tolerance`, or of which
    fewer than two are decided, teaches nothing and does not enter.
    """
    decided_PG = ~rewards_PG.isnan()
    n_P1 = decided_PG.sum(-1, keepdim=True).clamp_min(1)
    known_PG = rewards_PG.nan_to_num(0.0)
    mean_P1 = known_PG.sum(-1, keepdim=True) / n_P1
    centred_PG = torch.where(decided_PG, known_PG - mean_P1, 0.0)
    inf = torch.inf
    highest_P = rewards_PG.nan_to_num(-inf).masked_fill(~decided_PG, -inf).amax(-1)
    lowest_P = rewards_PG.nan_to_num(inf).masked_fill(~decided_PG, inf).amin(-1)
    spread_P = (decided_PG.sum(-1) >= 2) & (highest_P - lowest_P > tolerance)
    if scale == "group":
        std_P1 = (centred_PG.square().sum(-1, keepdim=True) / n_P1).sqrt()
        centred_PG = centred_PG / std_P1.clamp_min(tolerance)
    enters_PG = decided_PG & spread_P[:, None]
    return Advantages(torch.where(enters_PG, centred_PG, 0.0), enters_PG, spread_P)
