"""A scored completion: generated, graded by the rules, kept as a row, rescored when a rule changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from finr1.answer.boxes import read_boxes
from finr1.answer.reply import GradedReply, grade_reply
from finr1.answer.tags import Parsed, parse, split_thinking
from finr1.core.files import digest
from finr1.core.jsonl import read_jsonl
from finr1.core.prompt import chat
from finr1.core.types import Completion, Question, Verdict
from finr1.parts.engine.base import Engine, Request
from finr1.settings.sampling import Sampling


@dataclass(frozen=True)
class JudgeVerdict:
    """One verdict of a judge model: 1, 0 or None (undecided), the reason, and the judge that gave it."""

    value: float | None
    why: str
    judge: str


@dataclass(frozen=True)
class ScoredCompletion:
    """One row of `6_scores/<benchmark>/<model>.<mode>.jsonl`. Verdicts are 1, 0, or None where undecided.

    A failed call (`finish_reason="error"`) is undecided throughout. `judged_by` is empty where no judge model scores.
    """

    question_id: str
    sample: int
    text: str
    finish_reason: str
    error: str
    n_tokens: int
    well_formed: bool | None
    format_why: str
    answer: str | None  # as read from the reply; None: no answer
    strict: float | None  # verdict of the rules
    strict_why: str
    scaled: float | None  # verdict of the rules, tolerant of scale (0.118, 11.8%, 11.8)
    scaled_why: str
    paid: Sequence[int] | None = None  # prompt and completion tokens that a server charged for
    prompt_hash: str = ""  # of the chat messages
    judges: Sequence[JudgeVerdict] = ()  # one per repeat; empty where the judge model was not asked
    judged: float | None = None  # verdict that counts where a judge model scores
    judged_why: str = ""
    judged_by: str = ""  # rules or llm
    reasoning: str | None = None  # thinking that the server sent apart from `text`
    abstains: bool = False  # the answer commits to nothing, so the rules decide nothing

    @property
    def correct(self) -> float | None:
        """The verdict that the headline accuracy counts: the judge's where a judge model scores, else strict."""
        return self.judged if self.judged_by else self.strict

    @property
    def failed(self) -> bool:
        """Whether the call failed."""
        return self.finish_reason == "error"

    @property
    def outcome(self) -> str:
        """What became of the question: one of `OUTCOMES`."""
        if self.failed:
            return "failed"
        if self.answer is None:
            return "truncated" if self.finish_reason == "length" else "no answer"
        if self.correct is None:
            return "abstained" if self.abstains else "undecided"
        return "right" if self.correct == 1 else "wrong"

    @property
    def said(self) -> str:
        """What a judge model judges: the answer; of a reply without an answer block or a box, all of it."""
        reply = split_thinking(self.text, self.reasoning)[1].strip()
        formed = parse(self.text, self.reasoning).answer is not None or read_boxes(reply) is not None
        return self.answer or "" if formed or self.answer is None else reply

    def value(self, figure: str) -> float | None:
        """This row's value, 1, 0 or None, of a figure of `scores.figures`."""
        if figure == "undecided":
            return float(self.correct is None)
        if figure == "abstained":
            return float(self.outcome == "abstained")
        if figure == "truncated":
            return float(self.finish_reason == "length")
        value: float | None = getattr(self, _FIELD[figure])
        return None if value is None else float(value)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """A row as read from JSON; unknown keys are ignored."""
        known = {name: row[name] for name in _NAMES if name in row}
        return cls(**known | {"judges": [JudgeVerdict(**verdict) for verdict in row.get("judges", ())]})

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "outcome": self.outcome}


OUTCOMES = ("right", "wrong", "abstained", "no answer", "truncated", "undecided", "failed")
_NAMES = tuple(field.name for field in fields(ScoredCompletion))
_FIELD = {
    "format": "well_formed",
    "accuracy_strict": "strict",
    "accuracy_scaled": "scaled",
    "accuracy_judged": "judged",
}


def read_rows(path: Path) -> list[ScoredCompletion]:
    """The rows of a file; none where the file does not exist."""
    return [ScoredCompletion.from_json(row) for row in read_jsonl(path)] if path.exists() else []


def grade_completion(
    question: Question, sample: int, completion: Completion, reading: str = "content", prompt_hash: str = ""
) -> ScoredCompletion:
    """Grade one completion by the rules; `reading`: what counts as its answer (`finr1.answer.reply`)."""
    text, reasoning = completion.text, completion.reasoning
    if completion.finish_reason == "error":
        undecided = Verdict(None, why=f"failed call: {completion.error}")
        graded, well_formed = GradedReply(None, undecided, undecided, Parsed(None, None, False, "")), None
    else:
        graded = grade_reply(text, question, reading, reasoning, completion.finish_reason == "length")
        well_formed = graded.form.well_formed
    return ScoredCompletion(
        question_id=question.id,
        sample=sample,
        text=text,
        finish_reason=completion.finish_reason,
        error=completion.error,
        n_tokens=len(completion.token_ids) or int(completion.meta.get("n_tokens", 0)),
        well_formed=well_formed,
        format_why=graded.form.why,
        answer=graded.answer,
        strict=graded.strict.value,
        strict_why=graded.strict.why,
        scaled=graded.scaled.value,
        scaled_why=graded.scaled.why,
        paid=list(completion.meta["paid"]) if "paid" in completion.meta else None,
        prompt_hash=prompt_hash,
        reasoning=reasoning,
        abstains=graded.abstains,
    )


def regrade(question: Question, row: ScoredCompletion, reading: str) -> ScoredCompletion:
    """Grade a cached completion again by the current rules, for this question."""
    completion = Completion(
        row.text,
        row.finish_reason,  # type: ignore[arg-type]
        reasoning=row.reasoning,
        error=row.error,
        meta={"n_tokens": row.n_tokens},
    )
    return replace(grade_completion(question, row.sample, completion, reading, row.prompt_hash), paid=row.paid)


def requests_of(questions: Sequence[Question], system: str | None) -> list[Request]:
    """The requests of these questions, one each."""
    return [Request(chat(question, system), question, logprobs=False) for question in questions]


def grade_all(request: Request, completions: Sequence[Completion], reading: str = "content") -> list[ScoredCompletion]:
    """Grade the completions of one request: its samples in order."""
    prompt_hash = digest(request.messages)
    return [
        grade_completion(request.question, i, completion, reading, prompt_hash)
        for i, completion in enumerate(completions)
    ]


def score(
    engine: Engine, questions: Sequence[Question], system: str | None, sampling: Sampling
) -> list[list[ScoredCompletion]]:
    """Generate and grade `sampling.n` completions per question; returns the rows per question, in the given order."""
    requests = requests_of(questions, system)
    return list(map(grade_all, requests, engine.generate(requests, sampling)))


def headline(rows: Sequence[ScoredCompletion]) -> str:
    """Return the headline figure: the judged accuracy if a judge model scored the rows, else the strict one."""
    return "accuracy_judged" if any(row.judged_by for row in rows) else "accuracy_strict"


def by_question(rows: Sequence[ScoredCompletion]) -> Mapping[str, list[ScoredCompletion]]:
    """Rows by question id, in the order of first appearance."""
    grouped: dict[str, list[ScoredCompletion]] = {}
    for row in rows:
        grouped.setdefault(row.question_id, []).append(row)
    return grouped
