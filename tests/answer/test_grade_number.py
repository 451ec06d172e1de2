"""Which numbers of an answer count, other separators, ranges, and what stays undecided."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finr1.answer.candidates import MAX_NUMBERS, candidates
from finr1.answer.grade import grade
from finr1.answer.number import read_numbers, single_number
from finr1.core.types import Question


def verdicts(gold: str, answer: str, asked: str = "?", **meta: Any) -> tuple[float | None, float | None]:
    prompt = [{"role": "user", "content": asked}]
    question = Question("test", "d", "en", "reasoning business", "number", prompt, gold, meta=meta)  # type: ignore[arg-type]
    grades = grade(answer, question)
    return grades.strict.value, grades.scaled.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 234 567", 1234567), ("1 000", 1000), ("1.234.567", 1234567), ("1'234.5", 1234.5), ("12,34,567", 1234567),
        ("1000,99", 1000.99), ("2,74", 2.74), ("0,125", 0.125), ("1.234,56", 1234.56), ("€ 1.234,56", 1234.56),
        ("-1 000,5%", -10.005), ("1,5 million", 1.5e6), ("twenty percent", 0.2),
    ],
)  # fmt: skip
def test_other_separators_where_the_number_is_alone(text: str, value: float) -> None:
    number = single_number(text)
    assert number is not None and number.value == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    "text", ["1,234", "1.234", "42", "1,234.5", "1,2,3", "1 2", "12 34", "3, 4", "1.2.3.4", "x", "1 000" * 20]
)
def test_other_texts_have_no_other_reading(text: str) -> None:
    assert single_number(text) is None


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("In 2019 and 2018 it was 5", [5]), ("S&P 500: 5%", [0.05]), ("the 3rd was 5", [5]), ("2019年12月31日为5", [5]),
        ("2019 and 2018", [2019, 2018]), ("2019年为五千", [5000]), ("answer is 5. Then 6 = 6", [5]),
        ("a = 4, b = 5", [5]), ("in 2019 2018", [2019, 2018]),
        ("60 (= 12 × 5)", [60, 12, 5]), ("x = 6 × 10^2", [600]), ("答案是5，因为2+3=5.0", [5]), ("FY2019", [2019]),
        ("—", [0]),
    ],
)  # fmt: skip
def test_what_counts_as_the_answer(text: str, values: list[float]) -> None:
    assert [number.value for number in candidates(text)[1]] == values


def test_a_range_shares_its_unit_and_a_difference_does_not() -> None:
    assert [n.value for n in read_numbers("5-7%")] == pytest.approx([0.05, 0.07])
    assert [n.value for n in read_numbers("3至5亿")] == [3e8, 5e8]
    assert [n.value for n in read_numbers("120 - 20%")] == pytest.approx([120, -0.2])
    assert [n.value for n in read_numbers("from 2019 to 7%")] == pytest.approx([2019, 0.07])


def test_a_word_of_decrease_leaves_the_sign_open_unless_it_is_asked_for() -> None:
    assert verdicts("5%", "a decrease of 5%") == (None, None)
    assert verdicts("5%", "a decrease of 5%", asked="By how much did it decline?") == (1, 1)
    assert verdicts("-5%", "a decrease of 5%") == (None, None)
    assert verdicts("-5%", "a decrease of 6%") == (0, 0)


def test_bounds_units_and_currencies() -> None:
    assert verdicts("5%", "more than 5%") == (None, None)
    assert verdicts("5", "more than 5%") == (0, None)
    assert verdicts("5万美元", "5万元") == (0, 0)
    assert verdicts("5", "5 million", unit="million") == (1, 1)


def test_a_question_says_which_time_or_unit_it_asks_for() -> None:
    assert verdicts("5", "5 months", asked="How many years until maturity?") == (None, None)
    assert verdicts("5", "60 months", asked="How many years until maturity?") == (None, None)
    assert verdicts("5", "5 years", asked="How many years until maturity?") == (1, 1)
    assert verdicts("6", "6天", asked="期限是多少个月？") == (None, None)
    assert verdicts("25", "0.25%", asked="By how many basis points did it widen?") == (1, 1)
    assert verdicts("-6.5%", "-6.5", asked="销售额同比变动百分比是多少？") == (1, 1)


def test_very_many_numbers_are_no_answer() -> None:
    listed = " ".join(str(n) for n in range(MAX_NUMBERS))
    assert verdicts("7", listed) == (None, None) == verdicts("7", f"{listed} 7000 8000")
    assert verdicts("7000000", listed) == (0, 0)


@given(st.decimals(-(10**6), 10**6, places=3).filter(lambda value: abs(value) > 1))
def test_every_separator_says_the_same(value: Any) -> None:
    plain = f"{value:f}"
    grouped = f"{value:,f}"
    others = (grouped, grouped.replace(",", " "), grouped.translate(str.maketrans(",.", ".,")), plain.replace(".", ","))
    for other in others:
        if other != plain.replace(".", ",") or abs(value) >= 1000:  # 1,234 has thousands
            assert verdicts(plain, f"\\boxed{{{other}}}") == (1, 1), other
