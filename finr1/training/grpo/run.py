"""Stage `grpo`: reinforcement on the questions that no good trace answers, chosen by the policy's own pass rate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finr1.core.build import build
from finr1.core.prompt import chat
from finr1.core.types import Question
from finr1.parts.engine.base import PolicyEngine
from finr1.run.context import Context
from finr1.training.grpo.questions import _candidates, _select, make_plan, spare_questions

if TYPE_CHECKING:
    from finr1.training.grpo.canary import Canary
    from finr1.training.grpo.step import GrpoModule
    from finr1.training.loop.checkpoints import Checkpoints


def run(ctx: Context) -> dict[str, Any]:
    """Choose questions, walk the steps, leave `questions.jsonl`, `samples.jsonl` and `model/`."""
    from finr1.parts.model.tokens import load_tokenizer
    from finr1.parts.reward.workers import guarded
    from finr1.training.grpo.held_out import Task, hold_out
    from finr1.training.grpo.preflight import preflight
    from finr1.training.grpo.reference import Reference
    from finr1.training.grpo.rollout import Sampler
    from finr1.training.grpo.step import GrpoModule
    from finr1.training.loop.checkpoints import Checkpoints, seed_random
    from finr1.training.loop.fit import fit
    from finr1.training.model.load import load_trainable
    from finr1.training.model.weights import export
    from finr1.training.rows.attention import register

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
    module.rollout_log.clear()
    counts = {"candidates": len(candidates), "selected": len(chosen), "steps": cfg.grpo.steps}
    if held_out:
        counts |= {"held_out": len(held_out), "exported_step": exported}
    return {**counts, **ctx.count_judge()}


def choose(module: GrpoModule, kept: Checkpoints, which: str, say: Callable[[str], None]) -> int:
    """Put the weights to export into the module's model: the last, or the best's; returns their steps done.

    Every rank calls this; the checkpoints are the first one's.
    """
    import torch

    from finr1.training.loop.checkpoints import fault_of

    best, last = module.best_steps, module.steps_done
    if which == "last" or best is None or best == last:
        return last
    path, fault = kept.path(best), None
    if module.ranks.first:
        fault = fault_of(path) if path.exists() else "checkpoint.disk_gib had no room for it"
    path, fault = module.ranks.broadcast((path, fault))
    if fault:
        say(f"the weights of step {best}, the best, are not there ({fault}): those of step {last} are exported")
        return last
    module.load_weights(torch.load(path, mmap=True, weights_only=True)["state_dict"])
    return best


def _start(ctx: Context) -> Path:
    """The model folder that GRPO starts from."""
    from finr1.parts.model.folder import from_hub

    name = ctx.cfg.grpo.init_from
    if name is None:
        return ctx.inputs["sft"] / "model"
    folder = Path(name)
    if (folder / "4_sft" / "model").is_dir():  # a run folder
        return folder / "4_sft" / "model"
    return folder if folder.is_dir() else from_hub("grpo.init_from", name)


def _canary(ctx: Context, question: Question, tokenizer: Any, engine: PolicyEngine) -> Canary | None:
    """The end of a question's prompt with its gold completion, or with none where it has no gold."""
    from finr1.parts.model.tokens import prompt_ids
    from finr1.training.grpo.canary import Canary
    from finr1.training.grpo.preflight import render_gold

    n = ctx.cfg.grpo.canary_tokens
    if n == 0:
        return None
    ids = prompt_ids(tokenizer, chat(question, ctx.cfg.prompt.system))
    ids += render_gold(question, tokenizer, ctx.cfg.prompt.system).token_ids if question.gold else []
    return Canary(engine, ids[-n:], ctx.cfg.grpo.canary_bound)
