"""`filter_summary.json`: outcomes per source, language and kind; verdicts per judge; detection of planted faults."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from finr1.core.types import CRITERIA, Question, Trace
from finr1.data.filter.verdicts import Outcome

ANSWER_COLUMNS = ("answer", "answer_strict", "answer_scaled")  # the answer verdicts of a verdict row

FAULTS_NOTE = (
    "The teacher engine planted these faults at a set rate, all of kinds that the filter was written to catch: the "
    "figures measure how well it catches them, not how well it would catch a language model's own mistakes."
)


class FilterSummary:
    """Counts that are updated trace by trace."""

    def __init__(self) -> None:
        self.by: dict[str, dict[str, Counter[str]]] = {
            name: defaultdict(Counter) for name in ("source", "language", "kind")
        }
        self.reasons: Counter[str] = Counter()
        self.decided_by: Counter[str] = Counter()
        self.answers: dict[str, Counter[str]] = {column: Counter() for column in ANSWER_COLUMNS}
        self.criteria: dict[str, Counter[str]] = {name: Counter() for name in CRITERIA}
        self.planted: Counter[tuple[str | None, Outcome]] = Counter()  # (fault or None, outcome)

    def add(self, question: Question, trace: Trace, row: Mapping[str, Any]) -> None:
        """Count one trace with its row of `verdicts.jsonl`."""
        outcome: Outcome = row["outcome"]
        for name, table in self.by.items():
            table[getattr(question, name)][outcome] += 1
        if row["why"]:
            self.reasons[row["why"]] += 1
        if row["answer"]["judge"]:
            self.decided_by[row["answer"]["judge"]] += 1
        for column, counts in self.answers.items():
            counts[_label(row[column]["value"], "right", "wrong")] += 1
        for name, verdict in row["criteria"].items():
            self.criteria[name][_label(verdict["value"], "held", "failed")] += 1
        if "fault" in trace.meta and trace.finish_reason == "stop":
            self.planted[trace.meta["fault"], outcome] += 1

    def to_json(self) -> dict[str, Any]:
        """The content of `filter_summary.json`."""
        summary: dict[str, Any] = {f"by_{name}": table for name, table in self.by.items()}
        summary |= {"reasons": self.reasons, "answers": self.answers, "criteria": self.criteria}
        summary["decided_by"] = self.decided_by
        return {**summary, "faults": confusion(self.planted.elements())} if self.planted else summary


def confusion(planted: Iterable[tuple[str | None, Outcome]]) -> dict[str, Any]:
    """The filter as a detector of planted faults, from (fault or None, outcome) pairs; a bad outcome is a detection.

    Precision: share of the decided traces called bad that have a fault. Recall: share of the decided traces with a
    fault that are called bad. Undecided traces are counted separately; a ratio with denominator zero is None.
    """
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for fault, outcome in planted:
        cell = {"bad": "caught", "good": "missed", "undecided": "undecided"}[outcome]
        table[fault or ""].update(["planted", cell])
    clean = table.pop("", Counter())
    caught, missed = (sum(row[key] for row in table.values()) for key in ("caught", "missed"))
    cells = ("planted", "caught", "missed", "undecided")
    return {
        "by_fault": {fault: {cell: table[fault][cell] for cell in cells} for fault in sorted(table)},
        "clean": {
            "traces": clean["planted"],
            "kept": clean["missed"],
            "called_bad": clean["caught"],
            "undecided": clean["undecided"],
        },
        "precision": caught / (caught + clean["caught"]) if caught + clean["caught"] else None,
        "recall": caught / (caught + missed) if caught + missed else None,
        "note": FAULTS_NOTE,
    }


def _label(value: float | None, one: str, zero: str) -> str:
    return "undecided" if value is None else one if value == 1 else zero
