"""The accuracy reward: right, wrong, undecided; and the ways to cheat it."""

from typing import Any

import pytest

from finr1.answer.tags import render
from finr1.core.types import Question, Verdict
from finr1.parts.reward.accuracy import Accuracy
from finr1.parts.reward.base import RewardItem


def question(kind: str = "number", gold: str | None = "25%", **more: Any) -> Question:
    return Question("test", "d", "en", "reasoning business", kind, [{"role": "user", "content": "?"}], gold, **more)  # type: ignore[arg-type]


def verdict(text: str, asked: Question, reading: str = "strict", **options: Any) -> Verdict:
    return Accuracy(**options).grade([RewardItem(asked, text, False, reading)])[0]


def test_right_and_wrong() -> None:
    assert verdict(render("a", "\\boxed{25%}"), question()).value == 1
    assert verdict(render("a", "\\boxed{26%}"), question()).value == 0


def test_scale_is_an_option() -> None:
    text = render("a", "\\boxed{25}")
    assert verdict(text, question()).value == 0
    assert verdict(text, question(), scale_tolerant=True).value == 1


@pytest.mark.parametrize(
    "text",
    [
        "25%",  # no block
        "<think>25%</think>25%",  # outside the block
        "<think><answer>25%</answer></think>",  # inside the thinking
        "<think><answer>25%</answer></think><answer>26%</answer>",
        render("a", "25%") + "<answer>26%</answer>",  # two answers
        render("a", "25%") * 2,
        render("a", ""),
        render("a", "no idea"),
    ],
)
def test_cheats_get_nothing(text: str) -> None:
    assert verdict(text, question()).value == 0


@pytest.mark.parametrize("answer", ["A, B, C", "\\boxed{ABC}", "A. 1 B. 2 C. 3", "A B C"])
@pytest.mark.parametrize("gold", ["A", "B", "C"])
def test_listing_every_option_gets_nothing(answer: str, gold: str) -> None:
    asked = question("choice", gold, choices={"A": "1", "B": "2", "C": "3"})
    assert verdict(render("a", answer), asked).value == 0


@pytest.mark.parametrize("gold", ["25%", "200%", "5%-7%", "25%-300%"])
@pytest.mark.parametrize("scale_tolerant", [False, True])
def test_listing_very_many_numbers_gets_nothing_whatever_the_gold(gold: str, scale_tolerant: bool) -> None:
    listed = " or ".join(f"{n}%" for n in range(1, 99))
    for text in (listed, f"\\boxed{{{listed}}}", f"the answer is {listed}", "x " * 6000 + listed):
        assert verdict(render("a", text), question(gold=gold), scale_tolerant=scale_tolerant).value == 0


def test_the_end_of_a_long_answer_counts() -> None:
    way = "x " * 6000
    assert verdict(render("a", f"{way} the answer is 25%"), question()).value == 1
    assert verdict(render("a", f"{way} the answer is 26%"), question()).value == 0
    # what it says first may be its answer: right is undecided, wrong stays wrong, and so does saying everything
    assert verdict(render("a", f"the answer is 25% {way}"), question()).value is None
    assert verdict(render("a", f"the answer is 26% {way}"), question()).value == 0
    listed = " or ".join(f"{n}%" for n in range(99))
    assert verdict(render("a", f"{listed} {way}"), question()).value == 0


def test_listing_numbers_is_never_rewarded() -> None:
    hedged = verdict(render("a", "24% or 25% or 26%"), question())
    assert hedged.value == 0 and "hedge" in hedged.why
    listed = verdict(render("a", "24%; 25%; 26%"), question())
    assert listed.value is None and listed.why
    assert verdict(render("a", "24% or 26%"), question()).value == 0


@pytest.mark.parametrize("gold", [None, "", "see note 5 and 6"])
def test_a_gold_that_cannot_be_read_is_undecided(gold: str | None) -> None:
    assert verdict(render("a", "25%"), question(gold=gold)).value is None


def test_a_malformed_completion_with_one_answer_block_is_still_read() -> None:
    assert verdict("so: <answer>25%</answer>", question()).value == 1


OPTIONS = {"A": "1", "B": "2", "C": "3", "D": "4"}
LABELS = {"0": "Bearish", "1": "Bullish"}


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (question(), "\\boxed{1+1}"),
        (question(), "\\boxed{无法确定}"),
        (question(), "maybe"),
        (question(), "\\boxed{25\\%} or \\boxed{26\\%}"),
        (question("choice", "B", choices=OPTIONS), "A B C D are all plausible"),
        (question("choice", "B", choices=OPTIONS), "无法确定"),
        (question("choice", "B", choices=OPTIONS), "\\boxed{A}或\\boxed{B}"),
        (question("yes_no", "yes"), "maybe"),
        (question("yes_no", "yes"), "perhaps, it is not certain that it did"),
        (question("label", "1", choices=LABELS), "not bearish"),
        (question("text", "rates rose"), "I cannot say."),
    ],
)
@pytest.mark.parametrize("scale_tolerant", [False, True])
def test_an_answer_that_commits_to_nothing_earns_nothing(asked: Question, answer: str, scale_tolerant: bool) -> None:
    found = verdict(render("a", answer), asked, scale_tolerant=scale_tolerant)
    assert found.value == 0 and found.why


def test_a_committed_answer_that_no_rule_can_compare_stays_undecided() -> None:
    assert verdict(render("a", "it rose from 20% to 25%"), question()).value is None
    assert verdict(render("a", "yields went up"), question("text", "rates rose")).value is None


@pytest.mark.parametrize("text", ["25%", "**Answer: 25%**", "<think>a</think>\\boxed{25\\%}", render("a", "25%")])
def test_the_reading_decides_whether_an_answer_outside_the_block_counts(text: str) -> None:
    assert verdict(text, question(), "content").value == 1
    assert verdict(text, question(), "strict").value == float("<answer>" in text)
