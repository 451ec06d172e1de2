"""The questions GRPO trains on: candidates, selection by pass rate, the plan of the steps."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedTokenizerBase

from finr1.core.errors import DataError
from finr1.core.files import digest
from finr1.core.jsonl import JsonlWriter, check_known, read_jsonl, write_jsonl
from finr1.core.prompt import chat
from finr1.core.types import Completion, Question
from finr1.parts.engine.base import PolicyEngine, Request
from finr1.parts.model.tokens import prompt_ids
from finr1.parts.reward.base import RewardItem, verdict_by_rules
from finr1.run.context import Context
from finr1.training.loop.schedule import shuffled

PASS_RATES = "pass_rates.jsonl"
SELECT_BATCH = 512  # questions sampled together; a killed run repeats at most this many


def load_candidates(ctx: Context) -> list[Question]:
    """Load the RL questions that the filter wrote; DataError if there are none or a row is corrupt."""
    questions = ctx.questions()
    path = ctx.inputs["filter"] / "rl.jsonl"
    ids = [row["question_id"] for row in read_jsonl(path, ["question_id"])]
    if not ids:
        raise DataError(path, "no question for GRPO: every one has a good trace", "add questions to source=[...]")
    check_known(path, ids, questions)
    return [questions[question_id] for question_id in ids]


def drop_too_long(
    ctx: Context, questions: Sequence[Question], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[Question], int]:
    """Drop questions whose prompt leaves no room for an answer; also returns how many. DataError if none is left."""
    room, system = ctx.cfg.model.max_model_len, ctx.cfg.prompt.system
    fitting = [question for question in questions if len(prompt_ids(tokenizer, chat(question, system))) < room]
    dropped = len(questions) - len(fitting)
    if not fitting:
        why = f"all {dropped} prompts are as long as model.max_model_len={room}"
        raise DataError(ctx.inputs["filter"] / "rl.jsonl", why, "raise model.max_model_len")
    if dropped:
        ctx.note(f"{dropped} questions with prompts as long as model.max_model_len={room} were dropped")
    return fitting, dropped


def select_questions(ctx: Context, candidates: Sequence[Question], engine: PolicyEngine) -> list[Question]:
    """Keep questions whose pass rate under the initial policy is in [low, high]; DataError if none is.

    Writes every pass rate to disk, batch by batch, so that a killed run measures only the rest. Ranks split a batch.
    """
    settings = ctx.cfg.grpo.select
    candidates = candidates[: settings.max_candidates]
    if settings.samples == 0:
        write_jsonl(ctx.folder / "questions.jsonl", [{"question_id": q.id, "pass_rate": None} for q in candidates])
        return list(candidates)
    path = ctx.folder / PASS_RATES
    on_disk = list(read_jsonl(path, ["question_id", "pass_rate"])) if path.exists() else []
    rates = {row["question_id"]: row["pass_rate"] for row in ctx.ranks.broadcast(on_disk)}
    batches = [candidates[i : i + SELECT_BATCH] for i in range(0, len(candidates), SELECT_BATCH)]
    # Whole batches only: completions depend on the batch they are in, and a resumed run must select the same questions.
    todo = [batch for batch in batches if any(q.id not in rates for q in batch)]
    sampling = replace(ctx.cfg.grpo.sampling, n=settings.samples)
    n_done = len(candidates) - sum(map(len, todo))
    with JsonlWriter(path) as writer, ctx.progress("pass rates", len(candidates), n_done) as bar:
        for batch in todo:
            own = ctx.ranks.shard(batch)
            requests = [Request(chat(q, ctx.cfg.prompt.system), q) for q in own]
            answers = engine.generate(requests, sampling, lambda *_: bar.advance())
            measured = ctx.ranks.unshard(
                [pass_rate(q, cs, ctx.cfg.grpo.reading) for q, cs in zip(own, answers, strict=True)]
            )
            rows = [{"question_id": q.id, "pass_rate": rate} for q, rate in zip(batch, measured, strict=True)]
            writer.write(*rows)
            rates |= {row["question_id"]: row["pass_rate"] for row in rows}
    chosen = [q for q in candidates if rates[q.id] is not None and settings.low <= rates[q.id] <= settings.high]
    if not chosen:
        why = f"none of {len(candidates)} questions has a pass rate in [{settings.low}, {settings.high}]"
        raise DataError(path, why, "widen grpo.select.low and grpo.select.high, or set grpo.select.samples=0")
    ctx.note(f"{len(chosen)} of {len(candidates)} questions have a pass rate in [{settings.low}, {settings.high}]")
    write_jsonl(ctx.folder / "questions.jsonl", [{"question_id": q.id, "pass_rate": rates[q.id]} for q in chosen])
    return chosen


def pass_rate(question: Question, completions: Sequence[Completion], reading: str) -> float | None:
    """Strict accuracy of the decided completions; None if none is decided."""
    verdicts = [
        verdict_by_rules(RewardItem(question, c.text, c.finish_reason == "length", reading)).value
        for c in completions
        if c.finish_reason != "error"
    ]
    decided = [value for value in verdicts if value is not None]
    return sum(decided) / len(decided) if decided else None


@dataclass(frozen=True)
class Plan:
    """The questions of every step, and further ones for dynamic sampling."""

    steps: Sequence[Sequence[Question]]
    questions: Sequence[Question]  # all selected ones
    seed: int

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, step: int) -> Sequence[Question]:
        return self.steps[step]

    def spare(self, step: int) -> list[Question]:
        """All questions that are not planned for this step, in an order that depends on seed and step alone.

        So a resumed run samples the same refills, and refills never change the plan of later steps.
        """
        generator = torch.Generator().manual_seed(int(digest([self.seed, "spare", step]), 16) % 2**63)
        planned = {question.id for question in self[step]}
        order = torch.randperm(len(self.questions), generator=generator).tolist()
        return [self.questions[i] for i in order if self.questions[i].id not in planned]


def make_plan(questions: Sequence[Question], steps: int, per_step: int, seed: int) -> Plan:
    """Assign questions to steps: seeded shuffles of all questions, one epoch after the other."""
    epochs = -(-steps * per_step // len(questions))
    order = [i for epoch in shuffled(len(questions), epochs, seed + 2) for i in epoch]
    planned = [[questions[i] for i in order[s * per_step : (s + 1) * per_step]] for s in range(steps)]
    return Plan(planned, questions, seed)
