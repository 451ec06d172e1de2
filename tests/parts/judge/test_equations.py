"""Find and recompute the equations of a trace."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finr1.parts.judge.rules.comparisons import comparisons
from finr1.parts.judge.rules.equations import equations
from finr1.parts.judge.rules.expressions import Token, evaluate, tokenise


def value(text: str) -> float | None:
    return evaluate(tokenise(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("2 ^ 3 ^ 2", 512),  # powers bind to the right
        ("-2 ^ 2", -4),
        ("2 ^ -1", 0.5),
        ("10 - 4 - 3", 3),
        ("100 / 10 / 5", 2),
        ("10 - (-5)", 15),
        ("2(3 + 4)", 14),
        ("(100)(1.05)", 105),
        ("5% × 200", 10),
        ("(0.1 + 0.1)%", 0.002),
        ("sqrt(0.04)", 0.2),
        ("√4 + 1", 3),
        ("3 x 4 ÷ 6", 2),
        ("1.2亿 / 3000万", 4),
        ("1,000 * 1.05 ** 2", 1102.5),
        ("[10 + {20}] / 3", 10),
    ],
)
def test_evaluate(text: str, expected: float) -> None:
    assert value(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text", ["", "1 +", "* 2", "(1 + 2", "1 + 2)", "()", "1 / 0", "(-8) ^ 0.5", "9 ^ 9999", "10 ^ 999", "sqrt(-1)"]
)
def test_what_is_no_finite_expression_is_none(text: str) -> None:
    assert value(text) is None


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("growth = (120 - 100) / 100 = 0.2 = 20%", [True, True]),
        ("growth = (120 - 100) / 100 = 0.2 = 21%", [True, False]),
        ("120 - 100 = 21", [False]),
        ("- 5 + 3 = 8", [True]),  # a bullet
        ("1. 120 - 100 = 20", [True]),
        ("Step 2: 20 ÷ 100 = 0.2, or 20%", [True, True]),
        ("Revenue in 2019 = 120", []),
        ("1 USD = 7.1 CNY", []),
        ("100 shares - 20 shares = 80 shares", [True]),
        ("5元/股 × 100股 = 500元", [True]),
        ("120万元减去100万元等于20万元", [True]),
        ("120万元减去100万元等于25万元", [False]),
        ("120 minus 100 is 20", [True]),
        ("120 minus 100 is 25", [False]),
        ("25% of 200 = 50", [True]),
        ("0.2 × 100 = 20%", [True]),
        ("120 - 100 = 20 million", [True]),
        ("12.5% - 10% = 2.5", [True]),
        ("a = 20 / 100 = 0.2 (20%)", [True]),
        ("(120 - 100)\n= 20", [True]),
        ("PV = 1000/(1.05)^{2} \\approx 907.03", [True]),
        ("\\frac{120-100}{100} = 20\\%", [True]),
        ("0.4 × 16% + 0.6 × 6% = 6.4% + 3.6% = 10%", [True, True]),
        ("1/3 = 0.33\n0.3333 × 300 = 100", [True, True]),
        ("1000 × 1.157625 = 1157.63", [True]),
        ("380 / 475 = 1", [False]),  # one digit must be within 1%
        ("380 / 475 = 0.8", [True]),
        ("x = 5 and 3 + 2 = 5", [True]),
        ("f(2) = 5", []),
        ("nothing at all", []),
    ],
)
def test_links(text: str, links: list[bool]) -> None:
    assert [equation.holds for equation in equations(text)] == links


def test_a_rounded_result_may_be_carried_on_unrounded() -> None:
    assert [e.holds for e in equations("2 / 3 = 0.67\n0.67 * 300 = 200")] == [True, True]
    assert [e.holds for e in equations("0.67 * 300 = 200")] == [False]


def test_inputs_and_results() -> None:
    (equation,) = equations("first line\n30 / 12 = 2.5")
    assert equation.line == 1
    assert [(token.value, token.kind) for token in equation.inputs] == [(30, "number"), (12, "by")]
    assert equation.results[0].value == 2.5


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("0.05 is not above 0.3", True),
        ("0.05 is above 0.3", False),
        ("-2% is below 0", True),
        ("2.5高于1：是", True),
        ("2.5不高于1", False),
        ("5 >= 5", True),
        ("5 > 5", False),
    ],
)
def test_comparisons(text: str, holds: bool) -> None:
    assert [comparison.holds for comparison in comparisons(text)] == [holds]


@pytest.mark.parametrize(
    "piece", ["(", "1+", "1=2=", "1 = ", "2^", "-", "= ", "a ", "9", "=\n", "1 x ", "sqrt", "1+1=2\n", "1 is above "]
)
def test_hostile_traces_are_read_in_linear_time(piece: str) -> None:
    def seconds(length: int) -> float:
        text = (piece * length)[:length] + "1"
        began = time.process_time()
        equations(text)
        comparisons(text)
        return time.process_time() - began

    assert seconds(25_000) < 1.5


def test_deep_brackets_do_not_exhaust_the_stack() -> None:
    tokens = [Token("open", "(")] * 50_000 + [Token("number", "1", 1.0)] + [Token("close", ")")] * 50_000
    result = evaluate(tokens)
    assert result is not None and math.isclose(result, 1.0)


@given(st.floats(-1e9, 1e9), st.sampled_from("+-*/"), st.one_of(st.just(0.0), st.floats(-1e9, 1e9)))
def test_two_numbers_compute_as_they_do_in_brackets(left: float, op: str, right: float) -> None:
    numbers = [Token("number", "", value) for value in (left, right)]
    plain = [numbers[0], Token("op", op), numbers[1]]
    bracketed = [Token("open", "("), *plain, Token("close", ")")]
    assert evaluate(plain) == evaluate(bracketed)
