"""From rewards to advantages: combined rewards, overlong penalty, advantages within the group. Pure functions."""

from typing import NamedTuple

import torch
from torch import Tensor


def combine(values_RC: Tensor, weights_R: Tensor, how: str = "sum") -> Tensor:
    """Combine the values of R rewards into one per completion [C]; NaN where any of them is undecided.

    `sum`: sum_r w_r v_r (Fin-R1, arXiv 2503.16252 v5 §4.2, with weights 1). `product`: prod_r v_r, which is 1 only if
    every reward gives 1 (DianJin-R1, arXiv 2504.15716: format and answer must both be right); weights are not used.
    """
    return values_RC.prod(0) if how == "product" else (weights_R[:, None] * values_RC).sum(0)


def overlong_penalty(lengths: Tensor, limit: int, buffer: int) -> Tensor:
    """Penalty for long completions: 0 up to limit - buffer tokens, then linearly down to -1 at the limit.

    Soft overlong punishment, DAPO, arXiv 2503.14476 Eq. 13.
    """
    return ((limit - buffer - lengths) / buffer).clamp(-1.0, 0.0)


def down_sample(rewards_PG: Tensor, m: int) -> Tensor:
    """Keep the m completions of each group with the largest reward variance; set the other rewards to NaN.

    Sampling is cheaper than training (PODS, arXiv 2504.13818 §3.2: the subset of largest variance consists of the i
    highest and the m - i lowest rewards, for some i). Groups with m or fewer decided completions stay as they are.
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
    """Advantages of P groups of G completions, and which completions enter the loss."""

    advantages_PG: Tensor  # 0 where a completion does not enter
    enters_PG: Tensor  # bool: decided, and in a group with spread
    spread_P: Tensor  # bool: rewards of the decided completions differ by more than the tolerance


def centre(rewards_PG: Tensor, scale: str = "group", tolerance: float = 1e-6, baseline: str = "group") -> Advantages:
    """A_i = r_i - b_i, divided by a (population) standard deviation unless `scale` is `none`.

    Baseline `group`: b_i = mean(r) of the group (DeepSeekMath, arXiv 2402.03300 Eq. 21; Fin-R1, arXiv 2503.16252 §4.2,
    with A_i = (r_i - mean) / max(eps, std)). `leave_one_out`: the mean of the others, which makes A_i larger by the
    factor n / (n - 1) (RLOO, arXiv 2402.14740 §3).

    Scale `group`: the deviation of the group's rewards; `batch`: of all decided rewards of the step, groups without
    spread included (arXiv 2508.08221); `none` (Dr. GRPO, arXiv 2503.20783 §3.2).

    NaN marks an undecided completion: it is excluded from mean and deviation. A group whose decided rewards differ by
    no more than `tolerance`, or with fewer than two decided completions, does not enter the loss.
    """
    decided_PG = ~rewards_PG.isnan()
    n_P1 = decided_PG.sum(-1, keepdim=True).clamp_min(1)
    known_PG = rewards_PG.nan_to_num(0.0)
    mean_P1 = known_PG.sum(-1, keepdim=True) / n_P1
    centred_PG = torch.where(decided_PG, known_PG - mean_P1, 0.0)
    highest_P = rewards_PG.masked_fill(~decided_PG, -torch.inf).amax(-1)
    lowest_P = rewards_PG.masked_fill(~decided_PG, torch.inf).amin(-1)
    spread_P = (decided_PG.sum(-1) >= 2) & (highest_P - lowest_P > tolerance)
    advantages_PG = centred_PG * n_P1 / (n_P1 - 1).clamp_min(1) if baseline == "leave_one_out" else centred_PG
    if scale == "group":
        std_P1 = (centred_PG.square().sum(-1, keepdim=True) / n_P1).sqrt()
        advantages_PG = advantages_PG / std_P1.clamp_min(tolerance)
    elif scale == "batch" and decided_PG.any():
        advantages_PG = advantages_PG / rewards_PG[decided_PG].std(unbiased=False).clamp_min(tolerance)
    enters_PG = decided_PG & spread_P[:, None]
    return Advantages(torch.where(enters_PG, advantages_PG, 0.0), enters_PG, spread_P)


def first_groups(adv: Advantages, n: int) -> Advantages:
    """Exclude all but the first n groups with spread from the loss: dynamic sampling may have sampled more."""
    late_P1 = (adv.spread_P.cumsum(0) > n)[:, None]
    return Advantages(adv.advantages_PG.masked_fill(late_P1, 0.0), adv.enters_PG & ~late_P1, adv.spread_P)
