"""How precise a gold is: exact, to a tolerance, as shown; the ends of its range; and rounded answers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finr1.answer.grade import grade
from finr1.core.types import Question


def verdicts(gold: str, answer: str, **meta: Any) -> tuple[float | None, float | None]:
    prompt = [{"role": "user", "content": "?"}]
    asked = Question("t", "d", "en", "reasoning business", "number", prompt, gold, meta=meta)  # type: ignore[arg-type]
    strict, scaled = grade(answer, asked)
    return strict.value, scaled.value


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("2", "2.5"), ("2", "1.5"), ("2", "2.4"), ("1", "50%"), ("0", "40%"), ("0", "0.49"), ("-1", "-50%"),
        ("2019", "2018.5"), ("1 million", "1.5 million"), ("1 million", "1,400,000"), ("1亿元", "6000万元"),
        ("0.1", "14%"), ("0.1", "0.05"), ("1%", "0.6%"), ("3.0", "3.4"), ("0%", "0.4%"), ("3至5年", "3.4至5年"),
    ],
)  # fmt: skip
def test_an_integer_is_exact_and_one_digit_is_no_licence(gold: str, answer: str) -> None:
    assert verdicts(gold, answer) == (0, 0)


def test_a_source_states_the_precision() -> None:
    assert verdicts("2", "2.4", tolerance="shown") == (1, 1) and verdicts("2", "2.5", tolerance="shown") == (0, 0)
    assert verdicts("2.5", "2.5000001", tolerance="exact") == (0, 0)
    assert verdicts("12.5%", "1/8", tolerance="exact") == (1, 1) == verdicts("12.5%", "12.50%", tolerance="exact")
    # a stated difference replaces that of the digits shown: 0.1 has five decimals in FinQA
    assert verdicts("0.1", "14%", tolerance=0.01) == (0, 0) and verdicts("0.1", "10.1%", tolerance=0.01) == (1, 1)
    assert verdicts("100", "101", tolerance=0.01) == (1, 1) and verdicts("100", "101.1", tolerance=0.01) == (0, 0)
    assert verdicts("7", "7.1", tolerance=0) == (0, 0)


@given(st.integers(-(10**6), 10**6), st.integers(1, 4))
def test_the_lower_end_rounds_to_the_gold_and_the_upper_end_away(figure: int, digits: int) -> None:
    if figure == 0:
        return
    sign = "-" if figure < 0 else ""
    gold, lower, upper = (f"{sign}{(abs(figure) * 10 + end) / 10 ** (digits + 1):.{digits + 1}f}" for end in (0, -5, 5))
    gold = gold[:-1]
    assert verdicts(gold, lower, tolerance="shown")[0] == 1
    assert verdicts(gold, upper, tolerance="shown")[0] == 0


def test_a_rounded_answer_is_undecided_in_strict_and_right_in_scaled() -> None:
    prompt = [{"role": "user", "content": "?"}]
    meta = {"tolerance": 0.01}
    asked = Question("t", "d", "en", "reasoning business", "number", prompt, "0.01266", meta=meta)  # type: ignore[arg-type]
    strict, scaled = grade("\\boxed{1.3\\%}", asked)
    assert (strict.value, scaled.value) == (None, 1) and strict.why.startswith("rounded")
    assert verdicts("0.01266", "1.3", **meta) == (0, 1)  # rounded, and without its unit
    assert verdicts("0.01266", "1%", **meta) == (0, 0) == verdicts("0.01266", "1.2%", **meta)
    assert verdicts("0.01266", "1.27%", **meta) == (1, 1)
    assert verdicts("0.01266", "1.3%") == (0, 0) == verdicts("0.01266", "1.3%", tolerance="exact")
    assert verdicts("12345", "12 thousand", **meta) == (None, 1) and verdicts("12345", "12000", **meta) == (0, 0)


def test_true_among_numbers_is_a_yes_or_no() -> None:
    assert [verdicts("True", answer)[0] for answer in ("yes", "\\boxed{True}", "False", "5")] == [1, 1, 0, 0]


@pytest.mark.parametrize("gold", ["at least 8%", ">5", "±5", "5:1", "下降5%", "1.2.3", "True", "24% or 25%", "a 5 b 6"])
@pytest.mark.parametrize("kind", ["number", "text", "label"])
def test_the_gold_itself_is_right_whatever_its_form(gold: str, kind: Any) -> None:
    asked = Question("t", "d", "en", "reasoning business", kind, [{"role": "user", "content": "?"}], gold)
    for answer in (gold, f"\\boxed{{{gold}}}", f"  {gold}.", f"**{gold}**"):
        assert [verdict.value for verdict in grade(answer, asked)] == [1, 1], answer
