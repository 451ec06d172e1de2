"""The policy loss. Pure functions: tensors in, a named tuple out.

    rho_t = exp(log pi(y_t) - log pi_old(y_t))
    L = - sum_t w_t min(rho_t A, clip(rho_t, 1 - clip_low, 1 + clip_high) A)

PPO, arXiv 1707.06347 Eq. 7; two clip bounds: DAPO, arXiv 2503.14476 Eq. 8. The weights w_t make the variants:

- `dapo`: 1 / (tokens of all completions in the loss), one count over all micro-batches (DAPO Eq. 8; the default);
- `grpo`: 1 / (completions in the loss * tokens of this one), each completion's mean (DeepSeekMath Eq. 3; Fin-R1).

Departures from the papers: pi_old is the engine that sampled, not a recomputation by the trainer, so the ratio also
corrects the small difference between the two; there is no reference model and no KL term (as Fin-R1's README says; its
paper v5, Eq. 4.5, has one); groups without spread are left out of the count.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class PolicyLoss(NamedTuple):
    """The loss of a micro-batch and what is shown of it."""

    loss: Tensor  # scalar, to be summed over micro-batches
    clipped: Tensor  # tokens whose ratio was clipped in the direction that matters
    mismatch: Tensor  # sum over tokens of |log pi - log pi_old|


def token_weights(lengths_C: Tensor, loss: str) -> Tensor:
    """w of the tokens of each completion in the loss [C]; `lengths_C` spans the whole step."""
    if loss == "dapo":
        return torch.full_like(lengths_C, 1.0, dtype=torch.float32) / lengths_C.sum().clamp_min(1)
    if loss == "grpo":
        return 1.0 / (lengths_C.clamp_min(1) * max(1, len(lengths_C)))
    raise ValueError(f"unknown loss {loss}")


def policy_loss(
    logprobs_N: Tensor,
    old_logprobs_N: Tensor,
    advantages_N: Tensor,
    weights_N: Tensor,
    clip_low: float,
    clip_high: float,
) -> PolicyLoss:
    """The clipped surrogate over the N completion tokens of a micro-batch."""
    difference_N = logprobs_N - old_logprobs_N
    ratio_N = difference_N.exp()
    clipped_N = ratio_N.clamp(1 - clip_low, 1 + clip_high)
    surrogate_N = torch.minimum(ratio_N * advantages_N, clipped_N * advantages_N)
    with torch.no_grad():
        cut_N = ((ratio_N > 1 + clip_high) & (advantages_N > 0)) | ((ratio_N < 1 - clip_low) & (advantages_N < 0))
    return PolicyLoss(-(weights_N * surrogate_N).sum(), cut_N.sum(), difference_N.detach().abs().sum())
