"""Asking every answer judge about some of the traces, so that the report can say how far the judges agree.

In a cascade a judge sees only what those before it left open: no two judges ever speak of the same trace. On an audited
trace (`filter.audit_share`) those after the deciding one are asked too. What they say changes no outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finr1.judge.base import AnswerJudge, JudgeItem
from finr1.types import Verdict, stable_id

LEFT_OPEN = Verdict(None, why="left open")


def is_audited(trace_id: str, share: float, seed: int) -> bool:
    """Whether a trace is among the audited share: by a hash, the same in every process and for every resume."""
    return int(stable_id("audit", seed, trace_id), 16) < share * 16**16


def every_answer(
    judges: Mapping[str, AnswerJudge], items: Sequence[JudgeItem], decided: Sequence[tuple[Verdict, str]]
) -> list[dict[str, Verdict]]:
    """Each item's verdict of every judge, in the judges' order; `decided` is what `cascade` gave for these items.

    No judge is asked twice: those before the deciding one have left it open, and the deciding one has spoken.
    """
    names = list(judges)
    known: list[dict[str, Verdict]] = []
    for verdict, by in decided:
        before = names[: names.index(by)] if by in names else names
        known.append({**dict.fromkeys(before, LEFT_OPEN), **({by: verdict} if by in names else {})})
    for name, judge in judges.items():
        todo = [i for i, row in enumerate(known) if name not in row]
        if todo:
            verdicts = judge.judge([items[i] for i in todo])
            for i, verdict in zip(todo, verdicts, strict=True):
                known[i][name] = verdict
    return [{name: row[name] for name in names} for row in known]
