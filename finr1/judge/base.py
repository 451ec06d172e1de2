"""Judges of traces: answer judges (is it right?) and reasoning judges (is it good?), and the cascade over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from finr1.types import Question, Verdict

# The seven criteria of Fin-R1's reasoning score (arXiv 2503.16252 v5, App. B.3), in the paper's order.
CRITERIA = (
    "internal_consistency",
    "term_overlap",
    "step_count",
    "logical_consistency",
    "diversity",
    "domain_relevance",
    "instruction_following",
)


class JudgeItem(NamedTuple):
    """What a judge sees: the question, the reasoning inside <think>, and the text of the final answer."""

    question: Question
    reasoning: str
    answer: str


class AnswerJudge(Protocol):
    """Says whether the final answer is right: 1, 0, or None when it cannot tell."""

    name: str

    def judge(self, items: Sequence[JudgeItem]) -> list[Verdict]: ...


class ReasoningJudge(Protocol):
    """Says for each of the seven `CRITERIA` whether the reasoning holds it."""

    name: str

    def judge(self, items: Sequence[JudgeItem]) -> list[dict[str, Verdict]]: ...


def cascade(judges: Mapping[str, AnswerJudge], items: Sequence[JudgeItem]) -> list[tuple[Verdict, str]]:
    """Ask the judges in order; each sees only what those before it left undecided.

    Returns each item's verdict with the name of the judge that gave it; an item that nobody decides keeps the last
    judge's words and the name "".
    """
    verdicts: list[tuple[Verdict, str]] = [(Verdict(None, why="no judge"), "")] * len(items)
    open_items = list(range(len(items)))
    for name, judge in judges.items():
        answers = judge.judge([items[i] for i in open_items])
        for i, verdict in zip(open_items, answers, strict=True):
            verdicts[i] = (verdict, name if verdict.value is not None else "")
        open_items = [i for i in open_items if verdicts[i][0].value is None]
        if not open_items:
            break
    return verdicts
