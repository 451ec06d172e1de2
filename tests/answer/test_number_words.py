"""Numbers in words, Chinese and English: generated ones are read back, and other words are not numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finr1.answer.clean import clean
from finr1.answer.number_words import chinese_integer, chinese_numbers, denominator_factor, english_number


def chinese(n: int) -> str:
    """A whole number below 10^12 in Chinese: 10050 is 一万零五十."""
    if n >= 10**4:
        size, name = (10**8, "亿") if n >= 10**8 else (10**4, "万")
        rest = n % size
        zero = "零" if rest and rest < size // 10 else ""
        return chinese(n // size) + name + zero + (chinese(rest) if rest else "")
    text = ""
    for unit, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = n // unit % 10
        if digit:
            text += "零一二三四五六七八九"[digit] + name
        elif text and n % unit and not text.endswith("零"):
            text += "零"
    return text or "零"


ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
ONES += " eighteen nineteen"
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"


def english(n: int) -> str:
    """A whole number below 10^12 in English: 1105 is one thousand one hundred and five."""
    for size, name in ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if n >= size:
            rest = n % size
            joined = " and " if 0 < rest < 100 else " " if rest else ""
            return f"{english(n // size)} {name}{joined}{english(rest) if rest else ''}"
    if n < 20:
        return ONES.split()[n]
    return TENS.split()[n // 10 - 2] + (f"-{ONES.split()[n % 10]}" if n % 10 else "")


def values(text: str) -> list[float]:
    return [number.value for number in chinese_numbers(clean(text), all_kinds=True)]


@given(st.one_of(st.integers(0, 10**4), st.integers(0, 10**12 - 1)))
def test_chinese_numerals_are_read_back(n: int) -> None:
    assert chinese_integer(chinese(n)) == n
    assert values(f"共计{chinese(n)}元") == [n]
    bank = chinese(n).translate(str.maketrans("一二三四五六七八九十百千万亿", "壹贰叁肆伍陆柒捌玖拾佰仟萬億"))
    assert chinese_integer(bank) == n


@given(st.one_of(st.integers(0, 10**4), st.integers(0, 10**12 - 1), st.integers(0, 10**9 - 1).map(lambda n: n * 1000)))
def test_english_number_words_are_read_back(n: int) -> None:
    number = english_number(english(n))
    assert number is not None and number.value == n
    negative = english_number(f"minus {english(n)} percent")
    assert negative is not None and negative.value == pytest.approx(-n / 100, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("一万三", 13000), ("四千二", 4200), ("两千四百五", 2450), ("一千零五", 1005), ("四万万", 4e8),
        ("二〇二四", 2024), ("三点五亿", 3.5e8), ("三成半", 0.35), ("七成六", 0.76), ("八折", 0.8), ("八五折", 0.85),
        ("百分之百", 1),
        ("百分之负三点五", -0.035), ("五分之一", 0.2), ("负一又二分之一", -1.5), ("一千多万", 1e7), ("约一半", 0.5),
        ("十五个基点", 0.0015),
    ],
)  # fmt: skip
def test_values(text: str, value: float) -> None:
    assert values(text) == pytest.approx([value], rel=1e-12)


@pytest.mark.parametrize(
    "text", ["一切", "一般", "第三", "十分好", "万一", "千万不要", "二三十", "成本", "零分之一", "三者"]
)
def test_what_is_no_number(text: str) -> None:
    assert values(text) == []


@pytest.mark.parametrize(
    "text", ["one of the reasons", "five six", "a", "and", "point", "the second", "x" * 1000, "one two"]
)
def test_what_no_number_words_are(text: str) -> None:
    assert english_number(text) is None


@pytest.mark.parametrize(
    ("text", "value", "half_unit"),
    [
        ("two and a half million", 2.5e6, 0.0005 * 2.5e6), ("three quarters", 0.75, 0.0005 * 1),
        ("half a million", 5e5, 375.0),
        ("one point five billion", 1.5e9, 0.05e9), ("twenty percent", 0.2, 0.005), ("a million dollars", 1e6, 0.5e6),
    ],
)  # fmt: skip
def test_spoken_values_and_precision(text: str, value: float, half_unit: float) -> None:
    number = english_number(text)
    assert number is not None
    assert (number.value, number.half_unit) == pytest.approx((value, half_unit), rel=1e-9)


def test_what_is_divided_by() -> None:
    assert [denominator_factor(under) for under in ("百", "五", "16", "零", "九九九")] == [
        0.01,
        0.2,
        1 / 16,
        None,
        1 / 999,
    ]
