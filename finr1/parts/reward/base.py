"""Rewards: what a completion earns in GRPO."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from finr1.answer.reply import grade_reply, read_answer
from finr1.core.types import Question, Verdict


class RewardItem(NamedTuple):
    """A sampled completion: its text, decoded without special tokens, and whether it was truncated.

    `reading`: what counts as its answer (`grpo.reading`, see `finr1.answer.reply`).
    """

    question: Question
    text: str
    truncated: bool
    reading: str = "strict"

    @property
    def answer(self) -> str:
        """The text that is its answer; empty without one."""
        return read_answer(self.text, self.question, self.reading, self.truncated) or ""


def verdict_by_rules(item: RewardItem, scale_tolerant: bool = False) -> Verdict:
    """The rules' verdict on a completion's answer; 0 without one.

    An answer that could not be right whatever the gold is 0, not undecided: abstentions, `1 + 1`, all options at once,
    hedges between boxes. A policy could otherwise avoid a 0 by giving such answers.
    """
    graded = grade_reply(item.text, item.question, item.reading, truncated=item.truncated)
    verdict = graded.scaled if scale_tolerant else graded.strict
    return verdict._replace(value=0.0) if verdict.value is None and graded.evades else verdict


class Reward(Protocol):
    """Scores completions; an undecided verdict (None) excludes the completion from its group.

    The reward of a completion is the sum over rewards of `weight * value` (`grpo.advantage.combine`).

    A class may set `full`, the value of a perfect completion (default 1; None: it depends): before the first step gold
    completions must earn it.
    """

    weight: float

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]: ...
