"""Stage `sft`: supervised fine-tuning on the good traces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finr1.answer import render
from finr1.context import Context, build
from finr1.errors import DataError
from finr1.prompt import chat
from finr1.store import check_known, take_rows, write_jsonl
from finr1.types import Trace

if TYPE_CHECKING:
    from finr1.data.rows import Group


def run(ctx: Context) -> dict[str, Any]:
    """Train on `3_filtered/good.jsonl`; leaves `rows.jsonl` (what was trained on) and `model/`."""
    from finr1.data.attention import register
    from finr1.data.checkpoints import Checkpoints, seed_random
    from finr1.data.loop import fit
    from finr1.model.load import export, load_tokenizer, load_trainable, resolve
    from finr1.sft.module import SftModule

    cfg = ctx.cfg
    base = resolve(cfg.model)
    tokenizer = load_tokenizer(base, cfg.model.trust_remote_code)
    groups, dropped = _rows(ctx, tokenizer)
    plan = make_plan(groups, cfg.sft.epochs, cfg.sft.row_tokens, cfg.sft.rows_per_step, cfg.seed)
    seed_random(cfg.seed)  # adapters begin at random
    model = load_trainable(base, cfg.model, register())
    kept = Checkpoints(ctx.folder, cfg.checkpoint, ctx.note)
    with ctx.progress("training", len(plan)) as bar:
        module = SftModule(model, build(cfg.trainer["optimizer"]), cfg.sft, plan, ctx.tracker, bar, ctx.ranks)
        fit(module, len(plan), kept, cfg.trainer["fit"], cfg.sft.checkpoint_every_steps, cfg.seed)
    export(model, tokenizer, ctx.folder / "model", cfg.model, ctx.ranks)
    if not ctx.ranks.first:
        return {}
    kept.clear()
    tokens = sum(group.n_tokens for step in plan for row in step for group in row)
    return {"rows": len(groups), "dropped_too_long": dropped, "steps": len(plan), "tokens": tokens}


def _rows(ctx: Context, tokenizer: Any) -> tuple[list[Group], int]:
    """Tokenise the good traces, note each one in `rows.jsonl`; rows too long for the model are counted, not cut."""
    from finr1.data.loop import shuffled
    from finr1.data.rows import Group
    from finr1.model.load import completion_ids, prompt_ids

    cfg = ctx.cfg
    questions = ctx.questions()
    path = ctx.inputs["filter"] / "good.jsonl"
    traces = [Trace.from_json(row["trace"]) for row in take_rows(path, Trace.needed("trace."))]
    check_known(path, (trace.question_id for trace in traces), questions)
    if not traces:
        raise DataError(path, "no good trace to train on", "look at 3_filtered/bad.jsonl, or loosen the filter")
    (order,) = shuffled(len(traces), 1, cfg.seed)
    groups: list[Group] = []
    rows: list[dict[str, Any]] = []
    dropped = 0
    for index in order:
        if cfg.sft.max_rows is not None and len(groups) >= cfg.sft.max_rows:
            break
        trace = traces[index]
        messages = chat(questions[trace.question_id], cfg.prompt.system)
        completion = render(trace.reasoning, trace.answer)
        prompt, target = prompt_ids(tokenizer, messages), completion_ids(tokenizer, messages, completion)
        if len(prompt) + len(target) > cfg.model.max_model_len:
            dropped += 1
            continue
        rows.append(
            {
                "question_id": trace.question_id,
                "trace_id": trace.id,
                "messages": messages,
                "completion": completion,
                "n_prompt_tokens": len(prompt),
                "n_completion_tokens": len(target),
            }
        )
        groups.append(Group(prompt, [target], [len(groups)]))
    if not groups:
        raise DataError(path, f"all {dropped} good traces exceed model.max_model_len", "raise model.max_model_len")
    if dropped:
        ctx.note(f"{dropped} good traces are longer than model.max_model_len={cfg.model.max_model_len} and left out")
    write_jsonl(ctx.folder / "rows.jsonl", rows)
    return groups, dropped


def make_plan(
    groups: list[Group], epochs: int, row_tokens: int, rows_per_step: int, seed: int
) -> list[list[list[Group]]]:
    """Every epoch packs a fresh order of all groups into rows and deals the rows out to optimiser steps."""
    from finr1.data.loop import batches, shuffled
    from finr1.data.rows import pack

    plan: list[list[list[Group]]] = []
    for epoch, order in enumerate(shuffled(len(groups), epochs, seed + 1)):
        # Packing sorts by length: the rows are mixed again, so that no stretch of steps sees only long texts.
        rows = pack([groups[i] for i in order], row_tokens)
        (mixed,) = shuffled(len(rows), 1, seed + 1000 + epoch)
        plan += [[rows[i] for i in step] for step in batches(mixed, rows_per_step)]
    return plan
