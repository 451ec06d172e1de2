"""The layouts of the data set: what a row of each holds, as an Arrow schema and as a function of a judged trace.

- `messages`: chat rows, `[{role, content}, ...]`; the assistant's text is reasoning and answer in their tags, as
  SFT trains on it.
- `fin_r1`: the columns of Chinese-DeepSeek-R1-Distill-data-110k, whose rules Fin-R1's distillation repeats: `input,
  reasoning_content, content, repo_name, *_tokens_len, score`.
- `fin_r1_sft`: that set's `instruction, output, repo_name`, with the `conversation` that Fin-R1's README names.

Fin-R1 never published its own schema. Every layout carries ids that lead back to question, trace and verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from finr1.answer.tags import render
from finr1.core.types import CRITERIA, Message, Question

if TYPE_CHECKING:
    import pyarrow as pa

Record = dict[str, Any]
Count = Callable[[str], int | None]  # tokens of a text; None where no tokenizer was named

COLUMNS: Mapping[str, str] = {  # what a column holds, for the card
    "messages": "the question as user, reasoning and answer in their tags as assistant; no system prompt",
    "conversation": "the same chat as `messages`",
    "input": "the question, in its source's wording",
    "instruction": "the same as `input`",
    "reasoning_content": "the teacher's reasoning, without tags",
    "content": "the teacher's final answer, without tags",
    "output": "reasoning and answer in their tags",
    "repo_name": "the source",
    "prompt_tokens_len": "tokens of `input`; empty unless `export.tokenizer` was named",
    "reasoning_content_tokens_len": "tokens of `reasoning_content`",
    "content_tokens_len": "tokens of `content`",
    "score": "answer verdict: 1 right, 0 wrong, empty undecided or not judged",
    "reasoning_score": "how many of the seven criteria held; empty where they were not all decided",
    "question_id": "row of 1_questions/questions.jsonl",
    "trace_id": "row of 2_traces/traces.jsonl, and of 3_filtered/verdicts.jsonl with every verdict and its reason",
    "sample": "number of this completion among those of its question",
    "source": "data set of the question",
    "module": "one of Fin-R1's four modules",
    "language": "of the question",
    "kind": "what the gold is: number, choice, yes_no, label, text or code",
    "gold": "reference answer; empty where the source hides it",
    "teacher": "who wrote the trace",
    "teacher_tokens": "tokens of the whole completion as the teacher counted them",
    "prompt_hash": "hash of the chat that the teacher was asked with",
    "outcome": "good, bad or undecided",
    "verdicts": "answer (strict and scale-tolerant by rules, and the deciding judge's) and the seven criteria",
}


class Judged(NamedTuple):
    """A row of 3_filtered and its question."""

    question: Question
    row: Mapping[str, Any]


def schema(layout: str) -> pa.Schema:
    """The Arrow schema of a layout."""
    import pyarrow as pa

    text, whole, real = pa.string(), pa.int64(), pa.float64()
    chat = pa.list_(pa.struct([("role", text), ("content", text)]))
    criteria = pa.struct([(name, real) for name in CRITERIA])
    verdicts = pa.struct(
        [
            ("answer", real),
            ("answer_judge", text),
            ("answer_strict", real),
            ("answer_scaled", real),
            ("criteria", criteria),
            ("criteria_judges", pa.list_(text)),
        ]
    )
    types = {
        "messages": chat,
        "conversation": chat,
        "verdicts": verdicts,
        "score": real,
        "reasoning_score": whole,
        "sample": whole,
        "teacher_tokens": whole,
        **{f"{name}_tokens_len": whole for name in ("prompt", "reasoning_content", "content")},
    }
    return pa.schema([(name, types.get(name, text)) for name in LAYOUTS[layout].columns])


def _lineage(judged: Judged) -> Record:
    question, row = judged
    trace = row["trace"]
    return {
        "question_id": question.id,
        "trace_id": trace["id"],
        "sample": trace["sample"],
        "source": question.source,
        "module": question.module,
        "language": question.language,
        "kind": question.kind,
        "gold": question.gold,
        "teacher": trace["teacher"],
        "teacher_tokens": trace.get("n_tokens") or None,
        "prompt_hash": trace.get("prompt_hash", ""),
        "outcome": row["outcome"],
        "verdicts": _verdicts(row),
    }


def _verdicts(row: Mapping[str, Any]) -> Record:
    criteria = row["criteria"]
    judges = sorted({verdict["judge"] for verdict in criteria.values() if verdict["judge"]})
    return {
        "answer": row["answer"]["value"],
        "answer_judge": row["answer"]["judge"],
        "answer_strict": row["answer_strict"]["value"],
        "answer_scaled": row["answer_scaled"]["value"],
        "criteria": {name: criteria.get(name, {}).get("value") for name in CRITERIA},
        "criteria_judges": judges,
    }


def _chat(judged: Judged) -> list[Message]:
    return [*judged.question.prompt, Message(role="assistant", content=_output(judged))]


def _output(judged: Judged) -> str:
    trace = judged.row["trace"]
    return render(trace["reasoning"], trace["answer"])


def _messages(judged: Judged, count: Count) -> Record:
    return {"messages": _chat(judged), **_lineage(judged)}


def _fin_r1(judged: Judged, count: Count) -> Record:
    trace, lineage = judged.row["trace"], _lineage(judged)
    held = [verdict["value"] for verdict in judged.row["criteria"].values()]
    return {
        "input": judged.question.text,
        "reasoning_content": trace["reasoning"],
        "content": trace["answer"],
        "repo_name": judged.question.source,
        "prompt_tokens_len": count(judged.question.text),
        "reasoning_content_tokens_len": count(trace["reasoning"]),
        "content_tokens_len": count(trace["answer"]),
        "score": judged.row["answer"]["value"],
        "reasoning_score": sum(value == 1 for value in held) if held and None not in held else None,
        **lineage,
    }


def _fin_r1_sft(judged: Judged, count: Count) -> Record:
    return {
        "instruction": judged.question.text,
        "output": _output(judged),
        "repo_name": judged.question.source,
        "conversation": _chat(judged),
        **_lineage(judged),
    }


class Layout(NamedTuple):
    """Columns in their order, and what makes a row."""

    columns: tuple[str, ...]
    row: Callable[[Judged, Count], Record]


_LINEAGE = (
    *("question_id", "trace_id", "sample", "source", "module", "language", "kind", "gold"),
    *("teacher", "teacher_tokens", "prompt_hash", "outcome", "verdicts"),
)
_LENGTHS = ("prompt_tokens_len", "reasoning_content_tokens_len", "content_tokens_len")
LAYOUTS: Mapping[str, Layout] = {
    "messages": Layout(("messages", *_LINEAGE), _messages),
    "fin_r1": Layout(
        ("input", "reasoning_content", "content", "repo_name", *_LENGTHS, "score", "reasoning_score", *_LINEAGE),
        _fin_r1,
    ),
    "fin_r1_sft": Layout(("instruction", "output", "repo_name", "conversation", *_LINEAGE), _fin_r1_sft),
}
