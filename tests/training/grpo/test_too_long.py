"""Questions whose prompt leaves no room for an answer are dropped and counted before anything is sampled."""

from __future__ import annotations

from pathlib import Path

import pytest

from finr1.core.errors import DataError
from finr1.settings.model import ModelSettings
from finr1.settings.prompt import PromptSettings
from finr1.training.grpo.questions import drop_too_long
from tests.helpers.byte_tokenizer import tokenizer
from tests.helpers.stages import question, stage_context

TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


def test_overlong_prompts_are_dropped_and_counted(tmp_path: Path) -> None:
    tokens = tokenizer(TEMPLATE)  # one token a byte
    questions = [question("a" * n) for n in (8, 9, 10, 50)]
    with stage_context(
        tmp_path, "grpo", model=ModelSettings(max_model_len=10), prompt=PromptSettings(system=None)
    ) as ctx:
        fitting, dropped = drop_too_long(ctx, questions, tokens)
        assert [len(q.text) for q in fitting] == [8, 9] and dropped == 2
        assert ctx.notes == ["2 questions with prompts as long as model.max_model_len=10 were dropped"]
        with pytest.raises(
            DataError, match=r"rl\.jsonl: all 1 prompts are as long as model\.max_model_len=10; "
        ) as error:
            drop_too_long(ctx, questions[3:], tokens)
    assert "\n" not in str(error.value)
