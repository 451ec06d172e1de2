"""From judges' verdicts to an outcome: one row of `verdicts.jsonl` per trace.

In a cascade a judge sees only the traces that the judges before it left undecided, so no two judges decide the same
trace. On audited traces (`filter.audit_share`) the judges after the deciding one are asked too, so that the report can
show their agreement; their verdicts change no outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from finr1.answer.reply import read_answer
from finr1.answer.tags import parse, render
from finr1.core.types import CRITERIA, Question, Trace, Verdict, stable_id
from finr1.parts.judge.base import AnswerJudge, JudgeItem, ReasoningJudge, ask_all, decided
from finr1.settings.filter import FilterSettings

Outcome = Literal["good", "bad", "undecided"]
OUTCOMES: tuple[Outcome, ...] = ("good", "bad", "undecided")
CriteriaVerdicts = Mapping[str, tuple[Verdict, str]]  # criterion -> verdict and the judge that gave it

_NO_JUDGE_DECIDED = (Verdict(None, why="no judge decided"), "")


class Judges:
    """The answer judges and the reasoning judges, each in cascade, and the rule from their verdicts to an outcome."""

    def __init__(
        self,
        answer: Mapping[str, AnswerJudge],
        reasoning: Mapping[str, ReasoningJudge],
        settings: FilterSettings,
    ) -> None:
        self.answer, self.reasoning, self.settings = answer, reasoning, settings

    def judge(self, pairs: Sequence[tuple[Question, Trace]]) -> list[dict[str, Any]]:
        """Judge the usable traces' answers, and the reasoning of those with a right answer; one verdict row each."""
        items = [JudgeItem(question, trace.reasoning, self._answer(question, trace)) for question, trace in pairs]
        defects = [unusable(trace) for _, trace in pairs]
        usable = [i for i, defect in enumerate(defects) if not defect]
        share, seed = self.settings.audit_share, self.settings.audit_seed
        audited = [n for n, i in enumerate(usable) if is_audited(pairs[i][1].id, share, seed)]
        by_judge = dict(zip(usable, ask_all(self.answer, [items[i] for i in usable], audited), strict=True))
        answers = {i: decided(verdicts) for i, verdicts in by_judge.items()}
        right = [i for i in usable if self.settings.reasoning and answers[i][0].value == 1]
        criteria = dict(zip(right, self._criteria([items[i] for i in right]), strict=True))
        rows = []
        for i, (question, trace) in enumerate(pairs):
            answer, judge = answers.get(i, (Verdict(None, why="not judged"), ""))
            of_reasoning = criteria.get(i, {})
            outcome, why = ("bad", defects[i]) if defects[i] else self.outcome(answer, of_reasoning)
            strict, scaled = _rule_verdicts(items[i], bool(defects[i]))
            rows.append(
                {
                    "trace_id": trace.id,
                    "question_id": question.id,
                    "outcome": outcome,
                    "why": why,
                    "answer": {**answer._asdict(), "judge": judge},
                    "answer_strict": strict._asdict(),
                    "answer_scaled": scaled._asdict(),
                    "criteria": {
                        name: {"value": verdict.value, "why": verdict.why, "judge": by}
                        for name, (verdict, by) in of_reasoning.items()
                    },
                }
            )
        for n in audited:
            i = usable[n]
            rows[i]["answers"] = {name: verdict._asdict() for name, verdict in by_judge[i].items()}
        return rows

    def _answer(self, question: Question, trace: Trace) -> str:
        """The text that is judged: the trace's answer part, or what that states as its answer."""
        if self.settings.reading == "strict" or unusable(trace):
            return trace.answer
        return read_answer(trace.answer, question, "content") or ""

    def outcome(self, answer: Verdict, criteria: CriteriaVerdicts) -> tuple[Outcome, str]:
        """The outcome and its reason, a key of `filter_summary.json`; undecided while open criteria could turn it."""
        if answer.value is None:
            return "undecided", "answer undecided"
        if answer.value != 1:
            return "bad", "answer wrong"
        if not self.settings.reasoning:
            return "good", ""
        values = [verdict.value for verdict, _ in criteria.values()]
        n_held, n_undecided = values.count(1), values.count(None)
        if n_held >= self.settings.criteria_needed:
            return "good", ""
        if n_held + n_undecided < self.settings.criteria_needed:
            return "bad", "reasoning fails"
        return "undecided", "reasoning undecided"

    def _criteria(self, items: Sequence[JudgeItem]) -> list[CriteriaVerdicts]:
        """Ask the reasoning judges in order, each on the items whose outcome its predecessors left undecided."""
        verdicts: list[CriteriaVerdicts] = [dict.fromkeys(CRITERIA, _NO_JUDGE_DECIDED) for _ in items]
        for name, judge in self.reasoning.items():
            undecided = [i for i, known in enumerate(verdicts) if self.outcome(Verdict(1.0), known)[0] == "undecided"]
            if not undecided:
                break
            for i, given in zip(undecided, judge.judge([items[i] for i in undecided]), strict=True):
                verdicts[i] = {c: _first(verdicts[i][c], given.get(c), name) for c in CRITERIA}
        return verdicts


def _first(known: tuple[Verdict, str], given: Verdict | None, judge: str) -> tuple[Verdict, str]:
    """Return the known verdict if it is decided, else the given one, with its judge if that is decided."""
    if known[0].value is not None or given is None:
        return known
    return given, "" if given.value is None else judge


def _rule_verdicts(item: JudgeItem, unusable: bool) -> tuple[Verdict, Verdict]:
    """The strict and the scale-tolerant verdict by rule, whichever judge decided: reports show both."""
    if unusable or item.question.gold is None:
        none = Verdict(None, why="no gold" if item.question.gold is None else "not judged")
        return none, none
    return item.grades


def unusable(trace: Trace) -> str:
    """Why a trace cannot become a training row, whatever its content; empty if it can."""
    if trace.finish_reason == "error":
        return "call failed"
    if trace.finish_reason == "length":
        return "truncated"
    if not trace.answer:
        return "no answer"
    if not trace.reasoning:
        return "no reasoning"
    return "" if parse(render(trace.reasoning, trace.answer)).well_formed else "tags inside the text"


def is_audited(trace_id: str, share: float, seed: int) -> bool:
    """Whether a trace is in the audited share: decided by a hash, so the same in every process and resume."""
    return share > 0 and int(stable_id("audit", seed, trace_id), 16) < share * 16**16
