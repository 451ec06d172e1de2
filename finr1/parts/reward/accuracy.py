"""The accuracy reward by rule: compares the text of the only answer block with the gold answer."""

from collections.abc import Sequence

from finr1.answer.grade import grade
from finr1.answer.grade_number import TOO_MANY
from finr1.answer.tags import parse
from finr1.core.types import Verdict
from finr1.parts.reward.base import RewardItem


class Accuracy:
    """1 or 0 by `finr1.answer.grade.grade`; 0 without exactly one answer block after the thinking; None if undecided.

    An answer with too many numbers to compare is 0, not undecided: a policy could otherwise avoid a 0 by listing
    numbers.

    Fin-R1 asks Qwen2.5-Max for this verdict (v5, §4.2); here a rule decides. By default `scale_tolerant` is off:
    the policy learns to write the unit; evaluation reports both.
    """

    def __init__(self, weight: float = 1.0, scale_tolerant: bool = False) -> None:
        self.weight, self.scale_tolerant = weight, scale_tolerant

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]:
        graded = [grade(parse(item.text).answer, item.question) for item in items]
        verdicts = [both.scaled if self.scale_tolerant else both.strict for both in graded]
        return [v._replace(value=0.0) if v.value is None and v.why == TOO_MANY else v for v in verdicts]
