"""Length shaping: of two correct answers, the shorter completion earns more."""

from collections.abc import Sequence

from finr1.core.types import Verdict
from finr1.parts.reward.base import RewardItem, verdict_by_rules


class Length:
    """For a correct answer 1 up to `target` characters, then linearly down to 0 at `limit`; 0 for a wrong one.

    Only correct answers are rewarded for being short, as in Kimi k1.5 (arXiv 2501.12599 §2.3.3), which compares lengths
    within the group; this reward depends on the completion alone. Undecided answers stay None.
    """

    def __init__(self, weight: float = 0.2, target: int = 600, limit: int = 3000) -> None:
        if not 0 <= target < limit:
            raise ValueError(f"target={target} is not within 0 and limit={limit}")
        self.weight, self.target, self.limit = weight, target, limit

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]:
        return [self._one(item) for item in items]

    def _one(self, item: RewardItem) -> Verdict:
        correct = verdict_by_rules(item)
        if not correct.value:
            return correct
        share = (self.limit - len(item.text)) / (self.limit - self.target)
        return Verdict(min(1.0, max(0.0, share)), correct.answer, f"correct, {len(item.text)} characters")
