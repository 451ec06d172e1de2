"""The format reward of Fin-R1 (arXiv 2503.16252 v5, §4.2)."""

from __future__ import annotations

from collections.abc import Sequence

from finr1.answer.tags import parse
from finr1.core.types import Verdict
from finr1.parts.reward.base import RewardItem


class Format:
    """1 for exactly one filled think block, then exactly one filled answer block, and nothing outside; else 0.

    Set `think_prefilled` where the chat template itself ends in `<think>`: the completion then starts inside the block,
    and without this option the reward would be 0 for ever.
    """

    name = "format"

    def __init__(self, weight: float = 1.0, think_prefilled: bool = False) -> None:
        self.weight, self.think_prefilled = weight, think_prefilled

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]:
        return [self._one(item) for item in items]

    def _one(self, item: RewardItem) -> Verdict:
        if item.truncated:
            return Verdict(0.0, why="cut at the length limit")
        parsed = parse("<think>\n" + item.text if self.think_prefilled else item.text)
        return Verdict(float(parsed.well_formed), parsed.answer, parsed.why or "well formed")
