"""Reading numbers in English and Chinese: value, precision shown, unit; and hostile text in linear time."""

import time

import pytest

from finr1.answer.clean import clean
from finr1.answer.number import read_numbers, unit_factor


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("42", [42]),
        ("1,234,567.89", [1234567.89]),
        ("3, 4", [3, 4]),
        ("1,23", [1, 23]),
        (".5", [0.5]),
        ("-5", [-5]),
        ("- 5", [-5]),
        ("−5", [-5]),
        ("10-20", [10, 20]),
        ("20%–30%", [0.2, 0.3]),
        ("2019-2020", [2019, 2020]),
        ("-$5", [-5]),
        ("$-5", [-5]),
        ("US$3.4bn", [3.4e9]),
        ("RMB 3.2亿", [3.2e8]),
        ("(1,234)", [-1234]),
        ("$(1,234)", [-1234]),
        ("($1,234) million", [-1234e6]),
        ("income = (12)", [-12]),
        ("0.2 (20%)", [0.2, 0.2]),
        ("growth (20%)", [0.2]),
        ("3.5%", [0.035]),
        ("25\\%", [0.25]),
        ("5‰", [0.005]),
        ("50 bps", [0.005]),
        ("3 basis points", [0.0003]),
        ("2.5个百分点", [0.025]),
        ("百分之二十", [0.2]),
        ("百分之负3.5", [-0.035]),
        ("2019年增长百分之二十", [2019, 0.2]),
        ("5m", [5e6]),
        ("5 M", [5e6]),
        ("5 b", [5]),
        ("30min", [30]),
        ("1.2万亿元", [1.2e12]),
        ("1亿2000万", [1.2e8]),
        ("-1亿2000万", [-1.2e8]),
        ("3万5千", [35000]),
        ("一百二十三", [123]),
        ("二〇二四", [2024]),
        ("十二", [12]),
        ("三点五亿", [3.5e8]),
        ("一万亿", [1e12]),
        ("三亿五千万", [3.5e8]),
        ("负三点五", [-3.5]),
        ("不一定", []),
        ("3/4", [0.75]),
        ("(3/4).", [0.75]),
        ("5/0", []),
        ("\\frac{3}{4}", [0.75]),
        ("12/31/2020", [12]),
        ("1.5e6", [1.5e6]),
        ("2.5 \\times 10^{3}", [2500]),
        ("1e999", []),
        ("１，２３４．５％", [12.345]),
        ("1{,}234", [1234]),
        ("Q4 FY2019", []),
        ("CO2", []),
        ("**42**", [42]),
        ("no number", []),
    ],
)
def test_values(text: str, values: list[float]) -> None:
    assert [number.value for number in read_numbers(text)] == pytest.approx(values, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "half_unit", "factor"),
    [
        ("25", 0.5, 1),
        ("25.30", 0.005, 1),
        ("25%", 0.005, 0.01),
        ("1.2亿", 5e6, 1e8),
        ("1.5e6", 5e4, 1),
        ("50 bps", 5e-5, 1e-4),
    ],
)
def test_precision_and_unit(text: str, half_unit: float, factor: float) -> None:
    (number,) = read_numbers(text)
    assert number.half_unit == pytest.approx(half_unit)
    assert number.factor == factor
    assert number.bare == (factor == 1)


def test_figure_is_the_number_without_its_unit() -> None:
    assert read_numbers("25%")[0].figure == pytest.approx(25)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("%", 0.01),
        ("USD million", 1e6),
        ("万元", 1e4),
        ("百万元", 1e6),
        ("亿元", 1e8),
        ("bps", 1e-4),
        ("元", 1),
        ("", 1),
        ("USD", 1),
    ],
)
def test_unit_factor(unit: str, factor: float) -> None:
    assert unit_factor(unit) == factor


def test_clean_keeps_powers_apart() -> None:
    assert clean("10²") == "10^2"
    assert clean("2 ** 3") == "2 ** 3"
    assert clean("\\text{about} 5\\%") == " about 5%"


HOSTILE = [
    "1,111", "1", "1,", "(", "\\frac{", "\\text{", "{", "-", " ", "$ ", "一", "点", "一点", "1/", "1 x 10 ^ ", "1e",
    "百分之", "1 ,", "minus ", "12(34)", "\\frac{1}", "USD", "**", "1 basis ", "ﷺ", "(1.1.1", "1.", "百",
    "999,", "999,999 ", "999,/", "999 , ", "999{,}", "999，", "9 ", "1×10^",
    "6\\overline{6}", "1\\over", "1万", "半", "($ in ", "<b", "_1", "*",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_text_is_read_in_linear_time(piece: str) -> None:
    for end in ("", "x"):
        text = (piece * 100_000)[:100_000] + end
        began = time.process_time()
        read_numbers(text)
        assert time.process_time() - began < 1
