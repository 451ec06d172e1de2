"""Judges of traces: answer judges (is it right?) and reasoning judges (is it good?), and the cascade over them."""

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
    """What a judge sees: the question, the reasoning inside <think>, and the text of the answer block."""

    question: Question
    reasoning: str
    answer: str

    @cached_property
    def grades(self) -> Grade:
        """The rule's verdicts on the answer, worked out once for all who look."""
        return grade(self.answer, self.question)


class AnswerJudge(Protocol):
    """Says whether the final answer is right: 1, 0, or None when it cannot tell."""

    name: str

    def judge(self, items: Sequence[JudgeItem]) -> list[Verdict]: ...


class ReasoningJudge(Protocol):
    """Says for each of the seven `CRITERIA` whether the reasoning holds it."""

    name: str

    def judge(self, items: Sequence[JudgeItem]) -> list[dict[str, Verdict]]: ...


@runtime_checkable
class AsksModel(Protocol):
    """A judge or a reward that asks a model: it is given the engine of role `judge` before it is first called."""

    def ask_through(self, engine: Engine) -> None: ...


def ask_all(
    judges: Mapping[str, AnswerJudge], items: Sequence[JudgeItem], every: Collection[int] = ()
) -> list[dict[str, Verdict]]:
    """Ask the judges in order; each sees what those before it left undecided, and the items numbered in `every`.

    Returns each item's verdicts by the judge that gave them, in the order of the judges.
    """
    found: list[dict[str, Verdict]] = [{} for _ in items]
    undecided: Sequence[int] = range(len(items))
    for name, judge in judges.items():
        asked = sorted({*undecided, *every}) if every else undecided
        if not asked:
            break
        for i, verdict in zip(asked, judge.judge([items[i] for i in asked]), strict=True):
            found[i][name] = verdict
        undecided = [i for i in undecided if found[i][name].value is None]
    return found


def decided(verdicts: Mapping[str, Verdict]) -> tuple[Verdict, str]:
    """The first verdict that decides, and its judge's name; where none does, the last judge's words and the name ""."""
    last = Verdict(None, why="no judge")
    for name, verdict in verdicts.items():
        if verdict.value is not None:
            return verdict, name
        last = verdict
    return last, ""


def cascade(judges: Mapping[str, AnswerJudge], items: Sequence[JudgeItem]) -> list[tuple[Verdict, str]]:
    """Each item's verdict with the name of the judge that gave it: `ask_all`, then `decided`."""
    return [decided(verdicts) for verdicts in ask_all(judges, items)]
