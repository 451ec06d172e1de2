"""The rollout of a GRPO step: graded groups with their rewards, and which questions a refill samples next."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from finr1.answer.tags import parse
from finr1.core.types import Group, Question, Verdict
from finr1.parts.reward.base import Reward, RewardItem, verdict_by_rules
from finr1.settings.grpo import GrpoSettings
from finr1.training.grpo.advantage import Advantages, combine, overlong_penalty


class Graded(NamedTuple):
    """P groups of G completions with their scores; NaN where undecided."""

    groups: Sequence[Group]
    rewards_PG: Tensor  # all rewards combined
    format_PG: Tensor  # 1 for a well-formed completion that is not truncated, whatever the rewards are
    accuracy_PG: Tensor  # strict verdict of the rules, whatever the rewards are


class Rollout(NamedTuple):
    """Everything sampled in one step."""

    graded: Graded
    advantages: Advantages
    failures: int  # verdicts lost because a reward hung, raised, or crashed
    weights_version: str  # of the policy that sampled


def items_of(groups: Sequence[Group], reading: str) -> list[RewardItem]:
    """The completions of all groups, as rewards see them."""
    return [RewardItem(g.question, c.text, c.finish_reason == "length", reading) for g in groups for c in g.completions]


def grade_groups(groups: Sequence[Group], rewards: Mapping[str, Reward], reading: str = "strict") -> list[Group]:
    """Add every reward's verdict on every completion to the groups."""
    if not groups:
        return []
    items = items_of(groups, reading)
    verdicts_of = {name: reward.grade(items) for name, reward in rewards.items()}
    size = len(groups[0].completions)
    return [
        replace(group, verdicts={name: verdicts[i * size : (i + 1) * size] for name, verdicts in verdicts_of.items()})
        for i, group in enumerate(groups)
    ]


def combine_rewards(groups: Sequence[Group], rewards: Mapping[str, Reward], settings: GrpoSettings) -> Graded:
    """Combine the verdicts into one reward per completion; compute format and accuracy from the text."""
    s = settings.advantage
    completions = [c for g in groups for c in g.completions]
    values_RC = torch.tensor([[_value(v) for g in groups for v in g.verdicts[r]] for r in rewards], dtype=torch.float64)
    weights_R = torch.tensor([reward.weight for reward in rewards.values()], dtype=torch.float64)
    rewards_C = combine(values_RC, weights_R, s.combine)
    if s.overlong_buffer_tokens:
        lengths_C = torch.tensor([len(c.token_ids) for c in completions])
        limit = settings.sampling.max_new_tokens
        rewards_C += s.overlong_weight * overlong_penalty(lengths_C, limit, s.overlong_buffer_tokens)
    items = items_of(groups, settings.reading)
    format_C = torch.tensor([float(parse(item.text).well_formed and not item.truncated) for item in items])
    accuracy_C = torch.tensor([_value(verdict_by_rules(item)) for item in items])
    shape = (len(groups), len(groups[0].completions))
    return Graded(groups, rewards_C.float().view(shape), format_C.view(shape), accuracy_C.view(shape))


def _value(verdict: Verdict) -> float:
    return float("nan") if verdict.value is None else verdict.value


def concatenate(rounds: Sequence[Graded]) -> Graded:
    """The groups of all rounds of a step, in order."""
    return Graded(
        [group for graded in rounds for group in graded.groups],
        torch.cat([graded.rewards_PG for graded in rounds]),
        torch.cat([graded.format_PG for graded in rounds]),
        torch.cat([graded.accuracy_PG for graded in rounds]),
    )


def refill_questions(spread_P: Tensor, wanted: int, spare: Sequence[Question]) -> Sequence[Question]:
    """Choose the questions of the next round of dynamic sampling (DAPO, arXiv 2503.14476 §3.2).

    Enough questions, at the share of groups with spread so far, to reach `wanted` such groups; at most `wanted`, and
    none once they are reached. Deterministic: the same step always samples the same questions.

    Args:
        spread_P: which of the groups sampled so far have spread.
        wanted: groups with spread that the step needs.
        spare: the step's further questions in order; the first len(spread_P) - wanted of them were sampled before.
    """
    n_spread, n_sampled = int(spread_P.sum()), len(spread_P)
    if n_spread >= wanted:
        return []
    n = min(wanted, -(-(wanted - n_spread) * n_sampled // n_spread)) if n_spread else wanted
    n_used = n_sampled - wanted
    return spare[n_used : n_used + n]
