"""The policy loss. Pure functions: tensors in, a named tuple out.

    L = sum_t w_t c_t l_t + beta sum_t w_t k_t - eta sum_t H_t / N

`l_t` of a token, with rho_t = pi(y_t) / pi_old(y_t), eps- = `clip_low`, eps+ = `clip_high` and A the advantage. `kind`:

- `dapo`, `grpo`, `bnpo`, `dr_grpo`: -min(rho_t A, clip(rho_t, 1 - eps-, 1 + eps+) A)
  (PPO, arXiv 1707.06347 Eq. 7; two clip bounds: DAPO, arXiv 2503.14476 Eq. 8);
- `gspo`: the same with the sequence ratio, s = exp(1/|y| sum_t log rho_t), for every token of y (arXiv
  2507.18071 Eq. 5-7; its experiments, §5.1, clip at 3e-4 and 4e-4);
- `cispo`: -sg(min(rho_t, 1 + eps+)) A log pi(y_t), with sg the stop-gradient: no token is dropped (MiniMax-M1, arXiv
  2506.13585 Eq. 4-5, which has no lower bound either and gives no value for eps+).

`dual_clip` d > 1 bounds the loss of a token with negative advantage: l_t <= -d A where A < 0 (Ye et al., arXiv
1912.09729, dual-clip PPO; TRL's `delta`).

`w_t`, the normaliser. N tokens and C completions enter the loss, over all ranks and micro-batches of the step:

- `dapo`, `cispo`: 1 / N (DAPO Eq. 8; `dapo` is the default);
- `bnpo`: 1 / (tokens of this optimiser step), which differs from `dapo` with several optimiser steps per rollout (TRL;
  the name is Liger's);
- `grpo`, `gspo`: 1 / (C |y|), each completion's mean (DeepSeekMath, arXiv 2402.03300 Eq. 3; Fin-R1; GSPO Eq. 5);
- `dr_grpo`: 1 / (C L) with L = `sampling.max_new_tokens`, the same for all (Dr. GRPO, arXiv 2503.20783 §3.2; TRL).

`c_t`, where `correction.kind` is not `none`: the importance weight for the mismatch between sampler and trainer. With
pi_s the engine's and pi_old the trainer's probabilities under the weights that sampled, c = pi_old / pi_s of the token
or of the whole sequence, clamped to [`correction.low`, `correction.high`] (`*_truncate`) or 0 outside it (`*_mask`); no
gradient (Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training"; TRL's modes of the
same names).

`k_t` = pi_ref / pi - log(pi_ref / pi) - 1 (k3 of J. Schulman, "Approximating KL divergence"; DeepSeekMath Eq. 4), with
beta > 0 only. `H_t`: the entropy of the policy's distribution, with eta = `entropy_bonus` > 0 only (A3C, arXiv
1602.01783 §4).

Departures from the papers: without a correction and with one optimiser step per rollout, pi_old is the engine that
sampled, not a recomputation by the trainer, so the ratio also corrects the small difference between the two. The
default has no reference model and no KL term (as Fin-R1's README says; its paper v5, Eq. 4.5, has one). Groups without
spread are excluded from N and C, unless `normaliser` is `all`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from finr1.settings.grpo import CorrectionSettings, LossSettings


class Count(NamedTuple):
    """Normaliser of one optimiser step; with n optimiser steps per rollout, 1/n of the rollout's counts."""

    tokens: float
    completions: float
    own_tokens: float  # of this optimiser step alone, for bnpo


class Tokens(NamedTuple):
    """The N completion tokens of a micro-batch, which holds whole completions."""

    logprobs_N: Tensor
    sampler_N: Tensor  # the engine's log-probs
    advantages_N: Tensor
    weights_N: Tensor
    number_N: Tensor  # number of the completion that a token belongs to
    old_N: Tensor | None = None  # the trainer's log-probs before the rollout's first optimiser step
    reference_N: Tensor | None = None  # log-probs of the frozen reference, with beta > 0
    entropy_N: Tensor | None = None  # nats; carries a gradient only with an entropy bonus
    entropy_weight: float = 0.0  # 1 / N


class PolicyLoss(NamedTuple):
    """Loss of a micro-batch and sums of its metrics over tokens; add both up over micro-batches."""

    loss: Tensor
    clipped: Tensor  # tokens whose ratio was clipped in the direction that matters
    mismatch: Tensor  # |log pi_old (trainer) - log pi_s (engine)|
    kl: Tensor  # k3 against the reference; 0 without one
    corrected: Tensor  # tokens whose importance weight was truncated or masked
    entropy: Tensor  # nats; 0 if not given


def token_weights(lengths_C: Tensor, kind: str, count: Count, limit: int) -> Tensor:
    """w_t of each completion's tokens in an optimiser step [C]; `limit` is L, the maximum of new tokens."""
    n_completions = max(1.0, count.completions)
    if kind in ("grpo", "gspo"):
        return 1.0 / (lengths_C.clamp_min(1) * n_completions)
    totals = {"dapo": count.tokens, "cispo": count.tokens, "bnpo": count.own_tokens, "dr_grpo": n_completions * limit}
    if kind not in totals:
        raise ValueError(f"unknown loss {kind}")
    return torch.ones_like(lengths_C, dtype=torch.float32) / max(1.0, totals[kind])


def policy_loss(tokens: Tokens, rule: LossSettings, correction: CorrectionSettings) -> PolicyLoss:
    """The loss in the module's docstring, over a micro-batch."""
    current_N, advantages_N = tokens.logprobs_N, tokens.advantages_N
    trainer_N = current_N.detach() if tokens.old_N is None else tokens.old_N
    # With one optimiser step on uncorrected samples pi_old is the sampler itself, else the trainer's old weights.
    by_trainer = tokens.old_N is not None or correction.kind != "none"
    log_ratio_N = current_N - (trainer_N if by_trainer else tokens.sampler_N)
    if rule.kind == "gspo":
        log_ratio_N = _of_sequence(log_ratio_N, tokens.number_N, mean=True)
    ratio_N = log_ratio_N.exp()
    if rule.kind == "cispo":
        objective_N = ratio_N.detach().clamp_max(1 + rule.clip_high) * advantages_N * current_N
        clipped_N = ratio_N > 1 + rule.clip_high
    else:
        bounded_N = ratio_N.clamp(1 - rule.clip_low, 1 + rule.clip_high)
        objective_N = torch.minimum(ratio_N * advantages_N, bounded_N * advantages_N)
        clipped_N = ((ratio_N > 1 + rule.clip_high) & (advantages_N > 0)) | (
            (ratio_N < 1 - rule.clip_low) & (advantages_N < 0)
        )
        if rule.dual_clip is not None:
            floor_N = torch.where(advantages_N < 0, rule.dual_clip * advantages_N, -torch.inf)
            objective_N = torch.maximum(objective_N, floor_N)
            clipped_N = clipped_N | ((ratio_N > rule.dual_clip) & (advantages_N < 0))
    gap_N = trainer_N - tokens.sampler_N
    corrected = kl = entropy = torch.zeros((), device=current_N.device)
    if correction.kind != "none":
        weights_N, corrected_N = importance_weights(gap_N, tokens.number_N, correction)
        objective_N, corrected = objective_N * weights_N, corrected_N.sum()
    loss = -(tokens.weights_N * objective_N).sum()
    if tokens.reference_N is not None:
        towards_N = tokens.reference_N - current_N
        kl_N = towards_N.exp() - towards_N - 1
        loss, kl = loss + rule.beta * (tokens.weights_N * kl_N).sum(), kl_N.detach().sum()
    if tokens.entropy_N is not None:
        entropy = tokens.entropy_N.sum()
    if rule.entropy_bonus:
        loss = loss - rule.entropy_bonus * tokens.entropy_weight * entropy
    return PolicyLoss(loss, clipped_N.sum(), gap_N.abs().sum(), kl, corrected, entropy.detach())


def importance_weights(gap_N: Tensor, number_N: Tensor, correction: CorrectionSettings) -> tuple[Tensor, Tensor]:
    """c_t of each token, and which of them were truncated or masked; `gap_N` is log pi_old - log pi_s, no gradient."""
    level, _, action = correction.kind.partition("_")
    ratio_N = (_of_sequence(gap_N, number_N, mean=False) if level == "sequence" else gap_N).exp()
    low = -torch.inf if correction.low is None else correction.low
    high = torch.inf if correction.high is None else correction.high
    outside_N = (ratio_N < low) | (ratio_N > high)
    if action == "mask":
        return ratio_N.masked_fill(outside_N, 0.0), outside_N
    return ratio_N.clamp(low, high), outside_N


def _of_sequence(values_N: Tensor, number_N: Tensor, mean: bool) -> Tensor:
    """The sum or mean of each completion's values, at each of its tokens [N]."""
    sums_C = values_N.new_zeros(int(number_N.max()) + 1).index_add(0, number_N, values_N)
    if mean:
        sums_C = sums_C / number_N.bincount().clamp_min(1)
    return sums_C[number_N]
