"""What both sides train on: files of prompts (GRPO) and of prompts with completions (SFT), chosen by their tokens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finr1.answer.tags import render
from finr1.core.jsonl import write_jsonl
from finr1.core.prompt import chat
from finr1.core.types import Question
from finr1.parts.engine.base import Request
from finr1.parts.engine.worked.engine import WorkedEngine
from finr1.parts.model.tokens import completion_ids, load_tokenizer, prompt_ids
from finr1.parts.source.finqa import FinQA
from finr1.parts.source.worked.source import Worked
from finr1.settings.sampling import Sampling

# Tokens a row: of the prompt alone for GRPO, of prompt and completion for SFT.
PROMPTS = {"short": (90, 115), "finqa": (850, 950)}
ROWS = {"short": (140, 180), "finqa": (800, 1000)}


def kinds() -> list[str]:
    """`short` rows are the generator's; `finqa` ones are report pages, and need the data folder."""
    data = os.environ.get("FINR1_DATA")
    return ["short", "finqa"] if data and (Path(data) / "finqa").is_dir() else ["short"]


def write(folder: Path, model: Path, kind: str, n_prompts: int, n_rows: int) -> None:
    """`prompts_<kind>.jsonl` and `rows_<kind>.jsonl` in the folder; RuntimeError where too few rows fit."""
    tokenizer = load_tokenizer(model)
    prompts: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for question, completion in _pairs(kind):
        messages = chat(question, None)
        n_prompt = len(prompt_ids(tokenizer, messages))
        if len(prompts) < n_prompts and _within(n_prompt, PROMPTS[kind]):
            prompts.append({"messages": messages, "question": question.to_json()})
        elif len(rows) < n_rows and n_prompt < ROWS[kind][1]:
            n = n_prompt + len(completion_ids(tokenizer, messages, completion))
            if _within(n, ROWS[kind]):
                rows.append({"prompt": messages, "completion": [{"role": "assistant", "content": completion}]})
        if len(prompts) == n_prompts and len(rows) == n_rows:
            break
    else:
        raise RuntimeError(f"only {len(prompts)} prompts and {len(rows)} rows of kind {kind} have the tokens wanted")
    write_jsonl(folder / f"prompts_{kind}.jsonl", prompts)
    write_jsonl(folder / f"rows_{kind}.jsonl", rows)


def _within(n: int, bounds: tuple[int, int]) -> bool:
    return bounds[0] <= n <= bounds[1]


def _pairs(kind: str) -> Iterator[tuple[Question, str]]:
    """Questions with a completion: a worked trace, or FinQA's own program and answer."""
    if kind == "short":
        teacher = WorkedEngine(fault_rate=0.0)
        for question in Worked(n_train=4000, n_test=0, difficulty=0).load():
            ((completion,),) = teacher.generate([Request(chat(question, None), question)], Sampling())
            yield question, completion.text
    else:
        for question in FinQA(str(Path(os.environ["FINR1_DATA"]) / "finqa")).load():
            if question.gold is not None:
                yield question, render(str(question.meta.get("program", "")), f"\\boxed{{{question.gold}}}")
