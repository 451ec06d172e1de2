"""The layouts of the exported data set: Arrow schema and row function of each.

- `messages`: chats `[{role, content}, ...]`; the assistant message is tagged reasoning and answer, as in SFT.
- `fin_r1`: the columns of Chinese-DeepSeek-R1-Distill-data-110k, whose distillation rules Fin-R1 follows: `input,
  reasoning_content, content, repo_name, *_tokens_len, score`.
- `fin_r1_sft`: that data set's `instruction, output, repo_name`, and the `conversation` that Fin-R1's README names.

Fin-R1 has not published its own schema. Every layout carries the ids of question and trace, and the verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from finr1.answer.tags import render
from finr1.core.types import CRITERIA, Message, Question

if TYPE_CHECKING:
    import pyarrow as pa

Record = dict[str, Any]
TokenCounter = Callable[[str], int | None]  # tokens of a text; None without `export.tokenizer`

COLUMNS: Mapping[str, str] = {  # column -> its description on the card
    "messages": "the question as user message, tagged reasoning and answer as assistant message; no system prompt",
    "conversation": "the same chat as `messages`",
    "input": "the prompt: the question in the wording of its source",
    "instruction": "the same as `input`",
    "reasoning_content": "the teacher's reasoning, without tags",
    "content": "the teacher's final answer, without tags",
    "output": "reasoning and answer, in their tags",
    "repo_name": "the source",
    "prompt_tokens_len": "tokens of `input`; empty without `export.tokenizer`",
    "reasoning_content_tokens_len": "tokens of `reasoning_content`",
    "content_tokens_len": "tokens of `content`",
    "score": "answer verdict: 1 right, 0 wrong, empty if undecided or not judged",
    "reasoning_score": "number of the seven criteria that hold; empty unless all were decided",
    "question_id": "id in 1_questions/questions.jsonl",
    "trace_id": "id in 2_traces/traces.jsonl and 3_filtered/verdicts.jsonl, which has every verdict with its reason",
    "sample": "index of this completion among those of its question",
    "source": "source data set of the question",
    "module": "one of Fin-R1's four modules",
    "language": "language of the question: en or zh",
    "kind": "type of the gold answer: number, choice, yes_no, label, text or code",
    "gold": "gold answer; empty if the source withholds it",
    "teacher": "model that wrote the trace",
    "teacher_tokens": "tokens of the whole completion, as reported by the teacher",
    "prompt_hash": "hash of the whole chat sent to the teacher",
    "outcome": "good, bad or undecided",
    "finish_reason": "stop, length (truncated) or error (the call failed)",
    "why": "why the trace is not good: the error of the failed call, or the filter's reason; empty if it is good",
    "verdicts": "answer verdicts (the deciding judge's; strict and scale-tolerant by rule) and the seven criteria",
}


class Judged(NamedTuple):
    """A row of the filter stage and its question."""

    question: Question
    row: Mapping[str, Any]


def schema(layout: str) -> pa.Schema:
    """The Arrow schema of a layout."""
    import pyarrow as pa

    text, integer, real = pa.string(), pa.int64(), pa.float64()
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
        "reasoning_score": integer,
        "sample": integer,
        "teacher_tokens": integer,
        **{f"{name}_tokens_len": integer for name in ("prompt", "reasoning_content", "content")},
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
        "finish_reason": trace.get("finish_reason", "stop"),
        "why": trace.get("error") or row.get("why") or "",
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


def _messages(judged: Judged, count_tokens: TokenCounter) -> Record:
    return {"messages": _chat(judged), **_lineage(judged)}


def _fin_r1(judged: Judged, count_tokens: TokenCounter) -> Record:
    trace, lineage = judged.row["trace"], _lineage(judged)
    criteria = [verdict["value"] for verdict in judged.row["criteria"].values()]
    return {
        "input": judged.question.text,
        "reasoning_content": trace["reasoning"],
        "content": trace["answer"],
        "repo_name": judged.question.source,
        "prompt_tokens_len": count_tokens(judged.question.text),
        "reasoning_content_tokens_len": count_tokens(trace["reasoning"]),
        "content_tokens_len": count_tokens(trace["answer"]),
        "score": judged.row["answer"]["value"],
        "reasoning_score": criteria.count(1) if criteria and None not in criteria else None,
        **lineage,
    }


def _fin_r1_sft(judged: Judged, count_tokens: TokenCounter) -> Record:
    return {
        "instruction": judged.question.text,
        "output": _output(judged),
        "repo_name": judged.question.source,
        "conversation": _chat(judged),
        **_lineage(judged),
    }


class Layout(NamedTuple):
    """Column names in order, and the function that makes a row."""

    columns: tuple[str, ...]
    row: Callable[[Judged, TokenCounter], Record]


_LINEAGE = (
    *("question_id", "trace_id", "sample", "source", "module", "language", "kind", "gold"),
    *("teacher", "teacher_tokens", "prompt_hash", "outcome", "finish_reason", "why", "verdicts"),
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
