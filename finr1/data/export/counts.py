"""What an export counts for its card and manifest."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple


class Cell(NamedTuple):
    """What a row of the distribution table is about."""

    source: str
    module: str
    language: str


@dataclass
class Exported:
    """What was found on the way: what the card is written from."""

    cells: dict[Cell, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # outcomes, `out`, `traces`
    teachers: Counter[str] = field(default_factory=Counter)
    answer_judges: Counter[str] = field(default_factory=Counter)
    reasoning_judges: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    wordings: Counter[str] = field(default_factory=Counter)
    rows: dict[str, int] = field(default_factory=dict)  # by split
    files: int = 0
