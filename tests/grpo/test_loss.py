"""The policy loss by hand: every number below was worked on paper from the equation in `finr1/grpo/loss.py`."""

from __future__ import annotations

import math

import pytest
import torch

from finr1.grpo.loss import policy_loss, token_weights


def loss_of(ratio: float, advantage: float) -> tuple[float, float, float]:
    """Loss, gradient of the loss to the log-prob, and clipped count of one token of weight 1."""
    logprob = torch.tensor([math.log(ratio)], requires_grad=True)
    one = torch.ones(1)
    result = policy_loss(logprob, torch.zeros(1), torch.tensor([advantage]), one, clip_low=0.2, clip_high=0.28)
    result.loss.backward()
    assert logprob.grad is not None
    return float(result.loss.detach()), float(logprob.grad), float(result.clipped)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped"),
    [
        (1.0, 2.0, -2.0, -2.0, 0),  # on policy: gradient is -A
        (1.0, -2.0, 2.0, 2.0, 0),
        (1.2, 1.0, -1.2, -1.2, 0),  # inside the bounds: -rho A
        (1.5, 1.0, -1.28, 0.0, 1),  # above the upper bound, A > 0: clipped, no gradient
        (1.5, -1.0, 1.5, 1.5, 0),  # above it, A < 0: the min keeps the worse, unclipped value
        (0.5, 1.0, -0.5, -0.5, 0),  # below the lower bound, A > 0: unclipped
        (0.5, -1.0, 0.8, 0.0, 1),  # below it, A < 0: clipped
        (1.25, 1.0, -1.25, -1.25, 0),  # 1.25 < 1.28: the upper bound is the higher one
        (0.85, -1.0, 0.85, 0.85, 0),
    ],
)
def test_one_token(ratio: float, advantage: float, loss: float, gradient: float, clipped: int) -> None:
    assert loss_of(ratio, advantage) == pytest.approx((loss, gradient, clipped), abs=1e-6)


def test_weights_by_hand() -> None:
    lengths = torch.tensor([2, 3, 5])
    # dapo: one count, 10 tokens; grpo: 1 / (3 completions * length)
    torch.testing.assert_close(token_weights(lengths, "dapo"), torch.full((3,), 0.1), atol=1e-7, rtol=0)
    torch.testing.assert_close(token_weights(lengths, "grpo"), torch.tensor([1 / 6, 1 / 9, 1 / 15]), atol=1e-7, rtol=0)
    for loss in ("dapo", "grpo"):  # the weights of all tokens sum to one
        assert float((token_weights(lengths, loss) * lengths).sum()) == pytest.approx(1, abs=1e-6)


def test_two_completions_by_hand() -> None:
    # ratios 1; A = +1 for two tokens, -1 for three. dapo: -(2*1 - 3*1)/5 = 0.2; grpo: -(1/2*1 - 1/2*1) = 0
    advantages = torch.tensor([1.0, 1, -1, -1, -1])
    zeros = torch.zeros(5)
    owner = torch.tensor([0, 0, 1, 1, 1])
    lengths = torch.tensor([2, 3])
    for loss, expected in (("dapo", 0.2), ("grpo", 0.0)):
        weights = token_weights(lengths, loss)[owner]
        result = policy_loss(zeros, zeros, advantages, weights, 0.2, 0.28)
        assert float(result.loss) == pytest.approx(expected, abs=1e-7)


def test_mismatch_is_the_sum_of_absolute_differences() -> None:
    new, old = torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([-1.1, -1.8, -3.0])
    result = policy_loss(new, old, torch.ones(3), torch.ones(3), 0.2, 0.28)
    assert float(result.mismatch) == pytest.approx(0.3, abs=1e-6)
