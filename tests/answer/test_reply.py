"""What a whole reply gives as its answer: golden replies, both readings, abstentions, hostile replies."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finr1.answer.grade import grade
from finr1.answer.reply import grade_reply, read_answer
from finr1.answer.tags import parse, render
from finr1.core.types import Question
from tests.helpers.runner import REPO

CASES = [json.loads(line) for line in (REPO / "tests" / "golden" / "reply_cases.jsonl").read_text("utf-8").splitlines()]
OPTIONS = {"A": "Bonds", "B": "Stocks", "C": "Cash", "D": "Gold"}


def question(kind: str, gold: str | None, **more: Any) -> Question:
    prompt = [{"role": "user", "content": "?"}]
    return Question("test", "d", more.pop("language", "en"), "reasoning business", kind, prompt, gold, **more)  # type: ignore[arg-type]


NUMBER = question("number", "12.5%")


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['kind']}-{case['gold']}-{case['reply'][-40:]!a}")
def test_golden(case: dict[str, Any]) -> None:
    asked = question(case["kind"], case["gold"], language=case["language"], choices=case.get("choices", {}))
    graded = grade_reply(case["reply"], asked, "content", case.get("reasoning"), case.get("truncated", False))
    found = (graded.strict.value, graded.scaled.value, graded.abstains)
    assert found == (case["strict"], case["scaled"], case["abstains"]), graded
    assert graded.strict.why and (graded.answer is None) == (graded.strict.why == "no answer")


def test_the_golden_replies_cover_every_kind_language_and_outcome() -> None:
    assert len(CASES) >= 100 and {case["source"] for case in CASES} == {"own"}
    assert len({json.dumps(case) for case in CASES}) == len(CASES)
    for kind in ("number", "choice", "yes_no", "label"):
        outcomes = {(case["strict"], case["abstains"]) for case in CASES if case["kind"] == kind}
        assert {(1, False), (0, False), (None, True)} <= outcomes
    assert sum(case["language"] == "zh" for case in CASES) >= 30


@pytest.mark.parametrize("text", ["12.5%", "**Answer: 12.5%**", "\\boxed{12.5\\%}", "<think>a</think>12.5%"])
def test_a_strict_reading_takes_nothing_outside_the_answer_block(text: str) -> None:
    assert grade_reply(text, NUMBER, "content").strict.value == 1
    assert grade_reply(text, NUMBER, "strict")[:2] == (None, (0.0, None, "no answer"))
    formed = f"<think>a</think><answer>13%</answer> {text.rpartition('>')[2]}"
    assert grade_reply(formed, NUMBER, "content").strict.value == 0, "a block is there: it counts"


@given(st.text("12.5% ab是AB\n", min_size=1, max_size=12), st.sampled_from(["number", "choice", "yes_no", "text"]))
def test_both_readings_of_a_well_formed_completion_are_the_same(answer: str, kind: str) -> None:
    asked = question(kind, {"number": "12.5%", "choice": "A", "yes_no": "yes", "text": "ab"}[kind])
    text = render("thinking", answer)
    assert grade_reply(text, asked, "strict") == grade_reply(text, asked, "content")
    if answer.strip():
        assert read_answer(text, asked, "content") == parse(text).answer


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (NUMBER, "1+1"),
        (NUMBER, "无法确定"),
        (NUMBER, "maybe"),
        (NUMBER, " or ".join(f"{n}%" for n in range(99))),
        (NUMBER, "\\boxed{12.5\\%} or \\boxed{13\\%}"),
        (question("choice", "B", choices=OPTIONS), "A B C D are all plausible"),
        (question("choice", "B", choices=OPTIONS), "\\boxed{A} or \\boxed{B}"),
        (question("choice", "B", choices=OPTIONS), "not sure"),
        (question("yes_no", "yes"), "maybe"),
        (question("yes_no", "yes"), "it was in 2019 that they began"),
        (question("label", "1", choices={"0": "Bearish", "1": "Bullish"}), "hard to say, not bullish"),
    ],
)
def test_what_could_not_be_right_whatever_the_gold_is_undecided_and_evades(asked: Question, answer: str) -> None:
    graded = grade_reply(render("a", answer), asked, "strict")
    assert (graded.strict.value, graded.scaled.value, graded.evades) == (None, None, True)


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (NUMBER, "it rose from 10% to 12.5%"),
        (NUMBER, "more than 12.5%"),
        (question("text", "rates rose"), "yields went up"),
        (question("choice", "B", choices=OPTIONS), "A is plausible, B is better"),
        (NUMBER, "the answer is 12.5% " + "x " * 3000),
    ],
)
def test_an_undecided_answer_that_commits_to_something_does_not_evade(asked: Question, answer: str) -> None:
    graded = grade_reply(render("a", answer), asked, "strict")
    assert (graded.strict.value, graded.evades, graded.abstains) == (None, False, False)
    assert grade_reply(answer, asked, "content").strict.value in (None, 1)


@pytest.mark.parametrize("gold", [None, "", "see note 5 and 6"])
def test_nothing_evades_a_gold_that_cannot_be_read(gold: str | None) -> None:
    graded = grade_reply(render("a", "12.5%"), question("number", gold), "strict")
    assert (graded.strict.value, graded.evades) == (None, False)


def test_the_grade_of_the_answer_as_read_is_the_grade_of_the_reply() -> None:
    text = "Income rose.\n\nThe final answer is **12.5%**.\n\nAnything else?"
    assert read_answer(text, NUMBER, "content") == "12.5%."
    assert grade_reply(text, NUMBER, "content")[1:3] == grade("12.5%.", NUMBER)


@pytest.mark.parametrize("kind", ["number", "choice", "yes_no", "label", "text"])
@pytest.mark.parametrize(
    "piece",
    [
        *(
            "the answer is 5\n",
            "答案是",
            "answer: ",
            "**5** ",
            "**",
            "so\n",
            "<answer>",
            "</answer>",
            "<answer>5",
            "B\n",
        ),
        *("\\boxed{5} or ", "not sure ", "是\n", "####", "the answer to ", "\n", "无法", "cannot ", "1+1 ", "选A"),
    ],
)
def test_hostile_replies_are_graded_in_linear_time(kind: str, piece: str) -> None:
    gold = {"number": "5", "choice": "A", "yes_no": "yes", "label": "0", "text": "x"}[kind]
    choices = {"choice": OPTIONS, "label": {"0": "Bearish", "1": "Bullish"}}.get(kind, {})
    text = (piece * 100_000)[:100_000]
    began = time.process_time()
    assert grade_reply(text, question(kind, gold, choices=choices), "content").strict.why
    assert time.process_time() - began < 1
