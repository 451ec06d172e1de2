"""Stage `distil`: generate traces with the teacher, each written to `2_traces/traces.jsonl` at once.

A resumed run generates the missing samples only. Failed calls are rows too (`finish_reason="error"`, asked again with
`distil.retry_failed`), unless every recent call failed: then the stage stops, and a resumed run repeats those calls. A
streaming engine receives all questions at once and answers in any order; the file is sorted by question at the end, so
that it is deterministic.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from finr1.answer.tags import parse, split_thinking
from finr1.core.errors import DataError
from finr1.core.files import digest
from finr1.core.jsonl import JsonlWriter, read_jsonl, sort_jsonl, write_jsonl
from finr1.core.prompt import chat, load, text_hash
from finr1.core.types import Completion, Message, Question, Trace
from finr1.parts.engine.asker import Asker
from finr1.parts.engine.base import PolicyEngine, Request, StreamEngine
from finr1.settings.sampling import Sampling

if TYPE_CHECKING:
    from pathlib import Path

    from finr1.run.context import Context


class Ask(NamedTuple):
    """A question and the numbers of its missing samples."""

    question: Question
    samples: tuple[int, ...]


class Tally:
    """Counts over rows of traces."""

    def __init__(self) -> None:
        self.samples: dict[str, set[int]] = defaultdict(set)  # sample numbers by question
        self.traces = self.failed = self.truncated = self.tokens = 0
        self.error = ""  # of the first failed call

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one row."""
        trace = Trace.from_json(row)
        self.samples[trace.question_id].add(trace.sample)
        self.traces += 1
        self.failed += trace.finish_reason == "error"
        self.error = self.error or trace.error
        self.truncated += trace.finish_reason == "length"
        self.tokens += trace.n_tokens


def tally_of(path: Path, known: Container[str]) -> Tally:
    """Count the rows of an earlier attempt; DataError for a row whose question is not `known`."""
    tally = Tally()
    for number, row in enumerate(read_jsonl(path, Trace.needed()) if path.exists() else (), 1):
        if row["question_id"] not in known:
            why = f"line {number} has an unknown question {row['question_id']}"
            raise DataError(path, why, "delete that line, or start a new run with name=<other>")
        tally.add(row)
    return tally


def run(ctx: Context) -> dict[str, Any]:
    """Write `traces.jsonl`; returns the counts. Finr1Error if all recent calls failed, or at the spend ceiling."""
    cfg, path = ctx.cfg.distil, ctx.folder / "traces.jsonl"
    questions = list(ctx.questions().values())
    position = {question.id: number for number, question in enumerate(questions)}
    if cfg.retry_failed and path.exists():
        write_jsonl(path, (row for row in read_jsonl(path, Trace.needed()) if row.get("finish_reason") != "error"))
    before = tally_of(path, position)
    asks = missing(questions, before.samples, cfg.sampling.n)
    if asks:
        _generate(ctx, asks, path, len(questions), worked=before.traces > before.failed)
    tally = Tally()

    def in_order(row: dict[str, Any]) -> tuple[int, int]:
        tally.add(row)
        return position[row["question_id"]], row["sample"]

    sort_jsonl(path, in_order)
    ctx.tracker.log("distil", {"traces": tally.traces}, step=0)
    if tally.failed:
        ctx.note(
            f"{tally.failed:,} of {tally.traces:,} answers failed, the first with `{tally.error}`; "
            "the same command with distil.retry_failed=true asks for them again"
        )
    return {
        "traces": tally.traces,
        "failed": tally.failed,
        "truncated": tally.truncated,
        "tokens": tally.tokens,
        "questions": len(tally.samples),
        **ctx.ledger("teacher").account.counts,
    }


def _generate(ctx: Context, asks: Sequence[Ask], path: Path, total: int, worked: bool) -> None:
    """Generate the missing samples, each written when it arrives; `worked`: in an earlier attempt a call succeeded."""
    cfg, system = ctx.cfg.distil, ctx.cfg.prompt.teacher_system
    engine = ctx.engines.get("teacher")
    if isinstance(engine, PolicyEngine):  # the run's own model is the teacher, with its original weights
        from finr1.parts.model.folder import resolve

        engine.load_folder(resolve(ctx.cfg.model))
    asker = Asker("teacher", engine, ctx.ledger("teacher"), cfg.stop_after_failed_calls, cfg.chunk, worked)
    by_count: dict[int, list[Ask]] = defaultdict(list)  # a killed run may lack some samples of one question
    for ask in asks:
        by_count[len(ask.samples)].append(ask)
    prompt_hash: dict[str, str] = {}  # of the questions in flight
    tokens, began = 0, monotonic()

    def request(ask: Ask) -> Request:
        messages = messages_of(ask.question, system, cfg.boxed)
        prompt_hash[ask.question.id] = digest([text_hash(system), messages])
        return Request(messages, ask.question)

    with JsonlWriter(path) as writer, ctx.progress("questions", total, total - len(asks)) as bar:

        def keep(batch: Sequence[Ask], index: int, completions: Sequence[Completion]) -> None:
            nonlocal tokens
            ask = batch[index]
            hashed = prompt_hash.pop(ask.question.id)
            traces = [
                to_trace(ask.question, sample, completion, engine.name, cfg.sampling, hashed)
                for sample, completion in zip(ask.samples, completions, strict=True)
            ]
            writer.write(*(trace.to_json() for trace in traces))
            tokens += sum(trace.n_tokens for trace in traces)
            money = engine.money if isinstance(engine, StreamEngine) else 0.0
            text = f"{tokens} tokens, {tokens / max(monotonic() - began, 1e-9):.0f}/s"
            bar.advance(text=f"{text}, cost {money:.2f}" if money else text)

        for count, batch in sorted(by_count.items(), reverse=True):
            asker.ask(map(request, batch), replace(cfg.sampling, n=count), partial(keep, batch))
        asker.finish()


def missing(questions: Sequence[Question], done: Mapping[str, Collection[int]], n: int) -> list[Ask]:
    """Return the missing samples in the order of the questions; `done`: existing sample numbers by question."""
    asks = (Ask(question, tuple(i for i in range(n) if i not in done.get(question.id, ()))) for question in questions)
    return [ask for ask in asks if ask.samples]


def messages_of(question: Question, system: str | None, boxed: bool) -> list[Message]:
    """Return the teacher's chat; `boxed` adds Fin-R1's instruction to a question that does not mention `\\boxed`."""
    messages = chat(question, system)
    if boxed and "\\boxed" not in question.text:
        last = messages[-1]
        instruction = load(f"boxed_{question.language}.v1")
        messages[-1] = Message(role=last["role"], content=f"{last['content']}\n{instruction}")
    return messages


def split_text(completion: Completion) -> tuple[str, str]:
    """Split a teacher's completion into its reasoning and its final answer.

    Handles reasoning in a separate field or twice, this run's tags, a missing opening tag (DeepSeek-R1's template
    writes it into the prompt), and unfinished reasoning (no answer). A text without tags is an answer.
    """
    reasoning, reply = split_thinking(completion.text, completion.reasoning)
    answer = parse(reply).answer
    return reasoning, (reply if answer is None else answer).strip()


def to_trace(
    question: Question, sample: int, completion: Completion, teacher: str, sampling: Sampling, prompt_hash: str
) -> Trace:
    """Return the row of a completion; `n_tokens` counts the engine's ids, or is the server's `meta.n_tokens`."""
    reasoning, answer = ("", "") if completion.finish_reason == "error" else split_text(completion)
    meta: Mapping[str, Any] = completion.meta
    return Trace(
        question_id=question.id,
        sample=sample,
        teacher=teacher,
        reasoning=reasoning,
        answer=answer,
        text=completion.text,
        finish_reason=completion.finish_reason,
        n_tokens=len(completion.token_ids) or int(meta.get("n_tokens", 0)),
        sampling=asdict(sampling),
        prompt_hash=prompt_hash,
        error=completion.error,
        meta=dict(meta),
    )
