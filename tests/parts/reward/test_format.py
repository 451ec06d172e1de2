"""The format reward, and the ways to cheat it."""

import pytest

from finr1.answer.tags import render
from finr1.core.types import Question
from finr1.parts.reward.base import RewardItem
from finr1.parts.reward.format import Format

QUESTION = Question("test", "d", "en", "reasoning business", "number", [{"role": "user", "content": "?"}], "5")


def value(text: str, truncated: bool = False, **options: bool) -> float | None:
    return Format(**options).grade([RewardItem(QUESTION, text, truncated)])[0].value  # type: ignore[arg-type]


def test_well_formed_is_one_whatever_the_answer() -> None:
    assert value(render("a", "5")) == value(render("a", "wrong")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "5",
        render("a", "5") * 2,
        render("a", "5") + "<answer>6</answer>",
        render("", "5"),
        render("a", ""),
        render("a", "5") + " and so on",
        "<think>\na <answer>5</answer>\n</think>\n<answer>\n5\n</answer>",
        "<answer>5</answer><think>a</think>",
    ],
)
def test_cheats_get_nothing(text: str) -> None:
    assert value(text) == 0


def test_truncated_gets_nothing() -> None:
    assert value(render("a", "5"), truncated=True) == 0


def test_a_think_tag_that_the_chat_template_wrote_belongs_to_the_text() -> None:
    """Engines put it there (`finr1/parts/model/tokens.py`); without it the block was never opened."""
    assert value(render("a", "5").removeprefix("<think>\n")) == 0


def test_order_and_length_are_kept() -> None:
    items = [RewardItem(QUESTION, text, False) for text in (render("a", "5"), "5", render("b", "6"))]
    assert [verdict.value for verdict in Format().grade(items)] == [1, 0, 1]
