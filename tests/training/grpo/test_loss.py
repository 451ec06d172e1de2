"""The policy loss by hand: every number below was worked on paper from the equations in `grpo/loss.py`."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from finr1.settings.grpo import CorrectionSettings, LossSettings
from finr1.training.grpo.loss import Count, PolicyLoss, Tokens, importance_weights, policy_loss, token_weights
from tests.helpers.runner import REPO

LOG = math.log
BOUNDS = {"clip_low": 0.2, "clip_high": 0.28}
UNCORRECTED, TRUNCATED = CorrectionSettings(), CorrectionSettings("token_truncate", high=3.0)


def tokens(current: list[float], sampler: list[float], advantages: list[float], **more: Any) -> Tokens:
    """Tokens of one completion, each of weight 1 unless told otherwise."""
    values = {"weights_N": torch.ones(len(current)), "number_N": torch.zeros(len(current), dtype=torch.long), **more}
    return Tokens(torch.tensor(current, requires_grad=True), torch.tensor(sampler), torch.tensor(advantages), **values)


def solve(
    batch: Tokens, correction: CorrectionSettings = UNCORRECTED, **rule: Any
) -> tuple[float, list[float], PolicyLoss]:
    """Loss and its gradient to each log-prob."""
    result = policy_loss(batch, LossSettings(**{**BOUNDS, **rule}), correction)
    result.loss.backward()
    assert batch.logprobs_N.grad is not None
    return float(result.loss.detach()), batch.logprobs_N.grad.tolist(), result


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
@pytest.mark.parametrize("loss_name", ["dapo", "grpo", "bnpo", "dr_grpo", "gspo"])  # a token is its own sequence
def test_loss_and_gradient_of_one_token_by_hand(
    loss_name: str, ratio: float, advantage: float, loss: float, gradient: float, clipped: int
) -> None:
    found, gradients, result = solve(tokens([LOG(ratio)], [0.0], [advantage]), kind=loss_name)
    assert (found, *gradients, float(result.clipped)) == pytest.approx((loss, gradient, clipped), abs=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped"),
    [
        (4.0, -1.0, 3.0, 0.0, 1),  # 4 would be the cost: bounded to d |A| = 3, no gradient
        (4.0, -2.0, 6.0, 0.0, 1),
        (2.0, -1.0, 2.0, 2.0, 0),  # below d: as without it
        (4.0, 1.0, -1.28, 0.0, 1),  # A > 0: the upper bound, as ever
        (0.5, -1.0, 0.8, 0.0, 1),  # the lower bound too
    ],
)
def test_dual_clip_by_hand(ratio: float, advantage: float, loss: float, gradient: float, clipped: int) -> None:
    found, gradients, result = solve(tokens([LOG(ratio)], [0.0], [advantage]), dual_clip=3.0)
    assert (found, *gradients, float(result.clipped)) == pytest.approx((loss, gradient, clipped), abs=1e-6)


def test_gspo_takes_the_ratio_of_the_sequence() -> None:
    # ratios 1.2 and 0.8: s = sqrt(0.96) = 0.9797959. A = 1: min(s, 0.99) = s, each token of weight 1/2 adds -s/2,
    # d loss / d log pi_t = -(1/2 + 1/2) s / 2 = -0.48990 for both
    half = {"weights_N": torch.full((2,), 0.5)}
    rule: dict[str, Any] = {"kind": "gspo", "clip_low": 0.01, "clip_high": 0.02}
    loss, gradient, _ = solve(tokens([LOG(1.2), LOG(0.8)], [0.0, 0.0], [1.0, 1.0], **half), **rule)
    assert loss == pytest.approx(-0.9797959, abs=1e-6) and gradient == pytest.approx([-0.4898979] * 2, abs=1e-6)
    # A = -1: s is below 0.99, so both tokens are clipped
    loss, gradient, result = solve(tokens([LOG(1.2), LOG(0.8)], [0.0, 0.0], [-1.0, -1.0], **half), **rule)
    assert (loss, *gradient, float(result.clipped)) == pytest.approx((0.99, 0, 0, 2), abs=1e-6)


def test_gspo_has_one_ratio_per_sequence() -> None:
    # two completions, mixed up in the row: s of the first is sqrt(1.2 * 0.8), of the second 1.1
    batch = tokens([LOG(1.2), LOG(1.1), LOG(0.8)], [0.0] * 3, [1.0] * 3, number_N=torch.tensor([7, 2, 7]))
    loss, _, _ = solve(batch, kind="gspo")
    assert loss == pytest.approx(-(2 * 0.9797959 + 1.1), abs=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "factor", "clipped"),
    [(1.5, 1.0, 1.28, 1), (1.5, -1.0, 1.28, 1), (0.1, -1.0, 0.1, 0), (1.2, 2.0, 1.2, 0)],
)
def test_cispo_cuts_the_factor_and_drops_no_token(ratio: float, advantage: float, factor: float, clipped: int) -> None:
    # log pi = log 0.3: loss -factor A log 0.3, gradient -factor A
    loss, gradient, result = solve(tokens([LOG(0.3)], [LOG(0.3 / ratio)], [advantage]), kind="cispo")
    assert loss == pytest.approx(-factor * advantage * LOG(0.3), abs=1e-6)
    assert (*gradient, float(result.clipped)) == pytest.approx((-factor * advantage, clipped), abs=1e-6)


def test_weights_by_hand() -> None:
    lengths = torch.tensor([2, 3, 5])
    whole = Count(tokens=10, completions=3, own_tokens=10)
    third = Count(tokens=12.5, completions=4, own_tokens=10)  # of a rollout with 37.5 tokens a third of 12 completions
    expected = {
        "dapo": ([1 / 10] * 3, [1 / 12.5] * 3),  # one count over the rollout
        "cispo": ([1 / 10] * 3, [1 / 12.5] * 3),
        "bnpo": ([1 / 10] * 3, [1 / 10] * 3),  # its own tokens
        "grpo": ([1 / 6, 1 / 9, 1 / 15], [1 / 8, 1 / 12, 1 / 20]),  # 1 / (completions * length)
        "gspo": ([1 / 6, 1 / 9, 1 / 15], [1 / 8, 1 / 12, 1 / 20]),
        "dr_grpo": ([1 / 24] * 3, [1 / 32] * 3),  # 1 / (completions * 8), whatever the length
    }
    for loss, of in expected.items():
        for count, weights in zip((whole, third), of, strict=True):
            found = token_weights(lengths, loss, count, limit=8)
            torch.testing.assert_close(found, torch.tensor(weights), atol=1e-7, rtol=0)
    with pytest.raises(ValueError, match="unknown loss"):
        token_weights(lengths, "ppo", whole, 8)


def test_two_completions_by_hand() -> None:
    # ratios 1; A = +1 for two tokens, -1 for three. dapo: -(2*1 - 3*1)/5 = 0.2; grpo: -(1/2*1 - 1/2*1) = 0;
    # dr_grpo with L = 4: -(2 - 3)/(2*4) = 0.125
    owner = torch.tensor([0, 0, 1, 1, 1])
    for loss, expected in (("dapo", 0.2), ("bnpo", 0.2), ("grpo", 0.0), ("gspo", 0.0), ("dr_grpo", 0.125)):
        weights = token_weights(torch.tensor([2, 3]), loss, Count(5, 2, 5), limit=4)[owner]
        batch = tokens([0.0] * 5, [0.0] * 5, [1.0, 1, -1, -1, -1], weights_N=weights, number_N=owner)
        assert solve(batch, kind=loss)[0] == pytest.approx(expected, abs=1e-7)


def test_k3_by_hand() -> None:
    # pi_ref / pi = 2: k = 2 - log 2 - 1 = 0.3068528; beta 0.1, weight 0.5: 0.01534264. Its gradient to log pi is
    # beta w (1 - 2) = -0.05: the loss falls as the policy comes nearer to the reference. A = 0: nothing else.
    weights = {"weights_N": torch.tensor([0.5])}
    batch = tokens([LOG(0.2)], [LOG(0.2)], [0.0], reference_N=torch.tensor([LOG(0.4)]), **weights)
    loss, gradient, result = solve(batch, beta=0.1)
    assert loss == pytest.approx(0.01534264, abs=1e-7) and gradient == pytest.approx([-0.05], abs=1e-7)
    assert float(result.kl) == pytest.approx(0.3068528, abs=1e-6)
    # the other way round: 0.5 + log 2 - 1 = 0.1931472, gradient beta w (1 - 0.5) = 0.025
    batch = tokens([LOG(0.4)], [LOG(0.4)], [0.0], reference_N=torch.tensor([LOG(0.2)]), **weights)
    loss, gradient, _ = solve(batch, beta=0.1)
    assert loss == pytest.approx(0.00965736, abs=1e-7) and gradient == pytest.approx([0.025], abs=1e-7)


def test_the_entropy_bonus_lowers_the_loss_by_the_mean_entropy() -> None:
    # 2 tokens of entropies 1.0 and 0.6, eta 0.25: 0.25 * 0.8 = 0.2, its gradient to each entropy -0.125
    entropy = torch.tensor([1.0, 0.6], requires_grad=True)
    batch = tokens([0.0, 0.0], [0.0, 0.0], [1.0, 1.0], entropy_N=entropy, entropy_weight=0.5)
    assert solve(batch, entropy_bonus=0.25)[0] == pytest.approx(-2.2, abs=1e-6)
    assert entropy.grad is not None and entropy.grad.tolist() == pytest.approx([-0.125] * 2, abs=1e-7)
    assert solve(batch._replace(logprobs_N=torch.zeros(2, requires_grad=True)))[0] == pytest.approx(-2, abs=1e-6)


@pytest.mark.parametrize(
    ("how", "low", "high", "expected", "cut"),
    [
        # ratios pi_old / pi_s of three tokens: 2, 0.5 of one completion, 4 of another; the products: 1 and 4
        ("token_truncate", None, 3.0, [2.0, 0.5, 3.0], [0, 0, 1]),
        ("token_truncate", 0.8, 1.5, [1.5, 0.8, 1.5], [1, 1, 1]),
        ("token_mask", None, 3.0, [2.0, 0.5, 0.0], [0, 0, 1]),
        ("token_mask", 0.8, None, [2.0, 0.0, 4.0], [0, 1, 0]),
        ("sequence_truncate", None, 3.0, [1.0, 1.0, 3.0], [0, 0, 1]),
        ("sequence_mask", 0.8, 3.0, [1.0, 1.0, 0.0], [0, 0, 1]),
        ("sequence_mask", 1.5, None, [0.0, 0.0, 4.0], [1, 1, 0]),
    ],
)
def test_corrections_by_hand(
    how: str, low: float | None, high: float | None, expected: list[float], cut: list[int]
) -> None:
    gap = torch.tensor([LOG(2), LOG(0.5), LOG(4)])
    found, outside = importance_weights(gap, torch.tensor([0, 0, 1]), CorrectionSettings(how, low, high))
    assert found.tolist() == pytest.approx(expected, abs=1e-6) and outside.int().tolist() == cut


def test_a_correction_scales_the_gradient_and_leaves_the_ratio_to_the_trainer() -> None:
    # the engine says 0.2, the trainer 0.5: c = 2.5. The ratio to the trainer itself is 1: loss -2.5, gradient -2.5,
    # nothing clipped. Without a correction the ratio to the engine is 2.5: clipped to 1.28.
    batch = tokens([LOG(0.5)], [LOG(0.2)], [1.0])
    loss, gradient, result = solve(batch, TRUNCATED)
    assert (loss, *gradient, float(result.clipped), float(result.corrected)) == pytest.approx((-2.5, -2.5, 0, 0))
    loss, gradient, result = solve(tokens([LOG(0.5)], [LOG(0.2)], [1.0]))
    assert (loss, *gradient, float(result.clipped)) == pytest.approx((-1.28, 0, 1), abs=1e-6)


def test_the_trainers_old_log_probs_take_the_place_of_the_engines() -> None:
    # pi 0.5, pi_old 0.4, pi_s 0.2: ratio 1.25 to the trainer's; with a correction times c = 0.4 / 0.2 = 2, not 2.5
    old = {"old_N": torch.tensor([LOG(0.4)])}
    loss, _, result = solve(tokens([LOG(0.5)], [LOG(0.2)], [1.0], **old))
    assert loss == pytest.approx(-1.25, abs=1e-6) and float(result.mismatch) == pytest.approx(LOG(2), abs=1e-6)
    loss, gradient, _ = solve(tokens([LOG(0.5)], [LOG(0.2)], [1.0], **old), TRUNCATED)
    assert (loss, *gradient) == pytest.approx((-2.5, -2.5), abs=1e-6)


def test_a_correction_does_not_touch_the_divergence() -> None:
    # A = 0, c = 2: only beta k remains, 0.3068528 (as above, pi_ref / pi = 2)
    batch = tokens([LOG(0.2)], [LOG(0.1)], [0.0], reference_N=torch.tensor([LOG(0.4)]))
    assert solve(batch, TRUNCATED, beta=1.0)[0] == pytest.approx(0.3068528, abs=1e-6)


def test_mismatch_is_the_sum_of_absolute_differences() -> None:
    batch = tokens([-1.0, -2.0, -3.0], [-1.1, -1.8, -3.0], [1.0] * 3)
    assert float(solve(batch)[2].mismatch) == pytest.approx(0.3, abs=1e-6)


GOLDEN: dict[str, Any] = json.loads((REPO / "tests" / "golden" / "trl_losses.json").read_text("utf-8"))
OURS = {"epsilon_low": "clip_low", "epsilon_high": "clip_high", "delta": "dual_clip", "beta": "beta"}
OURS |= {"entropy_coef": "entropy_bonus"}
CORRECTION = {"correction": "kind", "clip_min": "low", "clip_max": "high"}


@pytest.mark.parametrize("golden", GOLDEN["cases"], ids=lambda golden: str(golden["case"]))
def test_loss_and_gradient_are_those_of_trl(golden: dict[str, Any]) -> None:
    """Against TRL's own code on the same tensors: `source` in the file says which."""
    case = dict(golden["case"])
    loss = "gspo" if case.pop("level", "token") == "sequence" else case["loss_type"]
    rule = {"kind": loss, **{OURS[key]: value for key, value in case.items() if key in OURS}}
    correction = CorrectionSettings(**{CORRECTION[key]: value for key, value in case.items() if key in CORRECTION})
    if loss == "cispo":
        rule["clip_high"] -= 1  # TRL's epsilon_high is the bound itself
    double = {
        k: torch.tensor(GOLDEN[k], dtype=torch.float64) for k in ("current", "old", "sampler", "reference", "entropy")
    }
    lengths = torch.tensor(GOLDEN["lengths"])
    owner = torch.arange(len(lengths)).repeat_interleave(lengths)
    count = Count(int(lengths.sum()), len(lengths), int(lengths.sum()))
    entropy = double["entropy"].requires_grad_()
    batch = Tokens(
        double["current"].requires_grad_(),
        double["sampler"],
        torch.tensor(GOLDEN["advantages"], dtype=torch.float64)[owner],
        token_weights(lengths, loss, count, GOLDEN["limit"])[owner],
        owner,
        old_N=double["old"],
        reference_N=double["reference"] if rule.get("beta") else None,
        entropy_N=entropy,
        entropy_weight=1 / int(lengths.sum()),
    )
    found, gradient, _ = solve(batch, correction, **rule)
    assert found == pytest.approx(golden["loss"], abs=2e-7)
    assert gradient == pytest.approx(golden["gradient"], abs=1e-7)
    assert ([] if entropy.grad is None else entropy.grad.tolist()) == pytest.approx(golden["entropy_gradient"])
