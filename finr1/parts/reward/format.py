"""The format reward of Fin-R1 (arXiv 2503.16252 v5, §4.2)."""

from collections.abc import Sequence

from finr1.answer.tags import parse
from finr1.core.types import Verdict
from finr1.parts.reward.base import RewardItem


class Format:
    """1 for exactly one non-empty think block, then exactly one non-empty answer block, and nothing else; otherwise 0.

    `think_prefilled`: the chat template itself ends in `<think>`, so completions begin inside the block.
    """

    def __init__(self, weight: float = 1.0, think_prefilled: bool = False) -> None:
        self.weight, self.think_prefilled = weight, think_prefilled

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]:
        return [self._one(item) for item in items]

    def _one(self, item: RewardItem) -> Verdict:
        if item.truncated:
            return Verdict(0.0, why="truncated")
        parsed = parse("<think>\n" + item.text if self.think_prefilled else item.text)
        return Verdict(float(parsed.well_formed), parsed.answer, parsed.why or "well-formed")
