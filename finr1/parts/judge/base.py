"""Protocols of the judges: answer judges (correctness) and reasoning judges (seven criteria); and the judge cascade."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

from finr1.answer.grade import Grade, grade
from finr1.core.types import Question, Verdict
from finr1.parts.engine.base import Engine


@dataclass(frozen=True)
class JudgeItem:
    """A judge's input: the question, the reasoning inside <think>, and the text of the answer block."""

    question: Question
    reasoning: str
    answer: str

    @cached_property
    def grades(self) -> Grade:
        """The rules' verdicts on the answer, computed once."""
        return grade(self.answer, self.question)


class AnswerJudge(Protocol):
    """Judges whether the final answer is correct: 1, 0, or None if undecided."""

    name: str

    def judge(self, items: Sequence[JudgeItem]) -> list[Verdict]: ...


class ReasoningJudge(Protocol):
    """Judges whether the reasoning satisfies each of the seven `CRITERIA`."""

    name: str

    def judge(self, items: Sequence[JudgeItem]) -> list[dict[str, Verdict]]: ...


@runtime_checkable
class AsksModel(Protocol):
    """A judge or reward that queries a model: it receives the engine of role `judge` before its first call."""

    def ask_through(self, engine: Engine) -> None: ...


def ask_all(
    judges: Mapping[str, AnswerJudge], items: Sequence[JudgeItem], every: Collection[int] = ()
) -> list[dict[str, Verdict]]:
    """Run the judges in order: each judges the items still undecided, and those at the indices `every`.

    Returns for each item its verdicts by name of the judge, in the order of the judges.
    """
    verdicts: list[dict[str, Verdict]] = [{} for _ in items]
    undecided: Sequence[int] = range(len(items))
    for name, judge in judges.items():
        indices = sorted({*undecided, *every}) if every else undecided
        if not indices:
            break
        for i, verdict in zip(indices, judge.judge([items[i] for i in indices]), strict=True):
            verdicts[i][name] = verdict
        undecided = [i for i in undecided if verdicts[i][name].value is None]
    return verdicts


def decided(verdicts: Mapping[str, Verdict]) -> tuple[Verdict, str]:
    """Return the first decided verdict and its judge's name; if there is none, the last verdict and an empty name."""
    last = Verdict(None, why="no judge")
    for name, verdict in verdicts.items():
        if verdict.value is not None:
            return verdict, name
        last = verdict
    return last, ""


def cascade(judges: Mapping[str, AnswerJudge], items: Sequence[JudgeItem]) -> list[tuple[Verdict, str]]:
    """Return each item's verdict and the name of its judge: `ask_all`, then `decided`."""
    return [decided(verdicts) for verdicts in ask_all(judges, items)]
