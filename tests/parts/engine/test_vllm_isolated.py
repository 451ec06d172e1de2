"""Around the vLLM engine, without one: random states, and completions of prompts that begin the answer."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from finr1.answer.tags import render
from finr1.evaluation.scores.rows import grade_completion
from finr1.parts.engine.vllm.engine import _completion, _isolated
from finr1.parts.reward.base import RewardItem
from finr1.parts.reward.format import Format
from tests.helpers.stages import question


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.mark.parametrize("fails", [False, True])
def test_random_states_are_restored_after_an_exception_too(fails: bool) -> None:
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = draws()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    try:
        with _isolated():
            torch.manual_seed(2)
            draws()
            if fails:
                raise RuntimeError("the engine failed")
    except RuntimeError as error:
        assert fails and str(error) == "the engine failed"
    assert draws() == expected


@pytest.mark.parametrize("start", ["", "<think>\n", "<think>"])
def test_reward_and_evaluation_see_the_thinking_that_the_chat_template_began(start: str) -> None:
    whole = render("2 + 2", "\\boxed{4}")
    output = SimpleNamespace(text=whole.removeprefix(start), token_ids=[5, 6], logprobs=None, finish_reason="stop")
    completion = _completion(output, [3], start)
    assert (completion.text, completion.token_ids) == (whole, [5, 6])
    assert Format().grade([RewardItem(question("2 + 2?", "4"), completion.text, False)])[0].value == 1
    assert grade_completion(question("2 + 2?", "4"), 0, completion).well_formed
