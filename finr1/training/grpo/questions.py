"""Which questions GRPO trains on: candidates, their pass rate, the plan over steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from finr1.answer.grade import grade
from finr1.answer.tags import parse
from finr1.core.errors import DataError
from finr1.core.files import digest
from finr1.core.jsonl import JsonlWriter, check_known, take_rows, write_jsonl
from finr1.core.prompt import chat
from finr1.core.types import Completion, Question
from finr1.parts.engine.base import PolicyEngine, Request
from finr1.run.context import Context

PASS_RATES = "pass_rates.jsonl"
SELECT_BATCH = 512  # questions asked together for their pass rates; a killed run repeats at most so many


def _candidates(ctx: Context) -> list[Question]:
    """The RL questions that the filter left."""
    questions = ctx.questions()
    path = ctx.inputs["filter"] / "rl.jsonl"
    ids = [row["question_id"] for row in take_rows(path, ["question_id"])]
    if not ids:
        raise DataError(path, "no question for GRPO: every one has a good trace", "ask more questions")
    check_known(path, ids, questions)
    return [questions[question_id] for question_id in ids]


def _select(ctx: Context, candidates: Sequence[Question], engine: PolicyEngine) -> list[Question]:
    """Keep questions whose pass rate under the starting policy lies in the band; every rate is kept on disk.

    The ranks divide each batch that is not on disk yet; the first one writes what all have measured.
    """
    settings = ctx.cfg.grpo.select
    candidates = candidates[: settings.max_candidates]
    if settings.samples == 0:
        write_jsonl(ctx.folder / "questions.jsonl", [{"question_id": q.id, "pass_rate": None} for q in candidates])
        return list(candidates)
    path = ctx.folder / PASS_RATES
    before = take_rows(path, ["question_id", "pass_rate"]) if path.exists() else []
    rates = {row["question_id"]: row["pass_rate"] for row in ctx.ranks.broadcast(before)}
    batches = [candidates[i : i + SELECT_BATCH] for i in range(0, len(candidates), SELECT_BATCH)]
    # Whole batches only: what a batch gives depends on who is in it, and a resumed run must choose the same questions.
    todo = [batch for batch in batches if any(q.id not in rates for q in batch)]
    sampling = replace(ctx.cfg.grpo.sampling, n=settings.samples)
    known = len(candidates) - sum(map(len, todo))
    with JsonlWriter(path) as writer, ctx.progress("pass rates", len(candidates), known) as bar:
        for batch in todo:
            own = ctx.ranks.shard(batch)
            requests = [Request(chat(q, ctx.cfg.prompt.system), q) for q in own]
            answers = engine.generate(requests, sampling, lambda *_: bar.advance())
            found = ctx.ranks.unshard([pass_rate(q, completions) for q, completions in zip(own, answers, strict=True)])
            rows = [{"question_id": q.id, "pass_rate": rate} for q, rate in zip(batch, found, strict=True)]
            writer.write(*rows)
            rates |= {row["question_id"]: row["pass_rate"] for row in rows}
    chosen = [q for q in candidates if rates[q.id] is not None and settings.low <= rates[q.id] <= settings.high]
    if not chosen:
        raise DataError(
            path,
            f"none of {len(candidates)} questions has a pass rate in [{settings.low}, {settings.high}]",
            "widen grpo.select.low and grpo.select.high, or set grpo.select.samples=0",
        )
    ctx.note(f"{len(chosen)} of {len(candidates)} questions have a pass rate in [{settings.low}, {settings.high}]")
    write_jsonl(ctx.folder / "questions.jsonl", [{"question_id": q.id, "pass_rate": rates[q.id]} for q in chosen])
    return chosen


def pass_rate(question: Question, completions: Sequence[Completion]) -> float | None:
    """Share of strictly right answers among the decided ones; None where nothing is decided."""
    verdicts = [grade(parse(c.text).answer, question).strict.value for c in completions if c.finish_reason != "error"]
    decided = [value for value in verdicts if value is not None]
    return sum(decided) / len(decided) if decided else None


def make_plan(questions: Sequence[Question], steps: int, per_step: int, seed: int) -> list[list[Question]]:
    """For each step its questions: seeded passes over all of them, one after the other."""
    from finr1.training.loop.schedule import shuffled

    epochs = -(-steps * per_step // len(questions))
    order = [i for epoch in shuffled(len(questions), epochs, seed + 2) for i in epoch]
    return [[questions[i] for i in order[s * per_step : (s + 1) * per_step]] for s in range(steps)]


def spare_questions(questions: Sequence[Question], planned: Sequence[Question], step: int, seed: int) -> list[Question]:
    """Every question that the step's plan lacks, in an order of the step's own: what dynamic sampling asks next.

    It depends on the step alone, never on what earlier steps used up: a killed run that resumes at a step asks it the
    same questions, and the plan of the steps after it stays as it is.
    """
    import torch

    generator = torch.Generator().manual_seed(int(digest([seed, "spare", step]), 16) % 2**63)
    taken = {question.id for question in planned}
    order = torch.randperm(len(questions), generator=generator).tolist()
    return [questions[i] for i in order if questions[i].id not in taken]
