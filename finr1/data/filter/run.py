"""Stage `filter`: sort the traces into good, bad and undecided, and select the questions for GRPO.

Fin-R1 (arXiv 2503.16252 v5, sec. 3 and App. B.3) keeps a trace when its answer is right and its reasoning satisfies all
seven criteria; objective questions without a kept trace go to GRPO. Here a trace that the judges cannot decide is
undecided, neither good nor bad.

Traces are streamed in chunks, so memory does not grow with their number. Verdicts are appended to `verdicts.jsonl` as
they come: a killed stage resumes after the last one on disk (and a model judge's replies are cached). The other files
are rewritten at each start and renamed into place at the end.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finr1.core.errors import ConfigError, DataError, Finr1Error
from finr1.core.files import replacing, write_json
from finr1.core.jsonl import JsonlWriter, count_lines, read_jsonl, to_line, write_jsonl
from finr1.core.question_index import QuestionIndex, number_of, repeated
from finr1.core.types import Question, Trace
from finr1.data.filter.summary import FilterSummary
from finr1.data.filter.verdicts import OUTCOMES, Judges

if TYPE_CHECKING:
    from finr1.run.context import Context

OBJECTIVE = ("number", "choice", "yes_no", "label")  # kinds of question that GRPO's rule-based reward can grade


def run(ctx: Context) -> dict[str, Any]:
    """Write verdicts, the file of each outcome, `rl.jsonl` and `filter_summary.json`; returns the counts."""
    cfg = ctx.cfg
    if not cfg.judge.answer:
        raise ConfigError("judge.answer", "[]", "no answer judge", "set judge@judge.answer=[exact]")
    if cfg.filter.reasoning and not cfg.judge.reasoning:
        remedy = "set judge@judge.reasoning=[reasoning_rules] or filter.reasoning=false"
        raise ConfigError("judge.reasoning", "[]", "no reasoning judge", remedy)
    reasoning = ctx.parts(cfg.judge.reasoning) if cfg.filter.reasoning else {}
    judges = Judges(ctx.parts(cfg.judge.answer), reasoning, cfg.filter)
    path = ctx.inputs["distil"] / "traces.jsonl"
    with QuestionIndex(ctx.inputs["questions"] / "questions.jsonl") as questions:
        total = check_traces(path, questions)
        counts = _judge_all(ctx, judges, questions, path, total)
    ctx.tracker.log("filter", {"good": counts["good"] / total}, step=0)
    for name, consequence in (("good", "SFT has no row"), ("rl_questions", "GRPO has no question")):
        if not counts[name]:
            ctx.note(f"no {name} of {total} traces: {consequence}")
    return counts | ctx.count_judge()


def check_traces(path: Path, questions: QuestionIndex) -> int:
    """Count the traces before any is judged; DataError for none, a repeated one, or an unknown question.

    Holds 8 bytes per trace.
    """
    id_numbers = array("Q")
    for line, trace in enumerate(_traces(path), 1):
        id_numbers.append(number_of(trace.id))
        if trace.question_id not in questions:
            raise DataError(path, f"line {line} has an unknown question {trace.question_id}", "run its stage again")
    if not id_numbers:
        raise DataError(path, "no trace", "run stage=distil again")
    if (duplicate := repeated(id_numbers)) is not None:
        trace_id = next(trace.id for trace in _traces(path) if number_of(trace.id) == duplicate)
        raise DataError(path, f"trace {trace_id} occurs more than once", "delete the repeated lines")
    return len(id_numbers)


def _traces(path: Path) -> Iterator[Trace]:
    return map(Trace.from_json, read_jsonl(path, ["id", *Trace.needed()]))


def _judge_all(ctx: Context, judges: Judges, questions: QuestionIndex, path: Path, total: int) -> dict[str, Any]:
    """Stream the traces: first those with a verdict on disk, then the others in chunks."""
    verdicts_path = ctx.folder / "verdicts.jsonl"
    counts: dict[str, Any] = dict.fromkeys(OUTCOMES, 0)
    summary = FilterSummary()
    with ExitStack() as stack:
        files = {outcome: stack.enter_context(replacing(ctx.folder / f"{outcome}.jsonl")) for outcome in OUTCOMES}

        def sort(question: Question, trace: Trace, row: dict[str, Any]) -> None:
            outcome = row["outcome"]
            files[outcome].write(to_line({"trace": vars(trace), **row}).encode())
            counts[outcome] += 1
            questions.mark(question.id, solved=outcome == "good")
            summary.add(question, trace, row)

        writer = stack.enter_context(JsonlWriter(verdicts_path))
        n_resumed = count_lines(verdicts_path)
        bar = stack.enter_context(ctx.progress("traces", total, n_resumed))
        traces = _traces(path)
        for row in islice(read_jsonl(verdicts_path, ("trace_id", "outcome")), n_resumed):
            trace = next(traces, None)
            if trace is None or trace.id != row["trace_id"]:
                why = f"the verdict on trace {row['trace_id']} is out of step with {path}"
                raise DataError(verdicts_path, why, f"delete {ctx.folder} and run stage=filter again")
            sort(questions[trace.question_id], trace, row)
        valid_bytes = verdicts_path.stat().st_size  # verdicts up to the first of the judge's consecutive failed calls
        try:
            while chunk := list(islice(traces, ctx.cfg.filter.chunk)):
                pairs = [(questions[trace.question_id], trace) for trace in chunk]
                rows = judges.judge(pairs)
                writer.write(*rows)
                if not ctx.judge_fails:
                    valid_bytes = verdicts_path.stat().st_size
                for (question, trace), row in zip(pairs, rows, strict=True):
                    sort(question, trace, row)
                bar.advance(len(chunk), ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES))
        except Finr1Error:  # the judge is down: judge again, on the next start, what its failed calls left undecided
            os.truncate(verdicts_path, valid_bytes)
            raise
    if sum(counts.values()) != total:
        raise AssertionError(f"{counts} of {total} traces: one was lost")
    unsolved = (q for q in questions.unsolved() if q.kind in OBJECTIVE and q.gold is not None)
    rl_ids = sorted(question.id for question in unsolved)  # ids are hashes: sorting them mixes sources and labels
    write_jsonl(ctx.folder / "rl.jsonl", ({"question_id": question_id} for question_id in rl_ids))
    content = summary.to_json()
    write_json(ctx.folder / "filter_summary.json", content)
    counts |= {"traces": total, "questions_with_good": questions.solved.count(1), "rl_questions": len(rl_ids)}
    if faults := content.get("faults"):
        counts |= {"fault_precision": faults["precision"], "fault_recall": faults["recall"]}
    return counts
