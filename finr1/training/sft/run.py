"""Stage `sft`: supervised fine-tuning on the good traces, or on chats from files."""

from pathlib import Path
from typing import Any

from finr1.answer.tags import render
from finr1.core.build import build
from finr1.core.errors import ConfigError, DataError
from finr1.core.jsonl import check_known, read_jsonl, write_jsonl
from finr1.core.prompt import chat
from finr1.core.types import Message, Trace
from finr1.parts.model.folder import resolve
from finr1.parts.model.tokens import load_tokenizer
from finr1.run.context import Context
from finr1.training.loop.checkpoints import Checkpoints, seed_random
from finr1.training.loop.fit import fit
from finr1.training.loop.schedule import shuffled
from finr1.training.model.check import load_checked
from finr1.training.model.load import base_model
from finr1.training.model.weights import export
from finr1.training.rows.rows import RowGroup, is_single, pack
from finr1.training.sft.chats import encode, read_chats
from finr1.training.sft.step import SftModule


def run(ctx: Context) -> dict[str, Any]:
    """Train on `3_filtered/good.jsonl` or chats; writes `rows.jsonl` (the training rows) and `model/`."""
    cfg = ctx.cfg
    base = resolve(cfg.model)
    tokenizer = load_tokenizer(base, cfg.model.trust_remote_code)
    groups, counts = _rows(ctx, tokenizer)
    seed_random(cfg.seed)  # adapters are initialised at random
    model = load_checked(base, cfg.model, ctx.note)
    single = is_single(base_model(model))
    plan = make_plan(groups, cfg.sft.epochs, cfg.sft.row_tokens, cfg.sft.rows_per_step, cfg.seed, single)
    checkpoints = Checkpoints(ctx.folder, cfg.checkpoint, ctx.note)
    with ctx.progress("training", len(plan)) as bar:
        module = SftModule(model, build(cfg.trainer["optimizer"]), cfg.sft, plan, ctx.tracker, bar, ctx.ranks)
        fit(module, len(plan), checkpoints, cfg.trainer["fit"], cfg.sft.checkpoint_every_steps, cfg.seed)
    export(model, tokenizer, ctx.folder / "model", cfg.model, ctx.ranks)
    if not ctx.ranks.first:
        return {}
    checkpoints.clear()
    tokens = sum(group.n_tokens for step in plan for row in step for group in row)
    return {"rows": len(groups), **counts, "steps": len(plan), "tokens": tokens}


def _rows(ctx: Context, tokenizer: Any) -> tuple[list[RowGroup], dict[str, int]]:
    """Tokenise the training rows and write them to `rows.jsonl`, unusable ones to `left_out.jsonl`; count both.

    Rows too long for the model are dropped and counted.
    """
    cfg = ctx.cfg
    place, what, examples, left_out = _chats(ctx) if "chats" in ctx.inputs else _traces(ctx)
    (order,) = shuffled(len(examples), 1, cfg.seed)
    groups: list[RowGroup] = []
    rows: list[dict[str, Any]] = []
    dropped = 0
    for row in (examples[index] for index in order):
        if cfg.sft.max_rows is not None and len(groups) >= cfg.sft.max_rows:
            break
        answer = [Message(role="assistant", content=row["completion"])] if "completion" in row else []
        try:
            text = encode(tokenizer, [*row["messages"], *answer], cfg.sft.turns, row.get("untrained", ()))
        except ConfigError:
            raise
        except ValueError as error:
            whose = row["origin"] if "origin" in row else f"trace {row['trace_id']}"
            left_out.append({"place": whose, "reason": "chat template", "why": str(error)})
            continue
        if len(text.prompt) + len(text.rest) > cfg.model.max_model_len:
            dropped += 1
            continue
        lengths = {"n_prompt_tokens": len(text.prompt), "n_completion_tokens": len(text.rest)}
        rows.append({**row, **lengths, "n_loss_tokens": sum(text.mask)})
        groups.append(RowGroup(text.prompt, [text.rest], [len(groups)], () if all(text.mask) else [text.mask]))
    if left_out:
        write_jsonl(ctx.folder / "left_out.jsonl", left_out)
        why = left_out[0]["why"]
        ctx.note(f"{len(left_out)} rows of {place} are unusable (left_out.jsonl); the first: {why}")
    if not groups and not dropped:
        raise DataError(place, f"no usable row; the first: {left_out[0]['why']}", "use other rows, or another model")
    if not groups:
        raise DataError(place, f"all {dropped} {what} exceed model.max_model_len", "raise model.max_model_len")
    if dropped:
        ctx.note(f"{dropped} {what} are longer than model.max_model_len={cfg.model.max_model_len} and were dropped")
    write_jsonl(ctx.folder / "rows.jsonl", rows)
    return groups, {"dropped_too_long": dropped, "left_out": len(left_out)}


Rows = list[dict[str, Any]]
Examples = tuple[Path, str, Rows, Rows]  # file, what they are called, rows, and those left out


def _traces(ctx: Context) -> Examples:
    """The good traces of this run, or of the run that `sft.rows` names."""
    wanted, questions = ctx.cfg.sft.sources, ctx.questions()
    path = ctx.inputs["filter"] / "good.jsonl"
    traces = [Trace.from_json(row["trace"]) for row in read_jsonl(path, Trace.needed("trace."))]
    check_known(path, (trace.question_id for trace in traces), questions)
    if not traces:
        raise DataError(path, "no good trace to train on", "inspect 3_filtered/bad.jsonl, or loosen the filter")
    sources = {questions[trace.question_id].source for trace in traces}
    for name in wanted:
        if name not in sources:
            why = f"no good trace in {path} is of this source"
            raise ConfigError("sft.sources", name, why, f"use some of {', '.join(sorted(sources))}")
    rows = [
        {
            "question_id": trace.question_id,
            "trace_id": trace.id,
            "messages": chat(questions[trace.question_id], ctx.cfg.prompt.system),
            "completion": render(trace.reasoning, trace.answer),
        }
        for trace in traces
        if not wanted or questions[trace.question_id].source in wanted
    ]
    return path, "good traces", rows, []


def _chats(ctx: Context) -> Examples:
    """The chats that `sft.rows` names."""
    place = ctx.inputs["chats"]
    chats, unusable = read_chats(place, ctx.cfg.prompt.system, ctx.cfg.sft.sources)
    left_out = [{"place": error.place, "reason": error.reason, "why": error.why} for error in unusable]
    rows = [chat._asdict() for chat in chats]
    return place, "chats", rows, left_out


def make_plan(
    groups: list[RowGroup], epochs: int, row_tokens: int, rows_per_step: int, seed: int, single: bool = False
) -> list[list[list[RowGroup]]]:
    """Pack a new shuffle of all groups into rows for every epoch, and split the rows into optimiser steps."""
    plan: list[list[list[RowGroup]]] = []
    for epoch, order in enumerate(shuffled(len(groups), epochs, seed + 1)):
        # Packing sorts by length: shuffle the rows, so that long texts are spread over the steps.
        rows = pack([groups[i] for i in order], row_tokens, single)
        (mixed,) = shuffled(len(rows), 1, seed + 1000 + epoch)
        rows = [rows[i] for i in mixed]
        plan += [rows[start : start + rows_per_step] for start in range(0, len(rows), rows_per_step)]
    return plan
