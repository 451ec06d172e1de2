"""The rule-based answer judge: grades against the gold; answers that the rules cannot read stay undecided."""

from __future__ import annotations

from collections.abc import Sequence

from finr1.core.types import Verdict
from finr1.parts.judge.base import JudgeItem


class Exact:
    """`finr1.answer.grade.grade` as an answer judge.

    `scale_tolerant` accepts 11.8 for 11.8% and 1.2 for 1.2亿, as Fin-R1's own judge prompt does ("0.2 and 20% are
    equivalent"; README at 0a1c357); false takes the strict verdict.
    """

    name = "exact"

    def __init__(self, scale_tolerant: bool = True) -> None:
        self.scale_tolerant = scale_tolerant

    def judge(self, items: Sequence[JudgeItem]) -> list[Verdict]:
        return [item.grades.scaled if self.scale_tolerant else item.grades.strict for item in items]
