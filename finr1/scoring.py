"""Score a model on questions: complete, grade, count. Used by the stage `evaluate` and by evaluation during training.

A row is one completion. Figures are shares over completions that were decided: an undecided one (None) is counted in
`undecided` and left out of the accuracy, never taken for right or wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from finr1 import stats
from finr1.answer import final_answer, grade, parse
from finr1.engine.base import Engine, Request, Sampling
from finr1.prompt import chat
from finr1.types import Completion, Question, Verdict

Row = dict[str, Any]
SHARES = ("format", "accuracy_strict", "accuracy_scaled", "undecided", "truncated")
TESTED = ("accuracy_strict", "accuracy_scaled", "format")


def grade_completion(question: Question, sample: int, completion: Completion) -> Row:
    """The row of one completion. A failed call has no verdict at all: format and both accuracies are None."""
    if completion.finish_reason == "error":
        failed = {"value": None, "why": f"failed call: {completion.error}"}
        answer, well_formed, why, strict, scaled = None, None, "", failed, failed
    else:
        parsed = parse(completion.text)
        answer = None if parsed.answer is None else final_answer(parsed.answer)
        grades = grade(parsed.answer, question)
        well_formed, why = parsed.well_formed, parsed.why
        strict, scaled = _verdict(grades.strict), _verdict(grades.scaled)
    return {
        "question_id": question.id,
        "sample": sample,
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "n_tokens": len(completion.token_ids),
        "format": well_formed,
        "format_why": why,
        "answer": answer,
        "strict": strict,
        "scaled": scaled,
    }


def _verdict(verdict: Verdict) -> Row:
    return {"value": verdict.value, "why": verdict.why}


def score(
    engine: Engine,
    questions: Sequence[Question],
    system: str | None,
    sampling: Sampling,
    on_rows: Callable[[list[Row]], None] | None = None,
) -> list[list[Row]]:
    """Ask every question at once; `on_rows` gets the graded rows of a question as soon as it is finished.

    Returns the rows by question, `sampling.n` each, in the order of the questions.
    """
    graded: dict[int, list[Row]] = {}

    def done(index: int, completions: Sequence[Completion]) -> None:
        question = questions[index]
        graded[index] = [grade_completion(question, i, c) for i, c in enumerate(completions)]
        if on_rows:
            on_rows(graded[index])

    requests = [Request(chat(question, system), question) for question in questions]
    engine.generate(requests, sampling, done)
    return [graded[index] for index in range(len(questions))]


def value_of(row: Row, figure: str) -> float | None:
    """What a row says of a share: 1, 0, or None where it says nothing."""
    if figure.startswith("accuracy_"):
        value: float | None = row[figure.removeprefix("accuracy_")]["value"]
        return value
    if figure == "undecided":
        return float(row["strict"]["value"] is None)
    if figure == "truncated":
        return float(row["finish_reason"] == "length")
    return None if row["format"] is None else float(row["format"])


def _sums(rows: Sequence[Row], figure: str) -> dict[str, tuple[float, int]]:
    """Question id -> (sum of the decided values, how many were decided); questions without one are left out."""
    sums: dict[str, tuple[float, int]] = {}
    for row in rows:
        value = value_of(row, figure)
        if value is not None:
            total, count = sums.get(row["question_id"], (0.0, 0))
            sums[row["question_id"]] = (total + value, count + 1)
    return sums


def figures(rows: Sequence[Row], confidence: float, samples: int, seed: int) -> dict[str, Any]:
    """All figures of one model in one mode, each with its interval; a share nobody decided is None.

    `low`, `high` and `method` are those of `accuracy_strict`.
    """
    out: dict[str, Any] = {
        "n": len(rows),
        "n_questions": len({row["question_id"] for row in rows}),
        "errors": sum(row["finish_reason"] == "error" for row in rows),
    }
    intervals: dict[str, dict[str, Any] | None] = {}
    for figure in SHARES:
        sums = _sums(rows, figure)
        total, count = sum(s for s, _ in sums.values()), sum(n for _, n in sums.values())
        out[figure] = total / count if count else None
        if figure.startswith("accuracy_"):
            out[f"n_decided_{figure.removeprefix('accuracy_')}"] = count
        by_question = [s for s, _ in sums.values()], [n for _, n in sums.values()]
        intervals[figure] = stats.share(*by_question, confidence)._asdict() if count else None
    lengths: dict[str, list[int]] = {}
    for row in rows:
        if row["finish_reason"] != "error":
            lengths.setdefault(row["question_id"], []).append(row["n_tokens"])
    means = [sum(tokens) / len(tokens) for tokens in lengths.values()]
    out["mean_tokens"] = sum(means) / len(means) if means else None
    intervals["mean_tokens"] = stats.bootstrap(means, samples, seed, confidence)._asdict() if means else None
    strict = intervals["accuracy_strict"] or {"low": None, "high": None, "method": "nothing decided"}
    return {**out, **strict, "confidence": confidence, "intervals": intervals}


def compare(
    rows_a: Sequence[Row], rows_b: Sequence[Row], sampled: bool, confidence: float, samples: int, seed: int
) -> dict[str, Any] | None:
    """Model b against a over the questions that both decided: exact McNemar, or paired means when `sampled`.

    The fields are those of strict accuracy; `accuracy_scaled` and `format` hold the same test of those figures. None if
    there is no question that both decided.
    """
    tests: dict[str, dict[str, Any] | None] = {}
    for figure in TESTED:
        a, b = _sums(rows_a, figure), _sums(rows_b, figure)
        both = [question for question in a if question in b]
        a_Q, b_Q = ([side[q][0] / side[q][1] for q in both] for side in (a, b))
        if not both:
            tests[figure] = None
        elif sampled:
            tests[figure] = stats.paired_means(a_Q, b_Q, samples, seed, confidence)._asdict()
        else:
            tests[figure] = stats.mcnemar(a_Q, b_Q, confidence)._asdict()
    strict = tests.pop("accuracy_strict")
    return None if strict is None else {**strict, **tests}


def by_question(rows: Sequence[Row]) -> Mapping[str, list[Row]]:
    """Rows by question id, in the order of first appearance."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row["question_id"], []).append(row)
    return grouped
