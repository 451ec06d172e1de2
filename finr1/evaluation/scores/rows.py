"""A scored completion: graded by the rules, kept as a row, regraded when a rule changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from finr1.answer.grade import grade
from finr1.answer.tags import final_answer, last_box, parse
from finr1.core.files import digest
from finr1.core.prompt import chat
from finr1.core.types import Completion, Question, Verdict
from finr1.parts.engine.base import Engine, Request
from finr1.settings.sampling import Sampling

Row = dict[str, Any]


def grade_completion(question: Question, sample: int, completion: Completion, box_anywhere: bool = False) -> Row:
    """The row of one completion. A failed call has no verdict at all: format and both accuracies are None.

    Reasoning that a server returns apart stands in `text` as the thinking. `box_anywhere` reads a reply that has no
    answer block in its last `\\boxed{}` after the thinking.
    """
    text = completion.text
    if completion.reasoning is not None:
        text = f"<think>\n{completion.reasoning.strip()}\n</think>\n{text}"
    if completion.finish_reason == "error":
        failed = {"value": None, "why": f"failed call: {completion.error}"}
        answer, well_formed, why, strict, scaled = None, None, "", failed, failed
    else:
        parsed = parse(text)
        block = parsed.answer
        if block is None and box_anywhere and (box := last_box(text.rpartition("</think>")[2])) is not None:
            block = f"\\boxed{{{box}}}"
        answer = None if block is None else final_answer(block)
        grades = grade(block, question)
        well_formed, why = parsed.well_formed, parsed.why
        strict, scaled = _verdict(grades.strict), _verdict(grades.scaled)
    paid = {"paid": list(completion.meta["paid"])} if "paid" in completion.meta else {}
    return {
        "question_id": question.id,
        "sample": sample,
        "text": text,
        "finish_reason": completion.finish_reason,
        "error": completion.error,
        "n_tokens": len(completion.token_ids) or int(completion.meta.get("n_tokens", 0)),
        "format": well_formed,
        "format_why": why,
        "answer": answer,
        "strict": strict,
        "scaled": scaled,
        **paid,
    }


def regrade(question: Question, row: Row, box_anywhere: bool = False) -> Row:
    """A row of an earlier evaluation by the rules of today: the same completion, for this question."""
    meta = {"n_tokens": row["n_tokens"], **({"paid": row["paid"]} if "paid" in row else {})}
    completion = Completion(row["text"], row["finish_reason"], error=row.get("error", ""), meta=meta)
    return {**grade_completion(question, row["sample"], completion, box_anywhere), "asked": row["asked"]}


def _verdict(verdict: Verdict) -> Row:
    return {"value": verdict.value, "why": verdict.why}


def score(
    engine: Engine,
    questions: Sequence[Question],
    system: str | None,
    sampling: Sampling,
    on_rows: Callable[[list[Row]], None] | None = None,
    box_anywhere: bool = False,
) -> list[list[Row]]:
    """Ask every question at once; `on_rows` gets the graded rows of a question as soon as it is finished.

    Each row has `asked`, a hash of its chat. Returns the rows by question, `sampling.n` each, in the questions' order.
    """
    graded: dict[int, list[Row]] = {}

    def done(index: int, completions: Sequence[Completion]) -> None:
        question = questions[index]
        asked = {"asked": digest(requests[index].messages)}
        graded[index] = [grade_completion(question, i, c, box_anywhere) | asked for i, c in enumerate(completions)]
        if on_rows:
            on_rows(graded[index])

    requests = [Request(chat(question, system), question, logprobs=False) for question in questions]
    engine.generate(requests, sampling, done)
    return [graded[index] for index in range(len(questions))]


def value_of(row: Row, figure: str) -> float | None:
    """What a row says of a share: 1, 0, or None where it says nothing."""
    if figure.startswith("accuracy_"):
        value: float | None = row[figure.removeprefix("accuracy_")]["value"]
        return value
    if figure == "undecided":  # by what leads
        return float(row["judged" if "judged" in row else "strict"]["value"] is None)
    if figure == "truncated":
        return float(row["finish_reason"] == "length")
    return None if row["format"] is None else float(row["format"])


def headline(rows: Sequence[Row]) -> str:
    """The figure that stands for accuracy: the judge's where it has scored these rows, else the rules' strict one."""
    return "accuracy_judged" if rows and "judged" in rows[0] else "accuracy_strict"


def by_question(rows: Sequence[Row]) -> Mapping[str, list[Row]]:
    """Rows by question id, in the order of first appearance."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row["question_id"], []).append(row)
    return grouped
