"""Grading: golden cases as data, the properties behind them, and hostile answers."""

import json
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finr1.answer.grade import LONGEST_ANSWER, grade
from finr1.answer.number import read_numbers
from finr1.answer.precision import same_number
from finr1.core.types import Question
from tests.helpers.runner import REPO

CASES = [
    json.loads(line)
    for path in sorted((REPO / "tests" / "golden").glob("answer_cases*.jsonl"))
    for line in path.read_text(encoding="utf-8").splitlines()
]


def question(kind: str, gold: str | None, **more: Any) -> Question:
    prompt = [{"role": "user", "content": "?"}]
    return Question("test", "d", more.pop("language", "en"), "reasoning business", kind, prompt, gold, **more)  # type: ignore[arg-type]


def named(case: dict[str, Any]) -> str:
    return f"{case['kind']}-{case['gold']}-{str(case['answer'])[:60]!a}"


@pytest.mark.parametrize("case", CASES, ids=named)
def test_golden(case: dict[str, Any]) -> None:
    more = {"language": case["language"], "choices": case.get("choices", {}), "meta": case.get("meta", {})}
    grades = grade(case["answer"], question(case["kind"], case["gold"], **more))
    assert (grades.strict.value, grades.scaled.value) == (case["strict"], case["scaled"]), grades
    assert grades.strict.why and grades.scaled.why


def test_there_are_enough_golden_cases_with_their_sources() -> None:
    assert len(CASES) >= 400
    assert all(case["source"] for case in CASES)
    asked = [json.dumps([case.get(k) for k in ("kind", "gold", "answer", "choices", "meta")]) for case in CASES]
    assert len(set(asked)) == len(CASES)
    assert {case["kind"] for case in CASES} == {"number", "choice", "yes_no", "label", "text", "code"}
    for language in ("en", "zh"):
        for kind in ("number", "choice", "yes_no", "label", "text"):
            cases = [case for case in CASES if (case["kind"], case["language"]) == (kind, language)]
            assert {case["strict"] for case in cases} == {case["scaled"] for case in cases} == {0, 1, None}


@given(st.floats(-1e6, 1e6).filter(lambda x: abs(x) > 1e-3), st.integers(0, 6))
def test_a_gold_as_written_scores_one_and_the_next_but_one_last_digit_zero(value: float, digits: int) -> None:
    gold = f"{value:.{digits}f}"
    assert grade(gold, question("number", gold)).strict.value == 1
    beside = f"{float(gold) + 2 * 10.0**-digits:.{digits}f}"
    assert grade(beside, question("number", gold)).strict.value == 0


@given(st.floats(-1e6, 1e6).filter(lambda x: abs(x) > 1), st.sampled_from(["", "%", " million", "亿", "bps"]))
def test_strict_implies_scaled(value: float, unit: str) -> None:
    gold = question("number", f"{value:.2f}{unit}")
    for answer in (f"{value:.2f}", f"{value / 100:.4f}", f"{value:.1f}{unit}", f"{-value:.2f}{unit}"):
        grades = grade(answer, gold)
        assert grades.strict.value != 1 or grades.scaled.value == 1


@given(st.floats(0.01, 1e6))
def test_the_sign_must_match(value: float) -> None:
    gold, answer = read_numbers(f"{value:.3f}")[0], read_numbers(f"-{value:.3f}")[0]
    if gold.value > gold.half_unit:
        assert same_number(answer, gold) == (False, False)


def test_scaled_differs_from_strict_for_numbers_only() -> None:
    differing = {case["kind"] for case in CASES if case["strict"] != case["scaled"]}
    assert differing == {"number"}


def test_the_unit_asked_for_makes_the_bare_figure_strict() -> None:
    asked, silent = question("number", "25%", meta={"unit": "%"}), question("number", "25%")
    assert [grade("25", q).strict.value for q in (asked, silent)] == [1, 0]
    assert grade("25", silent).scaled.value == 1


def test_a_letter_is_undecided_where_the_prompt_shows_options() -> None:
    bare = question("yes_no", "yes")
    shown = replace(bare, prompt=[{"role": "user", "content": "Is it liquid?\nA. yes\nB. no"}])
    assert [grade("\\boxed{A}", q).strict.value for q in (bare, shown)] == [0, None]


@given(st.floats(-1e9, 1e9).filter(lambda x: abs(x) > 1), st.sampled_from(["", "%", " million", "亿元", " bps", "x"]))
def test_a_figure_is_wrong_for_a_yes_or_no(value: float, unit: str) -> None:
    for gold in ("yes", "no", "是", "否"):
        assert grade(f"\\boxed{{{value:,.2f}{unit}}}", question("yes_no", gold)).strict.value == 0


@pytest.mark.parametrize("kind", ["number", "choice", "yes_no", "label", "text"])
@pytest.mark.parametrize(
    "piece",
    [
        "1",
        "1,",
        "A,",
        "A. ",
        "A or ",
        "5 or ",
        "5%或",
        "yes ",
        "yes or ",
        "是",
        "答案:",
        "= ",
        "option ",
        "\\boxed{",
        "Bullish ",
        "(",
        ".",
    ],
)
def test_hostile_answers_are_graded_in_linear_time(kind: str, piece: str) -> None:
    gold = {"number": "5", "choice": "A", "yes_no": "yes", "label": "0", "text": "x"}[kind]
    choices = {"choice": {"A": "1", "B": "2"}, "label": {"0": "Bearish", "1": "Bullish"}}.get(kind, {})
    text = (piece * 100_000)[:100_000]
    began = time.process_time()
    assert grade(text, question(kind, gold, choices=choices)).strict.why
    assert time.process_time() - began < 1


def test_a_long_reply_that_concludes_is_graded_by_its_conclusion() -> None:
    words = "It may be 25%. " + "step " * 1200
    asked = question("number", "25%")
    assert [grade(f"{words}{end}", asked).strict.value for end in ("The answer is 24%.", "so 24%.")] == [0, None]


@pytest.mark.parametrize(
    ("kind", "gold", "first", "wrong"),
    [("number", "5", "The answer is 5. ", "The answer is 6. "), ("choice", "B", "B. stocks\n", "C. cash\n")],
)
def test_a_long_answer_that_states_it_first_is_undecided(kind: str, gold: str, first: str, wrong: str) -> None:
    choices = {"A": "bonds", "B": "stocks", "C": "cash"} if kind == "choice" else {}
    filler = "rates may move again. " * (LONGEST_ANSWER // 10)
    asked = question(kind, gold, choices=choices)
    assert grade(first + filler, asked).strict.value is None
    assert grade(wrong + filler, asked).strict.value == 0
    assert grade(wrong + filler + f"The answer is {gold}.", asked).strict.value == 1
