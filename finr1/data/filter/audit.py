"""The figures of an audit: what each judge said of the same traces, and of planted faults."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from finr1.core.types import CRITERIA, Question, Trace
from finr1.data.filter.verdicts import Outcome

ANSWERS = ("answer", "answer_strict", "answer_scaled")  # columns of a verdict row that hold one on the answer

FAULTS_NOTE = (
    "The faults were planted at a set rate by the teacher engine, of kinds that the filter was written to catch: the "
    "figures say how well it catches these, not how well it would catch the mistakes of a language model."
)


class Audit:
    """What the filter did: outcomes by source, language and kind, reasons, criteria, judges, planted faults."""

    def __init__(self) -> None:
        self._traces: Counter[tuple[Any, ...]] = Counter()  # by all that is counted of one
        self._planted: Counter[tuple[str | None, Outcome]] = Counter()

    def add(self, question: Question, trace: Trace, row: Mapping[str, Any]) -> None:
        """Count one trace and its verdict row."""
        values = tuple([row[column]["value"] for column in ANSWERS])
        criteria = tuple([(name, verdict["value"]) for name, verdict in row["criteria"].items()])
        of_question = (question.source, question.language, question.kind)
        self._traces[of_question, row["outcome"], row["why"], row["answer"]["judge"], values, criteria] += 1
        if "fault" in trace.meta and trace.finish_reason == "stop":
            self._planted[trace.meta["fault"], row["outcome"]] += 1

    def to_json(self) -> dict[str, Any]:
        """As kept in `filter_summary.json`."""
        by: dict[str, dict[str, Counter[str]]] = {k: defaultdict(Counter) for k in ("source", "language", "kind")}
        reasons, judges = Counter[str](), Counter[str]()
        answers: dict[str, Counter[str]] = defaultdict(Counter)
        criteria: dict[str, Counter[str]] = {name: Counter() for name in CRITERIA}
        for (of_question, outcome, why, judge, values, verdicts), n in self._traces.items():
            for table, name in zip(by.values(), of_question, strict=True):
                table[name][outcome] += n
            reasons.update({why: n} if why else {})
            judges.update({judge: n} if judge else {})
            for column, value in zip(ANSWERS, values, strict=True):
                answers[column][_word(value, "right", "wrong")] += n
            for name, value in verdicts:
                criteria[name][_word(value, "held", "failed")] += n
        audit: dict[str, Any] = {f"by_{name}": table for name, table in by.items()}
        audit |= {"reasons": reasons, "answers": answers, "criteria": criteria, "decided_by": judges}
        return {**audit, "faults": confusion(self._planted.elements())} if self._planted else audit


def confusion(planted: Iterable[tuple[str | None, Outcome]]) -> dict[str, Any]:
    """The filter as a detector of planted faults: bad is "caught". Undecided traces are counted apart.

    Precision: of the decided traces called bad, the share with a fault. Recall: of the decided traces with a fault, the
    share called bad. None where there is nothing to divide by.
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


def _word(value: float | None, yes: str, no: str) -> str:
    return "undecided" if value is None else yes if value == 1 else no
