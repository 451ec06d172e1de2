"""The accuracy reward by rule: compares the text of the only answer block with the gold answer."""

from collections.abc import Sequence

from finr1.core.types import Verdict
from finr1.parts.reward.base import RewardItem, verdict_by_rules


class Accuracy:
    """1 or 0 by `finr1.answer.grade`; 0 without an answer and for one that commits to nothing; None if undecided.

    What counts as the answer is `grpo.reading`: by default the only answer block after the thinking.

    Fin-R1 asks Qwen2.5-Max for this verdict (v5, §4.2); here a rule decides. By default `scale_tolerant` is off:
    the policy learns to write the unit; evaluation reports both.
    """

    def __init__(self, weight: float = 1.0, scale_tolerant: bool = False) -> None:
        self.weight, self.scale_tolerant = weight, scale_tolerant

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]:
        return [verdict_by_rules(item, self.scale_tolerant) for item in items]
