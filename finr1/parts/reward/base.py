"""Rewards: what a completion earns in GRPO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from finr1.core.types import Question, Verdict


class RewardItem(NamedTuple):
    """One sampled completion: its text as decoded without special tokens, and whether the length limit cut it."""

    question: Question
    text: str
    truncated: bool


class Reward(Protocol):
    """Scores completions; a verdict of None takes the completion out of its group.

    A class may say by `full` what a perfect completion earns (1 where it does not say; None: that depends): before the
    first step a gold completion of every kind must earn it.

    The run's reward is the sum over rewards of `weight * value` (`grpo.advantage.combine`).
    """

    name: str
    weight: float

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]: ...
