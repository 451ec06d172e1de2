"""A reward for tests: 1 for a text of an odd number of characters, 0 for an even one."""

from __future__ import annotations

from collections.abc import Sequence

from finr1.reward.base import RewardItem
from finr1.types import Verdict


class Spread:
    """See above."""

    full = None  # a right answer earns what its length gives

    def __init__(self, weight: float = 1.0) -> None:
        self.name, self.weight = "spread", weight

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]:
        """One verdict a completion."""
        return [Verdict(float(len(item.text) % 2)) for item in items]
