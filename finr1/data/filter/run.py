"""Stage `filter`: sort the traces into good, bad and undecided, and choose the questions for GRPO.

Fin-R1 (arXiv 2503.16252 v5, sec. 3 and App. B.3) keeps a trace when its answer is right and its reasoning holds all
seven criteria; objective questions without a kept trace go to GRPO. Here a trace that the judges leave open is neither
good nor bad, but undecided, unless what is known settles it.

Traces are read, judged and written in their order, a chunk at a time: memory does not grow with them. Verdicts are
appended to `verdicts.jsonl` as they come, so that a killed stage goes on where it was (and what a judge model has
answered is in its cache); the other files take their names at the end. Of the questions only ids and places are held.
"""

from __future__ import annotations

import gc
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from finr1.core.errors import ConfigError, DataError, Finr1Error
from finr1.core.files import replacing, write_json
from finr1.core.jsonl import JsonlWriter, count_lines, raw_rows, to_line, write_jsonl
from finr1.core.question_index import QuestionIndex, number_of, repeated
from finr1.core.types import Question, Trace
from finr1.data.filter.audit import Audit
from finr1.data.filter.verdicts import OUTCOMES, Judges

if TYPE_CHECKING:
    from finr1.run.context import Context

OBJECTIVE = ("number", "choice", "yes_no", "label")  # kinds whose answer a rule can check: what GRPO may be rewarded on


def run(ctx: Context) -> dict[str, Any]:
    """Write the four row files and `filter_summary.json`; returns the counts."""
    cfg = ctx.cfg
    if not cfg.judge.answer:
        raise ConfigError("judge.answer", "[]", "no judge of answers", "give judge@judge.answer=[exact]")
    if cfg.filter.reasoning and not cfg.judge.reasoning:
        remedy = "give judge@judge.reasoning=[reasoning_rules], or filter.reasoning=false"
        raise ConfigError("judge.reasoning", "[]", "no judge of the reasoning", remedy)
    reasoning = ctx.parts(cfg.judge.reasoning) if cfg.filter.reasoning else {}
    judges = Judges(ctx.parts(cfg.judge.answer), reasoning, cfg.filter)
    path = ctx.inputs["distil"] / "traces.jsonl"
    with QuestionIndex(ctx.inputs["questions"] / "questions.jsonl") as questions, _rare_collections():
        total = check_traces(path, questions)
        counts = _judge_all(ctx, judges, questions, path, total)
    ctx.tracker.log("filter", {"good": counts["good"] / total}, step=0)
    for outcome, meaning in (("good", "SFT has no row"), ("rl_questions", "GRPO has no question")):
        if not counts[outcome]:
            ctx.note(f"no {outcome} of {total} traces: {meaning}")
    return counts | ctx.count_judge()


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Python looks for cycles of garbage at every 700 new objects, an eighth of this stage's time; rows have none."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _judge_all(ctx: Context, judges: Judges, questions: QuestionIndex, path: Path, total: int) -> dict[str, Any]:
    """Walk over the traces: those with a verdict on disk, then the others by chunks; everything is written once."""
    verdicts = ctx.folder / "verdicts.jsonl"
    with ExitStack() as open_files:
        sorting = _Sorting(
            questions, {o: open_files.enter_context(replacing(ctx.folder / f"{o}.jsonl")) for o in OUTCOMES}
        )
        writer = open_files.enter_context(JsonlWriter(verdicts))
        n_before = count_lines(verdicts)
        bar = open_files.enter_context(ctx.progress("traces", total, n_before))
        traces = _traces(path)
        for known in islice(raw_rows(verdicts, ("trace_id", "outcome")), n_before):
            line, trace = next(traces, (b"", None))
            if trace is None or trace.id != known.values["trace_id"]:
                why = f"trace {known.values['trace_id']} does not stand where it stood in {path}"
                raise DataError(verdicts, why, f"delete {ctx.folder} and run stage=filter again")
            sorting.add(questions[trace.question_id], trace, known.values, line, known.line.decode())
        sound = verdicts.stat().st_size  # of the file, up to where the judge's calls began to fail one after the other
        try:
            while chunk := list(islice(traces, ctx.cfg.filter.chunk)):
                asked = [questions[trace.question_id] for _, trace in chunk]
                rows = judges.judge([(question, trace) for question, (_, trace) in zip(asked, chunk, strict=True)])
                lines = list(map(to_line, rows))
                writer.write_lines(lines)
                sound = sound if ctx.judge_fails else verdicts.stat().st_size
                for question, (line, trace), row, text in zip(asked, chunk, rows, lines, strict=True):
                    sorting.add(question, trace, row, line, text)
                bar.advance(len(chunk), ", ".join(f"{sorting.counts[outcome]} {outcome}" for outcome in OUTCOMES))
        except Finr1Error:  # a judge that is gone: what it left undecided is judged when the stage is started again
            os.truncate(verdicts, sound)
            raise
        counts: dict[str, Any] = {outcome: sorting.counts[outcome] for outcome in OUTCOMES}
        if sum(counts.values()) != total:
            raise AssertionError(f"{counts} of {total} traces: one was lost")
    unsolved = (q for q in questions.unsolved() if q.kind in OBJECTIVE and q.gold is not None)
    rl = sorted(question.id for question in unsolved)  # hashes: the first of them are no one label or source
    write_jsonl(ctx.folder / "rl.jsonl", ({"question_id": question_id} for question_id in rl))
    audit = sorting.audit.to_json()
    write_json(ctx.folder / "filter_summary.json", audit)
    more = {"traces": total, "questions_with_good": questions.solved.count(1), "rl_questions": len(rl)}
    if faults := audit.get("faults"):
        more |= {"fault_precision": faults["precision"], "fault_recall": faults["recall"]}
    return {**counts, **more}


_TRACE_FIELDS = [field.name for field in fields(Trace)]


def _traces(path: Path) -> Iterator[tuple[bytes, Trace]]:
    """The traces, each with the line that says all of it."""
    for row in raw_rows(path, ["id", *Trace.needed()]):
        whole = list(row.values) == _TRACE_FIELDS
        trace = Trace(**row.values) if whole else Trace.from_json(row.values)
        whole = whole and row.values["id"] == trace.id
        yield row.line if whole else to_line(trace.to_json()).encode(), trace


def check_traces(path: Path, questions: QuestionIndex) -> int:
    """How many traces there are; DataError when none, when one is there twice, or when its question is unknown.

    Eight bytes a trace are held for it. A mistake is known before anything is judged, and paid for.
    """
    keys = array("Q")
    last = None  # traces of a question stand together
    for number, row in enumerate(raw_rows(path, ["id", *Trace.needed()]), 1):
        keys.append(number_of(row.values["id"] or Trace.from_json(row.values).id))
        question_id = row.values["question_id"]
        if question_id != last and question_id not in questions:
            raise DataError(path, f"line {number} has an unknown question {question_id}", "run its stage again")
        last = question_id
    if not keys:
        raise DataError(path, "no trace", "run stage=distil again")
    if (twice := repeated(keys)) is not None:
        name = next(row.values["id"] for row in raw_rows(path) if number_of(row.values["id"]) == twice)
        raise DataError(path, f"trace {name} is there more than once", "delete the repeated lines")
    return len(keys)


class _Sorting:
    """Puts each trace with its verdict into the file of its outcome, and counts."""

    def __init__(self, questions: QuestionIndex, files: Mapping[str, BinaryIO]) -> None:
        self.questions, self.files = questions, files
        self.counts: Counter[str] = Counter()
        self.audit = Audit()

    def add(self, question: Question, trace: Trace, verdict: Mapping[str, Any], line: bytes, text: str) -> None:
        """One trace and its verdict, as values and as the lines that say them: `{"trace": <line>, <text's values>}`."""
        outcome = verdict["outcome"]
        self.files[outcome].write(b'{"trace": ' + line.rstrip() + b", " + text[1:].encode())
        self.counts[outcome] += 1
        self.questions.mark(question.id, solved=outcome == "good")
        self.audit.add(question, trace, verdict)
