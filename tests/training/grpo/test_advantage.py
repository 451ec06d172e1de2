"""Advantages by hand."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from finr1.training.grpo.advantage import centre, combine, down_sample, first_groups, overlong_penalty

NAN = float("nan")


def test_three_rewards_by_hand() -> None:
    # rewards 1, 0, 1: mean 2/3, population std sqrt(2/9) = 0.47140
    result = centre(torch.tensor([[1.0, 0.0, 1.0]]))
    expected = torch.tensor([[(1 / 3) / math.sqrt(2 / 9), (-2 / 3) / math.sqrt(2 / 9), (1 / 3) / math.sqrt(2 / 9)]])
    torch.testing.assert_close(result.advantages_PG, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(expected, torch.tensor([[0.70711, -1.41421, 0.70711]]), atol=1e-5, rtol=0)


def test_without_scaling_by_hand() -> None:
    result = centre(torch.tensor([[2.0, 1.0, 0.0, 1.0]]), scale="none")
    torch.testing.assert_close(result.advantages_PG, torch.tensor([[1.0, 0.0, -1.0, 0.0]]), atol=1e-7, rtol=0)


def test_leave_one_out_by_hand() -> None:
    # 2, 1, 0, 1: the others' means are 2/3, 1, 4/3, 1
    rewards = torch.tensor([[2.0, 1.0, 0.0, 1.0]])
    result = centre(rewards, scale="none", baseline="leave_one_out")
    torch.testing.assert_close(result.advantages_PG, torch.tensor([[4 / 3, 0.0, -4 / 3, 0.0]]), atol=1e-6, rtol=0)
    # an undecided one is no other: 2, 1, 0 leave 0.5, 1, 1.5
    result = centre(torch.tensor([[2.0, 1.0, 0.0, NAN]]), scale="none", baseline="leave_one_out")
    torch.testing.assert_close(result.advantages_PG, torch.tensor([[1.5, 0.0, -1.5, 0.0]]), atol=1e-6, rtol=0)
    # with the group's deviation sqrt(1/2): 4/3 * sqrt(2)
    result = centre(rewards, baseline="leave_one_out")
    torch.testing.assert_close(result.advantages_PG[0, 0], torch.tensor(4 / 3 * math.sqrt(2)), atol=1e-6, rtol=0)


def test_scaling_by_the_batch_by_hand() -> None:
    # decided rewards 1, 0 | 1, 1 | 3: mean 6/5, squares 12/5, variance 2.4 - 1.44 = 0.96
    result = centre(torch.tensor([[1.0, 0.0], [1.0, 1.0], [3.0, NAN]]), scale="batch")
    std = math.sqrt(0.96)
    expected = torch.tensor([[0.5 / std, -0.5 / std], [0, 0], [0, 0]])
    torch.testing.assert_close(result.advantages_PG, expected, atol=1e-6, rtol=0)
    assert result.spread_P.tolist() == [True, False, False]
    assert not centre(torch.full((2, 2), NAN), scale="batch").enters_PG.any()


def test_rewards_combine_by_hand() -> None:
    values = torch.tensor([[1.0, 1.0, 0.0, 0.5, NAN], [1.0, 0.0, 0.0, 1.0, 0.0]])
    weights = torch.tensor([2.0, 0.5])
    summed, product = combine(values, weights), combine(values, weights, "product")
    assert summed[:4].tolist() == [2.5, 2.0, 0.0, 1.5] and product[:4].tolist() == [1.0, 0.0, 0.0, 0.5]
    assert summed[4].isnan() and product[4].isnan()  # undecided, though the other reward gives 0


def test_overlong_penalty_by_hand() -> None:
    # limit 100, buffer 20: nothing up to 80, a twentieth a token from there, -1 at the limit (and beyond it)
    found = overlong_penalty(torch.tensor([10, 80, 81, 90, 100, 120]), limit=100, buffer=20)
    assert found.tolist() == pytest.approx([0, 0, -0.05, -0.5, -1, -1], abs=1e-7)


def test_undecided_completions_change_nothing() -> None:
    without = centre(torch.tensor([[1.0, 0.0, 1.0]]))
    with_one = centre(torch.tensor([[1.0, NAN, 0.0, 1.0]]))
    assert with_one.advantages_PG[0, 1] == 0
    assert with_one.enters_PG.tolist() == [[True, False, True, True]]
    torch.testing.assert_close(with_one.advantages_PG[:, [0, 2, 3]], without.advantages_PG, atol=0, rtol=0)


@pytest.mark.parametrize("rewards", [[0.7, 0.7, 0.7], [0.1, 0.1 + 1e-8, 0.1], [1.0, NAN, NAN], [NAN, NAN, NAN]])
def test_groups_without_spread_do_not_enter(rewards: list[float]) -> None:
    result = centre(torch.tensor([rewards, [1.0, 0.0, 0.0]]))
    assert result.spread_P.tolist() == [False, True]
    assert not result.enters_PG[0].any()
    assert torch.equal(result.advantages_PG[0], torch.zeros(3))


def test_advantages_have_mean_0_and_deviation_1_and_ignore_affine_changes() -> None:
    torch.manual_seed(0)
    rewards = torch.rand(6, 8)
    advantages = centre(rewards).advantages_PG
    torch.testing.assert_close(advantages.mean(-1), torch.zeros(6), atol=1e-6, rtol=0)
    torch.testing.assert_close(advantages.std(-1, unbiased=False), torch.ones(6), atol=1e-5, rtol=0)
    # an affine change of the rewards changes nothing; the order within a group only reorders
    torch.testing.assert_close(centre(3 * rewards - 5).advantages_PG, advantages, atol=1e-4, rtol=0)
    order = torch.randperm(8)
    torch.testing.assert_close(centre(rewards[:, order]).advantages_PG, advantages[:, order], atol=1e-6, rtol=0)


def kept(rewards: list[float], m: int) -> list[int]:
    found = down_sample(torch.tensor([rewards], dtype=torch.float32), m)[0]
    return [g for g in range(len(rewards)) if not found[g].isnan()]


def test_down_sampling_keeps_the_largest_variance() -> None:
    # of 1 right in 8, four of largest variance hold it; of 5 right in 8, two of each
    assert 2 in kept([0, 0, 1, 0, 0, 0, 0, 0], 4)
    values = [1.0, 1, 0, 1, 0, 1, 0, 1]
    assert sorted(values[g] for g in kept(values, 4)) == [0, 0, 1, 1]
    # against all subsets
    torch.manual_seed(0)
    for _ in range(20):
        rewards = torch.rand(7)
        best = max(itertools.combinations(range(7), 3), key=lambda c: float(rewards[list(c)].var(unbiased=False)))
        assert kept(rewards.tolist(), 3) == list(best)


def test_down_sampling_leaves_small_groups_and_undecided_alone() -> None:
    assert kept([1.0, NAN, 0.0, NAN], 2) == [0, 2]
    assert kept([1.0, NAN, 0.0, 0.5], 3) == [0, 2, 3]


def test_only_the_first_groups_with_spread_enter() -> None:
    rewards = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    whole, two = centre(rewards), first_groups(centre(rewards), 2)
    assert two.enters_PG.any(-1).tolist() == [True, False, True, False]
    assert two.spread_P.tolist() == [True, False, True, True]
    assert torch.equal(two.advantages_PG[:3], whole.advantages_PG[:3]) and not two.advantages_PG[3].any()
    for one, other in zip(first_groups(whole, 3), whole, strict=True):
        assert torch.equal(one, other)
