"""Stage `grpo`: GRPO on the questions without a good trace, selected by the policy's own pass rate."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from finr1.core.build import build
from finr1.core.prompt import chat
from finr1.core.types import Question
from finr1.parts.engine.base import PolicyEngine
from finr1.parts.model.folder import from_hub
from finr1.parts.model.tokens import load_tokenizer, prompt_ids
from finr1.parts.reward.workers import guarded
from finr1.run.context import Context
from finr1.training.grpo.canary import Canary
from finr1.training.grpo.held_out import HeldOutEvaluation, hold_out
from finr1.training.grpo.preflight import preflight, render_gold
from finr1.training.grpo.questions import drop_too_long, load_candidates, make_plan, select_questions
from finr1.training.grpo.record import Services
from finr1.training.grpo.reference import Reference
from finr1.training.grpo.sampler import Sampler
from finr1.training.grpo.step import GrpoModule, Inference
from finr1.training.loop.checkpoints import Checkpoints, fault_of, seed_random
from finr1.training.loop.fit import fit
from finr1.training.model.check import load_checked
from finr1.training.model.weights import export


def run(ctx: Context) -> dict[str, Any]:
    """Select questions, train, export; leaves `questions.jsonl`, `samples.jsonl` and `model/` in the stage folder."""
    cfg, settings = ctx.cfg, ctx.cfg.grpo
    start = _start(ctx)
    tokenizer = load_tokenizer(start, cfg.model.trust_remote_code)
    fitting, n_too_long = drop_too_long(ctx, load_candidates(ctx), tokenizer)
    held_out, candidates = hold_out(fitting, settings, cfg.seed)
    with guarded(ctx.parts(cfg.reward), settings.workers) as rewards:
        limit, n = settings.sampling.max_new_tokens, settings.preflight_questions
        if ctx.ranks.first and n and not preflight(candidates, rewards, tokenizer, cfg.prompt.system, limit, n):
            ctx.note("the rewards were not checked before the first step: no question has a suitable gold answer")
        engine = ctx.engines.policy()
        engine.load_folder(start)
        questions = select_questions(ctx, candidates, engine)
        plan = make_plan(questions, settings.steps, settings.questions_per_step, cfg.seed)
        seed_random(cfg.seed)  # adapters are initialised at random
        load = partial(load_checked, start, cfg.model)
        model = load(ctx.note)
        keep_best = cfg.checkpoint.keep_best or settings.export_step == "best"
        checkpoints = Checkpoints(ctx.folder, replace(cfg.checkpoint, keep_best=keep_best), ctx.note)
        sampling = replace(settings.sampling, n=settings.group_size)
        sampler = Sampler(engine, sampling, cfg.prompt.system, cfg.model.dtype)
        inference = Inference(
            sampler,
            _canary(ctx, questions[0], tokenizer, engine),
            HeldOutEvaluation(held_out, sampler, settings, ctx.folder, ctx.note, ctx.ranks),
        )
        with ctx.progress("steps", settings.steps) as bar:
            module = GrpoModule(
                model,
                build(cfg.trainer["optimizer"]),
                settings,
                plan,
                inference,
                rewards,
                Services(ctx.folder, ctx.tracker, bar, ctx.ranks, cfg.seed),
                Reference(load) if settings.loss.beta > 0 else None,
            )
            fit(module, len(plan), checkpoints, cfg.trainer["fit"], settings.checkpoint_every_steps, cfg.seed)
    exported = load_exported(module, checkpoints, settings.export_step, ctx.note)
    export(model, tokenizer, ctx.folder / "model", cfg.model, ctx.ranks)
    if not ctx.ranks.first:
        return {}
    checkpoints.clear()
    module.rollout_log.clear()
    counts = {
        "candidates": len(candidates),
        "dropped_too_long": n_too_long,
        "selected": len(questions),
        "steps": settings.steps,
    }
    if held_out:
        counts |= {"held_out": len(held_out), "exported_step": exported}
    return {**counts, **ctx.count_judge()}


def load_exported(module: GrpoModule, checkpoints: Checkpoints, which: str, note: Callable[[str], None]) -> int:
    """Load the weights to export into the module's model; returns their steps done. Every rank calls this.

    `which`: `last`, or `best` by held-out accuracy; `last`, with a line to `note`, if that checkpoint is unusable.
    """
    best, last = module.best_steps, module.steps_done
    if which == "last" or best is None or best == last:
        return last
    path, fault = checkpoints.path(best), None
    if module.ranks.first:
        fault = fault_of(path) if path.exists() else "checkpoint.disk_gib left no room for it"
    path, fault = module.ranks.broadcast((path, fault))
    if fault:
        note(f"the best checkpoint, step {best}, cannot be used ({fault}): the weights of step {last} are exported")
        return last
    module.load_weights(torch.load(path, mmap=True, weights_only=True)["state_dict"])
    return best


def _start(ctx: Context) -> Path:
    """The model folder that GRPO starts from: a model folder, a run's SFT model, or a download from the hub."""
    name = ctx.cfg.grpo.init_from
    if name is None:
        return ctx.inputs["sft"] / "model"
    folder = Path(name)
    if (folder / "4_sft" / "model").is_dir():  # a run folder
        return folder / "4_sft" / "model"
    return folder if folder.is_dir() else from_hub("grpo.init_from", name)


def _canary(ctx: Context, question: Question, tokenizer: Any, engine: PolicyEngine) -> Canary | None:
    """The canary on the last tokens of a question's prompt and gold completion (of the prompt, without a gold)."""
    canary = ctx.cfg.grpo.canary
    if canary.tokens == 0:
        return None
    ids = prompt_ids(tokenizer, chat(question, ctx.cfg.prompt.system))
    ids += render_gold(question, tokenizer, ctx.cfg.prompt.system).token_ids if question.gold else []
    return Canary(engine, ids[-canary.tokens :], canary.bound)
