"""Counts of an export, for its card and manifest."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from finr1.core.types import Question


class Cell(NamedTuple):
    """One row of the distribution table."""

    source: str
    module: str
    language: str

    @classmethod
    def of(cls, question: Question) -> Cell:
        return cls(question.source, question.module, question.language)


@dataclass
class ExportCounts:
    """Traces by cell and outcome (`traces`: all of them; `rows`: those exported), by teacher, judge and reason.

    `wordings` counts questions by prompt text, `rows` the exported rows by split.
    """

    cells: dict[Cell, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    teachers: Counter[str] = field(default_factory=Counter)
    answer_judges: Counter[str] = field(default_factory=Counter)
    reasoning_judges: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    wordings: Counter[str] = field(default_factory=Counter)
    rows: dict[str, int] = field(default_factory=dict)
    files: int = 0
