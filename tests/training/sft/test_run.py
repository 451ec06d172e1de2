"""The loss mask token by token, the plan, and the learning rate."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from finr1.core.errors import ConfigError, DataError
from finr1.core.jsonl import read_jsonl
from finr1.core.types import Message, Trace
from finr1.parts.model.folder import resolve
from finr1.parts.model.tokens import completion_ids, load_tokenizer, prompt_ids
from finr1.run.context import Context
from finr1.settings.model import ModelSettings
from finr1.training.loop.schedule import learning_rate, shuffled
from finr1.training.rows.rows import RowGroup, make_row
from finr1.training.sft.run import _rows, make_plan
from tests.helpers import stages
from tests.helpers.byte_tokenizer import tokenizer
from tests.helpers.runner import REPO


def test_mask_token_by_token_on_smollm2() -> None:
    try:
        real = load_tokenizer(resolve(ModelSettings()))
    except ConfigError as error:
        pytest.skip(str(error))
    messages = [Message(role="system", content="S."), Message(role="user", content="2 + 2?")]
    prompt = prompt_ids(real, messages)
    target = completion_ids(real, messages, "<think>\na\n</think>\n<answer>\n4\n</answer>")
    assert real.decode(prompt) == (
        "<|im_start|>system\nS.<|im_end|>\n<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert real.decode(target) == "<think>\na\n</think>\n<answer>\n4\n</answer><|im_end|>"
    row = make_row([RowGroup(prompt, [target], [0])])
    # the loss sees exactly the answer and its end of turn, each predicted from the position before it
    assert row.target_N.tolist() == target
    assert row.ids_T[row.predict_N + 1].tolist() == target
    assert row.predict_N[0] == len(prompt) - 1


TEMPLATE = (REPO / "tests" / "golden" / "chat_templates" / "qwen2_5.jinja").read_text(encoding="utf-8")
SPECIAL = ["<|im_start|>", "<|im_end|>"]
MADE = tokenizer(TEMPLATE, SPECIAL)
TRACE = Trace(stages.question("one").id, 0, "t", "because", "1", "").to_json()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{oops", r"good\.jsonl: corrupt JSON in line 2; fix"),
        (json.dumps({"traces": TRACE}), r"good\.jsonl: line 2 has no `trace\.question_id`; run"),
        (json.dumps({"trace": {**TRACE, "question_id": "x"}}), r"good\.jsonl: line 2 has an unknown question x; run"),
        (json.dumps({"trace": {k: v for k, v in TRACE.items() if k != "answer"}}), r"line 2 has no `trace\.answer`"),
    ],
)
def test_a_fault_in_a_row_is_one_line(tmp_path: Path, row: str, message: str) -> None:
    with stages.stage_context(tmp_path, "sft") as ctx:
        stages.write_rows(ctx.inputs["questions"] / "questions.jsonl", [stages.question("one")])
        ctx.inputs["filter"].mkdir()
        (ctx.inputs["filter"] / "good.jsonl").write_text(f"{json.dumps({'trace': TRACE})}\n{row}\n")
        with pytest.raises(DataError, match=message) as error:
            _rows(ctx, tokenizer=None)
    assert "\n" not in str(error.value)


def write_good(ctx: Context, sources: Sequence[str]) -> list[Trace]:
    """A question and a good trace of each of these sources."""
    questions = [stages.question(f"q{i}", source=source) for i, source in enumerate(sources)]
    traces = [Trace(q.id, 0, "t", "because" * (i + 1), "1", str(i)) for i, q in enumerate(questions)]
    stages.write_rows(ctx.inputs["questions"] / "questions.jsonl", questions)
    ctx.inputs["filter"].mkdir()
    good = "".join(json.dumps({"trace": trace.to_json()}) + "\n" for trace in traces)
    (ctx.inputs["filter"] / "good.jsonl").write_text(good)
    return traces


def test_sft_sources_selects_the_training_rows(tmp_path: Path) -> None:
    with stages.stage_context(tmp_path, "sft") as ctx:
        traces = write_good(ctx, ["finqa", "tfns", "convfinqa", "finqa"])
        for wanted, kept in (([], [0, 1, 2, 3]), (["finqa", "convfinqa"], [0, 2, 3]), (["tfns"], [1])):
            ctx.cfg.sft.sources = wanted
            groups, counts = _rows(ctx, MADE)
            assert {row["trace_id"] for row in read_jsonl(ctx.folder / "rows.jsonl")} == {traces[i].id for i in kept}
            assert len(groups) == len(kept) and counts == {"dropped_too_long": 0, "left_out": 0}
            assert all(group.masks == () for group in groups)
        ctx.cfg.sft.sources = ["finqa", "finaq"]
        words = r"sft\.sources=finaq: no good trace in .* is of this source; use some of convfinqa, finqa, tfns"
        with pytest.raises(ConfigError, match=words):
            _rows(ctx, MADE)


def test_a_trace_too_long_for_the_model_is_dropped_and_counted(tmp_path: Path) -> None:
    with stages.stage_context(tmp_path, "sft") as ctx:
        write_good(ctx, ["finqa"] * 3)
        lengths = sorted(group.n_tokens for group in _rows(ctx, MADE)[0])
        ctx.cfg.model.max_model_len = lengths[1]
        groups, counts = _rows(ctx, MADE)
        assert sorted(group.n_tokens for group in groups) == lengths[:2] and counts == {
            "dropped_too_long": 1,
            "left_out": 0,
        }
        assert ctx.notes == [f"1 good traces are longer than model.max_model_len={lengths[1]} and were dropped"]


def test_a_trace_that_contains_the_end_of_turn_is_left_out_with_its_reason(tmp_path: Path) -> None:
    with stages.stage_context(tmp_path, "sft") as ctx:
        traces = write_good(ctx, ["finqa", "finqa"])
        odd = replace(traces[0], reasoning="so<|im_end|>")
        rows = [{"trace": trace.to_json()} for trace in (odd, traces[1])]
        (ctx.inputs["filter"] / "good.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        groups, counts = _rows(ctx, MADE)
        assert len(groups) == 1 and counts == {"dropped_too_long": 0, "left_out": 1}
        (line,) = read_jsonl(ctx.folder / "left_out.jsonl")
        why = "the answer contains the end-of-turn token"
        assert line == {"place": f"trace {odd.id}", "reason": "chat template", "why": why}


def test_every_row_once_per_epoch() -> None:
    groups = [RowGroup([1] * (5 + i % 7), [[2] * (3 + i % 5)], [i]) for i in range(40)]
    plan = make_plan(groups, epochs=3, row_tokens=50, rows_per_step=2, seed=0)
    numbers = [n for step in plan for row in step for group in row for n in group.numbers]
    assert sorted(numbers) == sorted(list(range(40)) * 3)
    assert all(sum(g.n_tokens for g in row) <= 50 for step in plan for row in step)
    assert plan == make_plan(groups, epochs=3, row_tokens=50, rows_per_step=2, seed=0)
    assert plan != make_plan(groups, epochs=3, row_tokens=50, rows_per_step=2, seed=1)


def test_learning_rate_by_hand() -> None:
    # warm-up of 3 steps: 1/4, 2/4, 3/4 of the peak, then the schedule from 1
    rates = [learning_rate(s, 11, 3, 1.0, "cosine") for s in range(11)]
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[7] == pytest.approx(0.5 * (1 + math.cos(math.pi * 4 / 8)))
    assert learning_rate(7, 11, 3, 2.0, "linear") == pytest.approx(1.0)
    assert learning_rate(10, 11, 3, 2.0, "constant") == 2.0


def test_shuffles_are_seeded_permutations() -> None:
    first = shuffled(20, 2, 5)
    assert [sorted(order) for order in first] == [list(range(20))] * 2
    assert first == shuffled(20, 2, 5) != shuffled(20, 2, 6)
    assert first[0] != first[1]
