"""The loss mask token by token, the plan, and the learning rate."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import stages

from finr1.data.loop import learning_rate, shuffled
from finr1.data.rows import Group, make_row
from finr1.errors import ConfigError, DataError
from finr1.model.load import completion_ids, load_tokenizer, prompt_ids, resolve
from finr1.model.settings import ModelSettings
from finr1.sft.run import _rows, make_plan
from finr1.types import Message, Trace


def test_mask_token_by_token_on_smollm2() -> None:
    try:
        tokenizer = load_tokenizer(resolve(ModelSettings()))
    except ConfigError as error:
        pytest.skip(str(error))
    messages = [Message(role="system", content="S."), Message(role="user", content="2 + 2?")]
    prompt = prompt_ids(tokenizer, messages)
    target = completion_ids(tokenizer, messages, "<think>\na\n</think>\n<answer>\n4\n</answer>")
    assert tokenizer.decode(prompt) == (
        "<|im_start|>system\nS.<|im_end|>\n<|im_start|>user\n2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.decode(target) == "<think>\na\n</think>\n<answer>\n4\n</answer><|im_end|>"
    row = make_row([Group(prompt, [target], [0])])
    # the loss sees exactly the answer and its end of turn, each predicted from the position before it
    assert row.target_N.tolist() == target
    assert row.ids_T[row.predict_N + 1].tolist() == target
    assert row.predict_N[0] == len(prompt) - 1


TRACE = Trace(stages.question("one").id, 0, "t", "because", "1", "").to_json()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{oops", r"good\.jsonl: broken JSON in line 2; mend"),
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


def test_every_row_once_an_epoch() -> None:
    groups = [Group([1] * (5 + i % 7), [[2] * (3 + i % 5)], [i]) for i in range(40)]
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
