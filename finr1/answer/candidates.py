"""The numbers that an answer may mean: those after its last "answer is" or `=`, without years, dates and names.

>>> [number.value for number in candidates("In 2019 revenue was 120 - 80 = $40 million")[1]]
[40000000.0]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from finr1.answer import number_words
from finr1.answer.clean import clean
from finr1.answer.date import date_spans
from finr1.answer.number import read_numbers, single_number
from finr1.answer.units import Number
from finr1.answer.words import ANSWER_IS, any_of, last_match

MAX_NUMBERS = 40  # more than these are not compared
LONGEST_SENTENCE = 1000  # characters; in longer parts incidental numbers are not filtered out
_DIGIT = re.compile(r"\d")
_EQUALS = re.compile(r"(?<![<>!=/≠])=(?!=)|≈")
_SAYS = re.compile(r"[^\W\d_]|[=≈#]")  # a text without any of these is digits and marks
_CLAUSE_END = re.compile(
    r"[。;!?\n]|\.(?=\s|$)|\(?\b(?:because|since|as|not|rather than|instead of)\b|因为|由于|而不是|而非", re.IGNORECASE
)
_BEFORE_YEAR = re.compile(
    r"(?:\b(?:in|for|of|by|to|from|since|during|at|fiscal|year|fy|and|than|vs\.?|ended|over|above|below|against|versus)|[年至到在较比]|\|)\s?$",
    re.IGNORECASE,
)
_AFTER_YEAR = re.compile(r"年|\s?[:|]")
_ROUNDING = re.compile(  # rounded to 2 decimal places, 保留两位小数
    r"\s?-?(?:decimals?|d\.?p\b|significant|sig\.? ?fig|s\.?f\b|digits?|(?:位|个)(?:有效|小数)|位(?=[,.。)]|$))",
    re.IGNORECASE,
)
_NEAREST = re.compile(r"(?:nearest|精确[到至])\s?$", re.IGNORECASE)
_NAMES = """
    S&P Russell CSI FTSE Nasdaq Nikkei Euro_Stoxx DAX ISO form note table page p. pp. step item section level option
    sfas chapter figure fig. exhibit phase tier version room line row column question problem example equation eq.
    paragraph article clause footnote appendix slide lesson volume unit lot floor gate stage basel ifrs ias asc fas
    沪深 中证 上证 标普 第 表 图 例 附注 步骤 问题
    """
_PART_OF_NAME = re.compile(rf"(?:{any_of(_NAMES)}|(?<!#)#|\bno\.|(?<![A-Za-z])[A-Z]-)\s?$", re.IGNORECASE)
_NAME_ENDS = tuple({name[-3:].lower() for name in _NAMES.split()} | {"#", "no.", "-"})
ORDINAL = re.compile(
    r"(?:st|nd|rd|th)\b|-[A-Z](?![A-Za-z])|\s?(?:o'clock|[ap]\.?m\b)|点钟|时整|[号楼页章节](?![A-Za-z\u4e00-\u9fff])"
)
EXPRESSION = re.compile(
    r"[\d)%]\s?(?:[*+÷·]|[×x](?!\s?10\s?\^))\s?[(\d$]|\)\s?[\^/]|/\s?\(|\d\s-\s\d|\)\s?-|-\s?\(|√|sqrt|\)\s?\(\d|\d\(\d"
    r"|\d:\d|\d\s:\s\d|\d\s(?:out\s)?of\s\d|\b\d{1,3}\sin\s(?:every\s)?\d{1,3}\b"
)
_DASH = re.compile(r"[$€£¥(\s]*-[)\s]*")  # a dash alone: accountants' zero
_GLUED = re.compile(r"(?<![A-Za-z])(?:c|ca|circa|approx|est|abt)\.?(?=\d)")  # c.12.5%


def candidates(text: str) -> tuple[str, list[Number]]:
    """The part of an answer that counts, and the numbers in it that may be meant (at most `MAX_NUMBERS` + 1).

    The part is what follows the last "answer is" or `答案是`, and within it what follows the last `=`, if that holds a
    number. Beside other numbers, years, dates, ordinals and numbers in names (S&P 500) do not count.

    >>> part, numbers = candidates("Margin rose in 2019. The answer is 60 / 240 = 25%.")
    >>> part, [number.value for number in numbers]
    ('25%', [0.25])
    """
    part, numbers = _candidates(text)
    return part, list(numbers)


@lru_cache(maxsize=4096)  # the filter grades every correct answer again
def _candidates(text: str) -> tuple[str, Sequence[Number]]:
    text = clean(text).strip()
    for part in _likeliest_parts(text):
        numbers = _numbers_of_part(part)
        if numbers:
            return part, numbers
    if _DASH.fullmatch(text):
        return text, [Number(0.0, 0.5, 1.0, 0, len(text))]
    if "FY" in text:
        return text, read_numbers(text.replace("FY", " "), cleaned=True, most=MAX_NUMBERS + 1)
    apart = _GLUED.sub(" ", text)
    return text, number_words.english_numbers(text) if apart == text else read_numbers(
        apart, cleaned=True, most=MAX_NUMBERS + 1
    )


def _likeliest_parts(text: str) -> list[str]:
    """The parts of a text that may hold the answer, likeliest first."""
    if _SAYS.search(text) is None:
        return [text]
    parts = [text]
    mark = last_match(ANSWER_IS, text)
    if mark:
        rest = text[mark.end() :].strip()
        end = _CLAUSE_END.search(rest, 1)
        parts.append(rest)
        if end:
            parts.append(rest[: end.start()].strip())
    equals = last_match(_EQUALS, parts[-1])
    if equals:
        tail = parts[-1][equals.end() :].strip()
        if not EXPRESSION.search(tail):  # `60 (= 12 × 5)`
            parts.append(tail)
    return parts[::-1]


def _numbers_of_part(part: str) -> list[Number]:
    numbers = read_numbers(part, cleaned=True, most=MAX_NUMBERS + 1)
    if len(numbers) == 1 and numbers[0].start == 0 and numbers[0].end >= len(part) - 1 and part[:2] != "0,":
        return numbers
    outside = part[: numbers[0].start] + part[numbers[0].end :] if len(numbers) == 1 else part
    if len(numbers) != 1 or part[:2] == "0," or _DIGIT.search(outside):
        single = single_number(part)
        if single:
            return [single]
    han = not part.isascii() and number_words.HAN.search(part) is not None
    if (len(numbers) == 1 and not han) or len(numbers) > MAX_NUMBERS or len(part) > LONGEST_SENTENCE:
        return numbers
    dates = date_spans(part)
    meant = [number for number in numbers if not _is_incidental(number, part, dates)]
    if not meant and han:  # 2019年为五千: digits hid the Chinese number
        chinese = number_words.chinese_numbers(part, True, MAX_NUMBERS)
        meant = [number for number in chinese if not _is_incidental(number, part, dates)]
    if all(map(_looks_like_year, meant)) and len(numbers) > 1:
        meant = [number for number in numbers if _looks_like_year(number)]  # "2019 and 2018": the answer is years
    return meant or numbers


def _looks_like_year(number: Number) -> bool:
    plain = number.factor == 1.0 and number.half_unit == 0.5 and number.end - number.start <= 5
    return plain and 1900 <= number.value <= 2100


def ends_in_name(before: str) -> bool:
    """Whether what stands before a number makes it part of a name: `S&P 500`, `Table 5`, 第5."""
    before = before[-12:]
    return before.rstrip().lower().endswith(_NAME_ENDS) and _PART_OF_NAME.search(before) is not None


def _is_incidental(number: Number, text: str, dates: Sequence[tuple[int, int]]) -> bool:
    """Whether a number is a year, part of a date, an ordinal, or part of a name."""
    before = text[max(number.start - 12, 0) : number.start]
    if ends_in_name(before) or ORDINAL.match(text, number.end):
        return True
    if _ROUNDING.match(text, number.end) or _NEAREST.search(before):
        return True
    if any(start < number.end <= end for start, end in dates):
        return True
    if not _looks_like_year(number):
        return False
    return _AFTER_YEAR.match(text, number.end) is not None or _BEFORE_YEAR.search(before) is not None
