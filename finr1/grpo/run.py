"""Stage `grpo`: reinforcement on the questions that no good trace answers, chosen by the policy's own pass rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finr1.answer import grade, parse
from finr1.context import Context, build
from finr1.engine.base import PolicyEngine, Request
from finr1.errors import DataError
from finr1.prompt import chat
from finr1.store import JsonlWriter, check_known, digest, take_rows, write_jsonl
from finr1.types import Completion, Question

if TYPE_CHECKING:
    from finr1.data.checkpoints import Checkpoints
    from finr1.grpo.canary import Canary
    from finr1.grpo.module import GrpoModule

PASS_RATES = "pass_rates.jsonl"
SELECT_BATCH = 512  # questions asked together for their pass rates; a killed run repeats at most so many


def run(ctx: Context) -> dict[str, Any]:
    """Choose questions, walk the steps, leave `questions.jsonl`, `samples.jsonl` and `model/`."""
    from finr1.data.attention import register
    from finr1.data.checkpoints import Checkpoints, seed_random
    from finr1.data.loop import fit
    from finr1.grpo.module import GrpoModule
    from finr1.grpo.preflight import preflight
    from finr1.grpo.reference import Reference
    from finr1.grpo.rollout import Sampler
    from finr1.grpo.task import Task, hold_out
    from finr1.grpo.workers import guarded
    from finr1.model.load import export, load_tokenizer, load_trainable

    cfg = ctx.cfg
    start = _start(ctx)
    held_out, candidates = hold_out(_candidates(ctx), cfg.grpo, cfg.seed)
    tokenizer = load_tokenizer(start, cfg.model.trust_remote_code)
    with guarded(ctx.parts(cfg.reward), cfg.grpo.workers) as rewards:
        limit, n = cfg.grpo.sampling.max_new_tokens, cfg.grpo.preflight_questions
        if ctx.ranks.first and n and not preflight(candidates, rewards, tokenizer, cfg.prompt.system, limit, n):
            ctx.note("no question has a gold answer that the rewards could be tried on before the first step")
        engine = ctx.engines.policy()
        engine.load_folder(start)
        chosen = _select(ctx, candidates, engine)
        plan = make_plan(chosen, cfg.grpo.steps, cfg.grpo.questions_per_step, cfg.seed)
        seed_random(cfg.seed)  # adapters begin at random
        load = partial(load_trainable, start, cfg.model, register(cfg.model.attention))
        model = load()
        rule = replace(cfg.checkpoint, keep_best=cfg.checkpoint.keep_best or cfg.grpo.export_step == "best")
        kept = Checkpoints(ctx.folder, rule, ctx.note)
        sampling = replace(cfg.grpo.sampling, n=cfg.grpo.group_size)
        sampler = Sampler(engine, sampling, cfg.prompt.system, cfg.model.dtype)
        with ctx.progress("steps", cfg.grpo.steps) as bar:
            module = GrpoModule(
                model,
                build(cfg.trainer["optimizer"]),
                cfg.grpo,
                plan,
                sampler,
                rewards,
                ctx.folder,
                ctx.tracker,
                bar,
                Reference(load) if cfg.grpo.beta > 0 else None,
                lambda step: spare_questions(chosen, plan[step], step, cfg.seed),
                cfg.seed,
                _canary(ctx, chosen[0], tokenizer, engine),
                Task(held_out, sampler, cfg.grpo, ctx.folder, ctx.note, ctx.ranks),
                ctx.ranks,
            )
            fit(module, cfg.grpo.steps, kept, cfg.trainer["fit"], cfg.grpo.checkpoint_every_steps, cfg.seed)
    exported = choose(module, kept, cfg.grpo.export_step, ctx.note)
    export(model, tokenizer, ctx.folder / "model", cfg.model, ctx.ranks)
    if not ctx.ranks.first:
        return {}
    kept.clear()
    module.pending.clear()
    counts = {"candidates": len(candidates), "selected": len(chosen), "steps": cfg.grpo.steps}
    if held_out:
        counts |= {"held_out": len(held_out), "exported_step": exported}
    return {**counts, **ctx.count_judge()}


def choose(module: GrpoModule, kept: Checkpoints, which: str, say: Callable[[str], None]) -> int:
    """Put the weights to export into the module's model: the last, or the best's; returns their steps done.

    Every rank calls this; the checkpoints are the first one's.
    """
    import torch

    from finr1.data.checkpoints import fault_of

    best, last = module.best_steps, module.steps_done
    if which == "last" or best is None or best == last:
        return last
    path, fault = kept.path(best), None
    if module.ranks.first:
        fault = fault_of(path) if path.exists() else "checkpoint.disk_gib had no room for it"
    path, fault = module.ranks.of_first((path, fault))
    if fault:
        say(f"the weights of step {best}, the best, are not there ({fault}): those of step {last} are exported")
        return last
    module.load_weights(torch.load(path, mmap=True, weights_only=True)["state_dict"])
    return best


def _start(ctx: Context) -> Path:
    """The model folder that GRPO starts from."""
    from finr1.model.load import from_hub

    name = ctx.cfg.grpo.init_from
    if name is None:
        return ctx.inputs["sft"] / "model"
    folder = Path(name)
    if (folder / "4_sft" / "model").is_dir():  # a run folder
        return folder / "4_sft" / "model"
    return folder if folder.is_dir() else from_hub("grpo.init_from", name)


def _candidates(ctx: Context) -> list[Question]:
    """The RL questions that the filter left."""
    questions = ctx.questions()
    path = ctx.inputs["filter"] / "rl.jsonl"
    ids = [row["question_id"] for row in take_rows(path, ["question_id"])]
    if not ids:
        raise DataError(path, "no question for GRPO: every one has a good trace", "ask more questions")
    check_known(path, ids, questions)
    return [questions[question_id] for question_id in ids]


def _canary(ctx: Context, question: Question, tokenizer: Any, engine: PolicyEngine) -> Canary | None:
    """The end of a question's prompt with its gold completion, or with none where it has no gold."""
    from finr1.grpo.canary import Canary
    from finr1.grpo.preflight import render_gold
    from finr1.model.load import prompt_ids

    n = ctx.cfg.grpo.canary_tokens
    if n == 0:
        return None
    ids = prompt_ids(tokenizer, chat(question, ctx.cfg.prompt.system))
    ids += render_gold(question, tokenizer, ctx.cfg.prompt.system).token_ids if question.gold else []
    return Canary(engine, ids[-n:], ctx.cfg.grpo.canary_bound)


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
    rates = {row["question_id"]: row["pass_rate"] for row in ctx.ranks.of_first(before)}
    batches = [candidates[i : i + SELECT_BATCH] for i in range(0, len(candidates), SELECT_BATCH)]
    # Whole batches only: what a batch gives depends on who is in it, and a resumed run must choose the same questions.
    todo = [batch for batch in batches if any(q.id not in rates for q in batch)]
    sampling = replace(ctx.cfg.grpo.sampling, n=settings.samples)
    known = len(candidates) - sum(map(len, todo))
    with JsonlWriter(path) as writer, ctx.progress("pass rates", len(candidates), known) as bar:
        for batch in todo:
            own = ctx.ranks.mine(batch)
            requests = [Request(chat(q, ctx.cfg.prompt.system), q) for q in own]
            answers = engine.generate(requests, sampling, lambda *_: bar.advance())
            found = ctx.ranks.join([pass_rate(q, completions) for q, completions in zip(own, answers, strict=True)])
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
    from finr1.data.loop import shuffled

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
