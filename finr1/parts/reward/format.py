"""The format reward of Fin-R1 (arXiv 2503.16252 v5, §4.2)."""

from collections.abc import Sequence

from finr1.answer.tags import parse
from finr1.core.types import Verdict
from finr1.parts.reward.base import RewardItem


class Format:
    """1 for exactly one non-empty think block, then exactly one non-empty answer block, and nothing else; else 0."""

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]:
        return [self._one(item) for item in items]

    def _one(self, item: RewardItem) -> Verdict:
        if item.truncated:
            return Verdict(0.0, why="truncated")
        parsed = parse(item.text)
        return Verdict(float(parsed.well_formed), parsed.answer, parsed.why or "well-formed")
