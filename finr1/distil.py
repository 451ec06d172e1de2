"""Stage `distil`: ask the teacher, keep every answer in `2_traces/traces.jsonl` as soon as it is there.

A killed run goes on at the first question that lacks an answer; nothing on disk is asked again. Failed calls are rows
too (`finish_reason="error"`), except where the teacher gives nothing but errors: then the stage stops, and those calls
are made again when it is resumed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from finr1.answer import parse
from finr1.engine.base import Engine, PolicyEngine, Request, Sampling
from finr1.errors import ConfigError, Finr1Error
from finr1.prompt import chat, text_hash
from finr1.store import JsonlWriter, digest, take_rows
from finr1.types import Completion, Question, Trace

if TYPE_CHECKING:
    from finr1.context import Bar, Context


@dataclass
class DistilSettings:
    """How the teacher is asked."""

    sampling: Sampling = field(default_factory=lambda: Sampling(n=1, temperature=0.6, max_new_tokens=512))
    chunk: int = 64  # questions handed to the engine at once
    stop_after_failed_chunks: int = 2  # stop when this many chunks in a row gave only errors; 0: never

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise ConfigError("distil.chunk", self.chunk, "nothing would be asked", "use 1 or more")


class Ask(NamedTuple):
    """A question and the numbers of the samples still wanted from it."""

    question: Question
    samples: tuple[int, ...]


def run(ctx: Context) -> dict[str, Any]:
    """Write `traces.jsonl`; returns the counts. Finr1Error when the teacher gives only errors."""
    cfg, path = ctx.cfg.distil, ctx.folder / "traces.jsonl"
    questions = list(ctx.questions().values())
    before = [Trace.from_json(row) for row in take_rows(path, Trace.needed())] if path.exists() else []
    asks = missing(questions, before, cfg.sampling.n)
    with JsonlWriter(path) as writer, ctx.progress("questions", len(questions), len(questions) - len(asks)) as bar:
        if asks:
            engine = ctx.engines.get("teacher")
            if isinstance(engine, PolicyEngine):  # the run's own model is the teacher: its weights as they came
                from finr1.model.load import resolve

                engine.load_folder(resolve(ctx.cfg.model))
            _Asker(ctx, engine, writer, bar, any_before=any(t.finish_reason != "error" for t in before)).ask(asks)
    traces = [Trace.from_json(row) for row in take_rows(path, Trace.needed())]
    ctx.tracker.log("distil", {"traces": len(traces)}, step=0)
    return {
        "traces": len(traces),
        "failed": sum(trace.finish_reason == "error" for trace in traces),
        "truncated": sum(trace.finish_reason == "length" for trace in traces),
        "tokens": sum(trace.n_tokens for trace in traces),
        "questions": len({trace.question_id for trace in traces}),
    }


def missing(questions: Sequence[Question], traces: Sequence[Trace], n: int) -> list[Ask]:
    """What is still to be asked, in the order of the questions."""
    have: dict[str, set[int]] = defaultdict(set)
    for trace in traces:
        have[trace.question_id].add(trace.sample)
    asks = (Ask(question, tuple(i for i in range(n) if i not in have[question.id])) for question in questions)
    return [ask for ask in asks if ask.samples]


def split_text(completion: Completion) -> tuple[str, str]:
    """The reasoning and the final answer of a teacher's completion.

    Handles a teacher that returns its reasoning apart, the run's own tags, a text that lacks the opening tag
    (DeepSeek-R1's template writes it), and one that never left its reasoning (no answer). A text without any tag is
    an answer.
    """
    if completion.reasoning is not None:
        answer = parse(completion.text).answer
        return completion.reasoning.strip(), (completion.text if answer is None else answer).strip()
    head, closed, rest = completion.text.partition("</think>")
    if closed:
        answer = parse(rest).answer
        return head.strip().removeprefix("<think>").strip(), (rest if answer is None else answer).strip()
    if "<think>" in head:
        return head.strip().removeprefix("<think>").strip(), ""
    answer = parse(head).answer
    return "", (head if answer is None else answer).strip()


class _Asker:
    """Hands the asks to the engine, chunk by chunk, and the answers to the file."""

    def __init__(self, ctx: Context, engine: Engine, writer: JsonlWriter, bar: Bar, any_before: bool) -> None:
        self.ctx, self.engine, self.writer, self.bar = ctx, engine, writer, bar
        self.system = ctx.cfg.prompt.teacher_system
        self.lock = Lock()  # an engine may report from its own threads
        self.any_good = any_before
        self.failed: list[dict[str, Any]] = []  # rows of failed calls, held back until some call has worked
        self.failed_chunks = self.tokens = 0
        self.began = monotonic()

    def ask(self, asks: Sequence[Ask]) -> None:
        """Ask all; every question's traces are on disk before the next chunk is begun."""
        settings = self.ctx.cfg.distil
        by_count: dict[int, list[Ask]] = defaultdict(list)  # a killed run may lack some samples of one question
        for ask in asks:
            by_count[len(ask.samples)].append(ask)
        for count, same in sorted(by_count.items(), reverse=True):
            for start in range(0, len(same), settings.chunk):
                worked = self._chunk(same[start : start + settings.chunk], replace(settings.sampling, n=count))
                self.failed_chunks = 0 if worked else self.failed_chunks + 1
                if 0 < settings.stop_after_failed_chunks <= self.failed_chunks:
                    self._stop()
        if not self.any_good:
            self._stop()
        self.writer.write(*self.failed)

    def _chunk(self, asks: Sequence[Ask], sampling: Sampling) -> bool:
        """Ask one chunk; returns whether any call of it worked."""
        requests = [Request(chat(ask.question, self.system), ask.question) for ask in asks]
        seen: set[int] = set()
        good_before = self.any_good
        self.any_good = False

        def on_done(index: int, completions: Sequence[Completion]) -> None:
            with self.lock:
                if index not in seen:
                    seen.add(index)
                    self._keep(asks[index], requests[index], completions, sampling)

        for index, completions in enumerate(self.engine.generate(requests, sampling, on_done)):
            on_done(index, completions)
        worked, self.any_good = self.any_good, self.any_good or good_before
        if worked and self.failed:
            self.writer.write(*self.failed)
            self.failed.clear()
        return worked

    def _keep(self, ask: Ask, request: Request, completions: Sequence[Completion], sampling: Sampling) -> None:
        if len(completions) != len(ask.samples):
            raise RuntimeError(f"{self.engine.name} gave {len(completions)} completions, not {len(ask.samples)}")
        prompt_hash = digest([text_hash(self.system), list(request.messages)])
        rows: list[dict[str, Any]] = []
        for sample, completion in zip(ask.samples, completions, strict=True):
            trace = to_trace(ask.question, sample, completion, self.engine.name, sampling, prompt_hash)
            self.tokens += trace.n_tokens
            if trace.finish_reason == "error":
                self.failed.append(trace.to_json())
            else:
                rows.append(trace.to_json())
        if rows:
            self.any_good = True
            self.writer.write(*rows)
        self.bar.advance(text=f"{self.tokens} tokens, {self.tokens / max(monotonic() - self.began, 1e-9):.0f}/s")

    def _stop(self) -> None:
        first = self.failed[0]["error"] if self.failed else "no completion"
        raise Finr1Error(
            f"engine.teacher={self.engine.name}: the last {len(self.failed)} calls all failed, the first with "
            f"`{first}`; mend the teacher and start again: it goes on with those calls"
        )


def to_trace(
    question: Question, sample: int, completion: Completion, teacher: str, sampling: Sampling, prompt_hash: str
) -> Trace:
    """The row of one completion. Tokens: the engine's ids, or what a server reported (`meta.n_tokens`)."""
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
