"""Stage `distil`: generate traces with the teacher, each written to `2_traces/traces.jsonl` at once.

A resumed run generates the missing samples only. Failed calls are rows too (`finish_reason="error"`), unless every
recent call failed: then the stage stops, and a resumed run repeats those calls. A streaming engine receives all
questions at once and answers in any order; the file is sorted by question at the end, so that it is deterministic.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import asdict, replace
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from finr1.answer.tags import parse, split_thinking
from finr1.core.errors import DataError, Finr1Error
from finr1.core.files import digest
from finr1.core.jsonl import JsonlWriter, read_jsonl, sort_jsonl
from finr1.core.prompt import chat, load, text_hash
from finr1.core.types import Completion, Message, Question, Trace
from finr1.parts.engine.base import Engine, PolicyEngine, Request, StreamEngine
from finr1.settings.sampling import Sampling

if TYPE_CHECKING:
    from pathlib import Path

    from finr1.run.context import Context
    from finr1.run.progress import Bar


class Ask(NamedTuple):
    """A question and the numbers of its missing samples."""

    question: Question
    samples: tuple[int, ...]


class Tally:
    """Counts over rows of traces."""

    def __init__(self) -> None:
        self.samples: dict[str, set[int]] = defaultdict(set)  # sample numbers by question
        self.traces = self.failed = self.truncated = self.tokens = 0
        self.paid = (0, 0)  # prompt and completion tokens charged by a server

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one row."""
        trace = Trace.from_json(row)
        self.samples[trace.question_id].add(trace.sample)
        self.traces += 1
        self.failed += trace.finish_reason == "error"
        self.truncated += trace.finish_reason == "length"
        self.tokens += trace.n_tokens
        prompt, completion = trace.meta.get("paid", (0, 0))
        self.paid = (self.paid[0] + prompt, self.paid[1] + completion)


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
    before = tally_of(path, position)
    asks = missing(questions, before.samples, cfg.sampling.n)
    with JsonlWriter(path) as writer, ctx.progress("questions", len(questions), len(questions) - len(asks)) as bar:
        if asks:
            engine = ctx.engines.get("teacher")
            if isinstance(engine, PolicyEngine):  # the run's own model is the teacher, with its original weights
                from finr1.parts.model.folder import resolve

                engine.load_folder(resolve(ctx.cfg.model))
            if isinstance(engine, StreamEngine):
                engine.spent.prompt_tokens += before.paid[0]
                engine.spent.completion_tokens += before.paid[1]
            _Generation(ctx, engine, writer, bar, any_before=before.traces > before.failed).run(asks)
    tally = Tally()

    def in_order(row: dict[str, Any]) -> tuple[int, int]:
        tally.add(row)
        return position[row["question_id"]], row["sample"]

    sort_jsonl(path, in_order)
    ctx.tracker.log("distil", {"traces": tally.traces}, step=0)
    paid = {"paid_prompt_tokens": tally.paid[0], "paid_completion_tokens": tally.paid[1]} if any(tally.paid) else {}
    return {
        "traces": tally.traces,
        "failed": tally.failed,
        "truncated": tally.truncated,
        "tokens": tally.tokens,
        "questions": len(tally.samples),
        **paid,
    }


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


class _Generation:
    """Sends requests to the engine and writes its completions to the file."""

    def __init__(self, ctx: Context, engine: Engine, writer: JsonlWriter, bar: Bar, any_before: bool) -> None:
        self.ctx, self.engine, self.writer, self.bar = ctx, engine, writer, bar
        self.settings, self.system = ctx.cfg.distil, ctx.cfg.prompt.teacher_system
        self.lock = Lock()  # an engine may report from its own threads
        self.any_succeeded = any_before
        self.failed: list[dict[str, Any]] = []  # rows of failed calls, not written until a call succeeds
        self.failed_questions = 0  # consecutive
        self.tokens = 0
        self.began = monotonic()
        self.prompt_hash: dict[str, str] = {}  # of the questions in flight

    def run(self, asks: Sequence[Ask]) -> None:
        """Generate all missing samples, each written when it arrives."""
        by_count: dict[int, list[Ask]] = defaultdict(list)  # a killed run may lack some samples of one question
        for ask in asks:
            by_count[len(ask.samples)].append(ask)
        for count, batch in sorted(by_count.items(), reverse=True):
            sampling = replace(self.settings.sampling, n=count)
            if isinstance(self.engine, StreamEngine):
                self._stream(self.engine, batch, sampling)
                continue
            for start in range(0, len(batch), self.settings.chunk):
                self._chunk(batch[start : start + self.settings.chunk], sampling)
                self._stop_if_dead()
        if not self.any_succeeded:
            self._stop()
        self.writer.write(*self.failed)

    def _stream(self, engine: StreamEngine, asks: Sequence[Ask], sampling: Sampling) -> None:
        def on_done(index: int, completions: Sequence[Completion]) -> None:
            with self.lock:
                self._record(asks[index], completions)
                self._stop_if_dead()

        engine.stream(map(self._request, asks), sampling, on_done)

    def _chunk(self, asks: Sequence[Ask], sampling: Sampling) -> None:
        seen: set[int] = set()

        def on_done(index: int, completions: Sequence[Completion]) -> None:
            with self.lock:
                if index not in seen:
                    seen.add(index)
                    self._record(asks[index], completions)

        requests = [self._request(ask) for ask in asks]
        for index, completions in enumerate(self.engine.generate(requests, sampling, on_done)):
            on_done(index, completions)

    def _request(self, ask: Ask) -> Request:
        messages = messages_of(ask.question, self.system, self.settings.boxed)
        self.prompt_hash[ask.question.id] = digest([text_hash(self.system), messages])
        return Request(messages, ask.question)

    def _record(self, ask: Ask, completions: Sequence[Completion]) -> None:
        if len(completions) != len(ask.samples):
            raise RuntimeError(f"{self.engine.name}: {len(completions)} completions for {len(ask.samples)} samples")
        prompt_hash = self.prompt_hash.pop(ask.question.id)
        rows: list[dict[str, Any]] = []
        succeeded = False
        for sample, completion in zip(ask.samples, completions, strict=True):
            trace = to_trace(ask.question, sample, completion, self.engine.name, self.settings.sampling, prompt_hash)
            self.tokens += trace.n_tokens
            succeeded = succeeded or trace.finish_reason != "error"
            rows.append(trace.to_json())
        if succeeded:
            self.writer.write(*self.failed, *rows)
            self.failed.clear()
            self.failed_questions, self.any_succeeded = 0, True
        else:
            self.failed += rows
            self.failed_questions += 1
        self.bar.advance(text=self._progress())

    def _progress(self) -> str:
        text = f"{self.tokens} tokens, {self.tokens / max(monotonic() - self.began, 1e-9):.0f}/s"
        money = self.engine.spent.money() if isinstance(self.engine, StreamEngine) else 0.0
        return f"{text}, cost {money:.2f}" if money else text

    def _stop_if_dead(self) -> None:
        if 0 < self.settings.stop_after_failed_chunks * self.settings.chunk <= self.failed_questions:
            self._stop()

    def _stop(self) -> None:
        first = self.failed[0]["error"] if self.failed else "no completion"
        raise Finr1Error(
            f"engine.teacher={self.engine.name}: the last {len(self.failed)} calls all failed, the first with "
            f"`{first}`; fix the teacher and start again: those calls are repeated"
        )


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
