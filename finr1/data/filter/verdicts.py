"""Which traces every answer judge is asked about, so that the report can say how far the judges agree.

In a cascade a judge sees only what those before it left open: no two judges ever speak of the same trace. On an audited
trace (`filter.audit_share`) those after the deciding one are asked too. What they say changes no outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from finr1.answer.tags import parse, render
from finr1.core.types import CRITERIA, Question, Trace, Verdict, stable_id
from finr1.parts.judge.base import AnswerJudge, JudgeItem, ReasoningJudge, ask_all, decided
from finr1.settings.filter import FilterSettings

Outcome = Literal["good", "bad", "undecided"]
OUTCOMES: tuple[Outcome, ...] = ("good", "bad", "undecided")


class Judges:
    """The two cascades and the rule that makes an outcome of their verdicts."""

    def __init__(
        self,
        answer: Mapping[str, AnswerJudge],
        reasoning: Mapping[str, ReasoningJudge],
        settings: FilterSettings,
    ) -> None:
        self.answer, self.reasoning, self.settings = answer, reasoning, settings

    def judge(self, pairs: Sequence[tuple[Question, Trace]]) -> list[dict[str, Any]]:
        """One row of `verdicts.jsonl` a trace. Only usable traces are judged, only right ones on reasoning."""
        unfit = [unusable(trace) for _, trace in pairs]
        items = [JudgeItem(question, trace.reasoning, trace.answer) for question, trace in pairs]
        fit = [i for i, why in enumerate(unfit) if not why]
        share, seed = self.settings.audit_share, self.settings.audit_seed
        audited = [n for n, i in enumerate(fit) if is_audited(pairs[i][1].id, share, seed)]
        by_judge = dict(zip(fit, ask_all(self.answer, [items[i] for i in fit], audited), strict=True))
        answers = {i: decided(verdicts) for i, verdicts in by_judge.items()}
        right = [i for i in fit if self.settings.reasoning and answers[i][0].value == 1]
        criteria = dict(zip(right, self._criteria([items[i] for i in right]), strict=True))
        rows = []
        for i, (question, trace) in enumerate(pairs):
            verdict, judge = answers.get(i, (Verdict(None, why="not judged"), ""))
            of_reasoning = criteria.get(i, {})
            outcome, why = ("bad", unfit[i]) if unfit[i] else self.outcome(verdict, of_reasoning)
            strict, scaled = self._grades(items[i], bool(unfit[i]))
            rows.append(
                {
                    "trace_id": trace.id,
                    "question_id": question.id,
                    "outcome": outcome,
                    "why": why,
                    "answer": {**_plain(verdict), "judge": judge},
                    "answer_strict": _plain(strict),
                    "answer_scaled": _plain(scaled),
                    "criteria": {
                        name: {"value": value, "why": why, "judge": by}
                        for name, ((value, _, why), by) in of_reasoning.items()
                    },
                }
            )
        for i in (fit[n] for n in audited):
            rows[i]["answers"] = {name: verdict._asdict() for name, verdict in by_judge[i].items()}
        return rows

    def outcome(self, answer: Verdict, criteria: Mapping[str, tuple[Verdict, str]]) -> tuple[Outcome, str]:
        """Good, bad or undecided, and the reason in a few words (a key of the audit)."""
        if answer.value is None:
            return "undecided", "answer undecided"
        if answer.value != 1:
            return "bad", "answer wrong"
        if not self.settings.reasoning:
            return "good", ""
        values = [verdict.value for verdict, _ in criteria.values()]
        held, open_ = values.count(1), values.count(None)
        if held >= self.settings.criteria_needed:
            return "good", ""
        if held + open_ < self.settings.criteria_needed:
            return "bad", "reasoning fails"
        return "undecided", "reasoning undecided"

    def _criteria(self, items: Sequence[JudgeItem]) -> list[dict[str, tuple[Verdict, str]]]:
        """Each item's seven verdicts with the judge that gave them.

        A later judge sees the items with a criterion open, unless what is known settles the outcome.
        """
        nobody = Verdict(None, why="no judge decided")
        found = [] if self.reasoning else [dict.fromkeys(CRITERIA, (nobody, "")) for _ in items]
        todo: Sequence[int] = range(len(items))
        for n, (name, judge) in enumerate(self.reasoning.items()):
            if n:
                todo = [i for i in todo if self.outcome(Verdict(1.0), found[i])[0] == "undecided"]
            if not todo:
                break
            given = judge.judge([items[i] for i in todo])
            rows = [{c: (v := row.get(c, nobody), "" if v.value is None else name) for c in CRITERIA} for row in given]
            if not n:
                found = rows
                continue
            for i, row in zip(todo, rows, strict=True):
                found[i] = {c: row[c] if before[0].value is None else before for c, before in found[i].items()}
        return found

    @staticmethod
    def _grades(item: JudgeItem, unfit: bool) -> tuple[Verdict, Verdict]:
        """The rule's strict and scale-tolerant verdict, whoever decided: shown side by side in every report."""
        if unfit or item.question.gold is None:
            none = Verdict(None, why="no gold" if item.question.gold is None else "not judged")
            return none, none
        return item.grades


def _plain(verdict: Verdict) -> dict[str, Any]:
    """A verdict by its fields."""
    value, answer, why = verdict
    return {"value": value, "answer": answer, "why": why}


def unusable(trace: Trace) -> str:
    """Why a trace can be no training row whatever it says; empty if it can."""
    if trace.finish_reason == "error":
        return "call failed"
    if trace.finish_reason == "length":
        return "truncated"
    if not trace.answer:
        return "no answer"
    if not trace.reasoning:
        return "no reasoning"
    if "<" not in trace.reasoning + trace.answer and trace.reasoning.strip() and trace.answer.strip():
        return ""  # nothing that could be a tag
    return "" if parse(render(trace.reasoning, trace.answer)).well_formed else "tags inside the text"


def is_audited(trace_id: str, share: float, seed: int) -> bool:
    """Whether a trace is among the audited share: by a hash, the same in every process and for every resume."""
    return share > 0 and int(stable_id("audit", seed, trace_id), 16) < share * 16**16
