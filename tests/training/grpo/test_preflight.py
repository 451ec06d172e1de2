"""Gold completions with real chat templates: which pass, and which part is blamed when they do not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from finr1.answer.tags import render
from finr1.core.errors import ConfigError
from finr1.core.types import Verdict
from finr1.parts.model.folder import resolve
from finr1.parts.model.tokens import load_tokenizer
from finr1.parts.reward.accuracy import Accuracy
from finr1.parts.reward.base import RewardItem
from finr1.parts.reward.format import Format
from finr1.parts.reward.length import Length
from finr1.parts.reward.workers import guarded
from finr1.settings.grpo import WorkerSettings
from finr1.settings.model import ModelSettings
from finr1.training.grpo.preflight import preflight, render_gold
from tests.helpers.byte_tokenizer import tokenizer
from tests.helpers.stages import question

PLAIN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PREFILLED = PLAIN.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")  # as DeepSeek-R1's
CLOSED = PLAIN.replace("assistant\n{% endif %}", "assistant\n<think>\n\n</think>\n\n{% endif %}")  # Qwen3, thinking off


QUESTIONS = [
    question("2 + 2?", "4"),
    question("margin?", "25%", kind="number", meta={"unit": "%"}),
    question("which?", "B", kind="choice", choices={"A": "one", "B": "two"}),
    question("涨了吗?", "是", kind="yes_no", language="zh"),
    question("mood?", "1", kind="label", choices={"0": "bad", "1": "good"}),
]
LEFT_OUT = [question("why?", "because", kind="text"), question("code?", "x=1", kind="code"), question("?", None)]


def check(template: str = PLAIN, rewards: dict[str, Any] | None = None, **more: Any) -> int:
    rewards = rewards or {"format": Format(), "accuracy": Accuracy(), "length": Length()}
    options = {"questions": [*LEFT_OUT, *QUESTIONS], "system": None, "max_new_tokens": 300, "n": 32, **more}
    special = options.pop("special", ())
    return preflight(tokenizer=tokenizer(template, special), rewards=rewards, **options)


@pytest.mark.parametrize("template", [PLAIN, CLOSED, PREFILLED], ids=["plain", "closed", "prefilled"])
def test_gold_of_every_kind_passes_and_free_text_is_skipped(template: str) -> None:
    assert check(template) == len(QUESTIONS)
    assert check(template, questions=LEFT_OUT) == 0
    assert check(template, n=2) == 2


def test_a_gold_completion_continues_the_prompt() -> None:
    made = {template: tokenizer(template) for template in (PLAIN, PREFILLED)}
    plain, prefilled = (render_gold(QUESTIONS[0], one, None) for one in made.values())
    assert plain.text == prefilled.text == render("The answer follows from the question.", "\\boxed{4}")
    assert made[PLAIN].decode(plain.token_ids) == plain.text
    assert "<think>\n" + made[PREFILLED].decode(prefilled.token_ids) == plain.text
    assert render_gold(QUESTIONS[3], tokenizer(PLAIN), None).text.endswith("\\boxed{是}\n</answer>")


def test_tags_that_the_decoder_drops_are_an_error() -> None:
    with pytest.raises(ConfigError, match=r"its decoder drops </think> from completions"):
        check(PLAIN, special=["</think>"])


def test_a_gold_longer_than_the_limit_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"grpo\.sampling\.max_new_tokens=50: the gold answer .* takes \d+ tokens"):
        check(max_new_tokens=50)


class Gives:
    """One value for all."""

    name, weight = "gives", 1.0

    def __init__(self, value: float | None, **more: Any) -> None:
        self.value = value
        for key, its in more.items():
            setattr(self, key, its)

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]:
        if self.value == 9:
            raise ValueError("broken")
        return [Verdict(self.value, why="so it is")] * len(items)


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        (
            Gives(0.5),
            r"reward\.mine=Gives: .* earns 0\.5 of 1: so it is; fix the reward or the question, or set grpo\.",
        ),
        (Gives(None), r"earns undecided: so it is"),
        (Gives(9.0), r"earns undecided: ValueError: broken"),
        (Gives(1.0, full=0.0), r"earns 1 of 0: so it is"),
    ],
)
def test_the_error_names_the_reward_inside_its_guard(reward: Gives, words: str) -> None:
    with (
        guarded({"accuracy": Accuracy(), "mine": reward}, WorkerSettings()) as rewards,
        pytest.raises(ConfigError, match=words) as error,
    ):
        check(rewards=rewards)
    assert "\n" not in str(error.value)


def test_full_sets_what_a_perfect_completion_earns() -> None:
    for reward in (Gives(0.0, full=0.0), Gives(0.3, full=None), Gives(None, full=None), Gives(1.0)):
        with guarded({"mine": reward}, WorkerSettings()) as rewards:
            assert check(rewards=rewards) == len(QUESTIONS)


class NoChoices(Accuracy):
    """A reward that fails at one kind of question."""

    def grade(self, items: Sequence[RewardItem]) -> list[Verdict]:
        graded = super().grade(items)
        return [Verdict(0.0) if i.question.kind == "choice" else v for i, v in zip(items, graded, strict=True)]


def test_every_kind_and_source_is_checked() -> None:
    """Kinds take turns: one broken kind is among the first few, however many questions of another stand before it."""
    choice = question("which?", "B", kind="choice", choices={"A": "one", "B": "two"})
    many = [question(f"{i}?", str(i)) for i in range(50)]
    with pytest.raises(ConfigError, match=r"reward\.accuracy=NoChoices: a gold completion of question " + choice.id):
        check(rewards={"accuracy": NoChoices()}, questions=[*many, choice], n=4)


def test_gold_completions_pass_with_the_embedded_model() -> None:
    try:
        real = load_tokenizer(resolve(ModelSettings()))
    except ConfigError as error:
        pytest.skip(str(error))
    rewards = {"format": Format(), "accuracy": Accuracy()}
    assert preflight(QUESTIONS, rewards, real, "system_short.v1", 96, 32) == len(QUESTIONS)
