"""Rewards: what a completion earns in GRPO."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from finr1.core.types import Question, Verdict


class RewardItem(NamedTuple):
    """A sampled completion: its text, decoded without special tokens, and whether it was truncated."""

    question: Question
    text: str
    truncated: bool


class Reward(Protocol):
    """Scores completions; an undecided verdict (None) excludes the completion from its group.

    The reward of a completion is the sum over rewards of `weight * value` (`grpo.advantage.combine`).

    A class may set `full`, the value of a perfect completion (default 1; None: it depends): before the first step gold
    completions must earn it.
    """

    weight: float

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]: ...
