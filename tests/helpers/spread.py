"""A reward for tests: a number from 0 to 1 that differs for nearly all texts, so that every group has spread."""

from __future__ import annotations

from collections.abc import Sequence

from finr1.core.files import digest
from finr1.core.types import Verdict
from finr1.parts.reward.base import RewardItem


class Spread:
    """Rewards a completion by the hash of its text."""

    full = None  # a correct answer has no fixed reward

    def __init__(self, weight: float = 1.0) -> None:
        self.name, self.weight = "spread", weight

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]:
        """Return one verdict per completion."""
        return [Verdict(int(digest(item.text), 16) % 1000 / 999) for item in items]
