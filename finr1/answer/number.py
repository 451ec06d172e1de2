r"""Read the numbers of a text, in the notations of English and Chinese reports.

    >>> texts = ("(1,234)", "$1.2 million", "50 bps", "百分之二十", "1.2万亿元", "1亿2000万", "3 1/2", "3元5角", "5-7%")
    >>> for text in texts:
    ...     print(text, [number.value for number in read_numbers(text)])
    (1,234) [-1234.0]
    $1.2 million [1200000.0]
    50 bps [0.005]
    百分之二十 [0.2]
    1.2万亿元 [1200000000000.0]
    1亿2000万 [120000000.0]
    3 1/2 [3.5]
    3元5角 [3.5]
    5-7% [0.05, 0.07]

A `Number` keeps its value, half of the last digit shown, and the factor of its unit, so that comparison can respect the
precision shown and separate `25%` from a bare `25`. Patterns have no nested repetition: reading is linear in the text.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from functools import lru_cache
from itertools import islice

from finr1.answer import number_words
from finr1.answer.clean import clean
from finr1.answer.units import (
    CURRENCY,
    DENOMINATORS,
    DIGITS,
    LETTER,
    UNITS,
    Number,
    fraction_half_unit,
    one_of,
    starts_with_any,
)

_MAX_DIGITS = 400
_CHINESE_TENTH = r"[成折](?![本功立为为长長員员交都熟分果效就旧舊扣算现現合])"
_UNIT_WORD = f"{starts_with_any((*UNITS, *'成折'))}(?:{one_of(UNITS)}|{_CHINESE_TENTH})"
_CURRENCY = rf"(?-i:(?=[$€£¥₹₩A-Z人美港欧英日])(?:{CURRENCY}))"
_NOT_A_CLASS = r"(?!(?<!M)\s(?:shares?|stocks?|notes?|bonds?|bills?|forms?|accounts?)\b)"  # 5 B shares; 5 M shares
_NUMBER = re.compile(
    r"(?-i:(?=[-负負\s\d.$€£¥₹₩A-Z人美港欧英日mn]))"
    rf"(?<![A-Za-z_\d./])(?P<minus>(?<![\d)%‰万亿千元])(?<!\d[kmbt])(?<!\d[bm][nm])-|[负負]|minus\s|negative\s)?+\s?+"
    rf"(?:{_CURRENCY}\s?+(?:{_CURRENCY}\s?+)?+(?P<minus2>-)?+)?+"
    rf"(?P<digits>{DIGITS})(?:(?P<mixed>[\s又]\d{{1,4}}(?=/))?(?:/|\s?/\s?(?![\d.,]{{1,30}}\s?%))(?P<under>{DIGITS})(?!/|\d|\.\d))?"
    r"(?:(?P<exponent>[eE][-+]?\d{1,3}(?!\w)|\s?[×xX*·]\s?10\s?\^\s?[{(]?(?P<power>[-+]?\d{1,3})[)}]?)"
    r"|\s?(?:\^|\*\*)\s?[{(]?(?P<raised>[-+]?\d{1,3})(?!\.?\d|/\d)[)}]?)?"
    rf"(?:(?:\.\.\.)?(?:\$|\s?{_CURRENCY})?\s{{0,3}}(?P<some>[余多几幾](?=[万萬亿億]))?(?P<unit>{_UNIT_WORD})"
    rf"|\s?\((?:(?:in|单位|金额|amounts?|figures|expressed|dollars|of)\b:?|单位|{_CURRENCY}"
    rf"|[$,:\s])*+(?P<noted>{_UNIT_WORD})"
    r"[^\d()]{0,24}\)"
    rf"|(?P<letter>[kmbtKMBT])(?![A-Za-z^])(?:个百分点)?|\s(?P<capital>[KMBT])(?![A-Za-z\d^&]|[-./][A-Za-z\d]"
    rf"|\s&){_NOT_A_CLASS})?",
    re.IGNORECASE,
)
_UNIT = re.compile(rf"(?<![A-Za-z])(?:{one_of(UNITS)})", re.IGNORECASE)
_UNIT_AFTER_BRACKET = re.compile(rf"\s?\)\s?({one_of(UNITS)})", re.IGNORECASE)
_RANGE_JOINT = re.compile(r"\s?[~至到]\s?|-|\s(?:to|or)\s?")
_ENDS_WITH_IS = re.compile(r"\b(?:is|are|was|were)$", re.IGNORECASE)
_NO_NUMBER = re.compile(r"[A-Za-z]\d|_")  # what follows shows that the digits are part of a label: 3Q19, 0x1F, 1_000
_COINS = {"角": 0.1, "毛": 0.1, "分": 0.01}  # fractions of a yuan
_SINGLE = re.compile(
    rf"[\s(]*(?P<minus>-)?\s?{_CURRENCY}?\s?(?P<minus2>-)?"
    r"(?P<whole>\d{1,3}(?P<mark>[ .'’])\d{3}(?:(?P=mark)\d{3})*|\d{1,2}(?:,\d\d)+,\d{3}|\d+)"
    rf"(?P<point>[.,])?(?(point)(?P<decimals>\d+))\s?{_CURRENCY}?\s?(?P<unit>{one_of(UNITS)})?[^\d]{{0,12}}",
    re.IGNORECASE,
)
_MAX_SINGLE_CHARS = 60
_ANY_DIGIT = re.compile(r"\d")


@lru_cache(maxsize=1024)
def unit_factor(unit: str) -> float:
    """The factor of a unit; 1.0 for an unknown one.

    >>> unit_factor("%"), unit_factor("USD million"), unit_factor("万元"), unit_factor("shares")
    (0.01, 1000000.0, 10000.0, 1.0)
    """
    match = _UNIT.search(clean(unit))
    return UNITS[match.group().lower()] if match else 1.0


def read_numbers(text: str, cleaned: bool = False, most: int | None = None) -> list[Number]:
    """Every number of a text, in order.

    Args:
        text: any text.
        cleaned: the text has already been through `clean`.
        most: read at most this many.

    Chinese numerals are read only in a text without digits, except for fractions: `百分之二十` and `五分之一` always.
    Brackets mean minus only where accountants write them: `(1,234)` alone, after a currency sign, or after `=` or `:`;
    not in `0.2 (20%)`. The first number of a range takes the unit of the second: `5-7%`.
    """
    text = text if cleaned else clean(text)
    has_numerals = not text.isascii() and number_words.HAN.search(text) is not None
    tries = None if most is None else 5 * most  # a hostile text may hold many matches that are not numbers
    denominators = islice(number_words.FRACTION_OF.finditer(text), tries) if "分之" in text else ()
    fractions = {match.end(): match for match in denominators}  # by where the numerator starts
    numbers: list[Number] = []
    last_factor = 1.0  # of the last part of the last number: 1亿2000万 may go on with 千, not with 亿
    for match in islice(_NUMBER.finditer(text), tries):
        number = _number_from_match(match, text)
        if number is None:
            continue
        if fractions:
            if text.startswith(("分之", "又"), number.end):
                continue
            at = match.start("digits")
            number = _chinese_fraction(number, fractions[at]) if at in fractions else number
            if number is None:
                continue
        if number.factor != 1.0 and numbers:
            last = numbers[-1]
            if last.end == number.start and 1 < number.factor < last_factor and text[last.end - 1] in "万亿千萬億":
                value = last.value + (number.value if last.value >= 0 else -number.value)  # 1亿2000万
                numbers[-1] = last._replace(value=value, half_unit=number.half_unit, end=number.end)
                last_factor = number.factor
                continue
            if last.end == number.start and _share_a_unit(last, number, text):
                value = last.value * number.factor / 100 + number.value
                numbers[-1] = last._replace(
                    value=value, half_unit=number.half_unit, factor=number.factor, end=number.end
                )
                last_factor = number.factor
                continue
            if last.factor == 1.0 and _RANGE_JOINT.fullmatch(text, last.end, number.start):
                is_same = abs(last.value - number.value) <= number.half_unit  # 0.125 or 12.5%
                numbers[-1] = last if is_same or 1900 <= last.value <= 2100 else last.times(number.factor)
        elif numbers and number.bare and last_factor > 1.0 and text[numbers[-1].end - 1] in "百千万亿萬億":
            joined = _with_small_part(numbers[-1], number, last_factor, text)
            if joined:
                numbers[-1], last_factor = joined, 1.0
                continue
        numbers.append(number)
        last_factor = number.factor
        if most is not None and len(numbers) >= most:
            return numbers
    if text.isascii():
        return numbers
    if has_numerals:
        numbers = _merge(numbers, list(number_words.chinese_numbers(text, not numbers, tries)))
    if "半" in text:
        numbers = [number_words.and_a_half(number, text) for number in numbers]
    if "角" in text or "毛" in text or "块" in text:
        numbers = _join_coins(numbers, text)
    return numbers if most is None else numbers[:most]


def _with_small_part(large: Number, small: Number, unit: float, text: str) -> Number | None:
    """`1万5`, where the 5 counts thousands, and `1千零1`; None for other digits after a scale word."""
    between, digits = text[large.end : small.start], text[small.start : small.end]
    if not digits.isdigit() or (between != "零" and (between or len(digits) > 1)):
        return None
    added = small.value * (1.0 if between else unit / 10)
    value = large.value + math.copysign(added, large.value)
    return large._replace(value=value, half_unit=0.5 if between else unit / 20, end=small.end)


def _share_a_unit(thousands: Number, hundreds: Number, text: str) -> bool:
    """Whether 千 counts the unit of the 百 after it: `3千8百万` is 38 million."""
    unit = text[hundreds.end - 2 : hundreds.end]
    return text[thousands.end - 1] == "千" and thousands.factor == 1e3 and unit[0] == "百" and unit[1] in "万亿萬億"


def _merge(in_digits: list[Number], in_numerals: list[Number]) -> list[Number]:
    """Both in order of place, without digits that are part of a number in numerals (`3分之一`)."""
    if not in_digits or not in_numerals:
        return in_digits or in_numerals
    starts = [number.start for number in in_numerals]
    before = [in_numerals[bisect_right(starts, number.start) - 1] for number in in_digits]
    separate = [
        number for number, other in zip(in_digits, before, strict=True) if not other.start <= number.start < other.end
    ]
    return sorted([*separate, *in_numerals], key=lambda number: number.start)


_DIGITS_GROUP = _NUMBER.groupindex["digits"]
_GROUPS = ("under", "mixed", "exponent", "power", "raised", "unit", "noted", "letter", "capital")


def _number_from_match(match: re.Match[str], text: str) -> Number | None:
    """The number of a match of `_NUMBER`; None where the digits are not one (`1.2.3`, `3Q19`)."""
    plain = match.lastindex == _DIGITS_GROUP  # digits and perhaps a sign: the fast path, by far the most frequent
    shown, minus, minus2 = match.group("digits", "minus", "minus2")
    start, end = match.span()
    after = match.end("digits")
    if len(shown) > _MAX_DIGITS or (text[after : after + 1] == "." and text[after + 1 : after + 2].isdigit()):
        return None  # 1.2.3
    digits = shown.replace(",", "")
    value = float(digits)
    half_unit = 0.5 * 10.0 ** -len(digits.partition(".")[2]) if "." in digits else 0.5
    next_char = text[end : end + 1]
    if plain and not (next_char.isalpha() or next_char in (")", " ", "_")):
        value = value if (minus is None) == (minus2 is None) else -value
        return Number(value, half_unit, 1.0, start, end) if math.isfinite(value) else None
    under, mixed, exponent, power, raised, unit, noted, letter, capital = match.group(*_GROUPS)
    if under:
        value, half_unit = _fraction_value(value, mixed, under)
    if exponent:
        scale = int(power or exponent[1:])
        if abs(scale) > 300:
            return None
        value, half_unit = value * 10.0**scale, half_unit * 10.0**scale
    elif raised:
        value = _power(value, int(raised)) if not text.startswith(("^", "**"), end) else math.nan
        half_unit = fraction_half_unit(value)
    if capital:
        letter = capital if capital.isupper() else None
        end = end if letter else match.start("capital") - 1
    factor = 1.0
    unit = unit or noted
    if unit:
        factor = UNITS.get(unit.lower(), 0.1)  # 成, 折
        if unit == "折" and value > 10:
            factor = 0.01
    elif letter:
        factor = LETTER[letter.lower()] * (0.01 if text.endswith("个百分点", match.start("letter"), end) else 1.0)
    elif _NO_NUMBER.match(text, end):
        return None
    negative = (minus is None) != (minus2 is None)
    if not under and text.find(")", end, end + 3) >= 0 and _is_in_accounting_brackets(start, end, text):
        negative = True
        outside = _UNIT_AFTER_BRACKET.match(text, end)
        if outside and factor == 1.0:
            factor, end = UNITS[outside[1].lower()], outside.end()
    if not math.isfinite(value):
        return None
    return Number(-value * factor if negative else value * factor, half_unit * factor, factor, start, end)


def _fraction_value(whole: float, mixed: str | None, under: str) -> tuple[float, float]:
    """The value of `3/4` or `1 3/4`, and half of its last digit; NaN for what is not a fraction."""
    denominator = float(under.replace(",", "")) if len(under) <= _MAX_DIGITS else 0.0
    numerator = float(mixed.lstrip("又")) if mixed else whole
    if not denominator or (mixed and (numerator >= denominator or whole % 1)):
        return math.nan, 0.0
    value = numerator / denominator
    if mixed and not 1900 <= whole <= 2100:  # "in 2019 3/4 of it": a year, not a mixed number
        value += whole
    return value, fraction_half_unit(value)


def _power(base: float, power: int) -> float:
    """`base ** power`; NaN on overflow and for 0 to a negative power."""
    try:
        return float(base**power)
    except (OverflowError, ZeroDivisionError):
        return math.nan


def _is_in_accounting_brackets(start: int, end: int, text: str) -> bool:
    """Whether brackets around a number mean minus: nothing, a currency sign, `=`, `:` or "is" stands before them."""
    before, after = text[max(start - 12, 0) : start].rstrip(), text[end : end + 3].lstrip()
    if not before.endswith("(") or not after.startswith(")"):
        return False
    outside = before[:-1].rstrip()
    return not outside or outside == "-" or outside[-1] in "=≈:$€£¥₹|为是" or _ENDS_WITH_IS.search(outside) is not None


def _chinese_fraction(numerator: Number, denominator: re.Match[str]) -> Number | None:
    """`百分之3.5`, `16分之5`, `1又16分之5`: a numerator in digits after a match of `FRACTION_OF`."""
    under, sign = denominator["under"], -1.0 if denominator["minus"] else 1.0
    factor = number_words.denominator_factor(under)
    if factor is None:
        return None
    factor *= sign
    if under in DENOMINATORS:  # a unit like %
        number = numerator.times(factor)
        return number._replace(factor=numerator.factor * abs(factor), start=denominator.start())
    value = numerator.value * factor
    if whole_text := denominator["whole"]:
        whole = float(whole_text) if whole_text.isdecimal() else number_words.chinese_integer(whole_text)
        if whole is None:
            return None
        value += sign * whole
    if not math.isfinite(value):
        return None
    return Number(value, fraction_half_unit(value), 1.0, denominator.start(), numerator.end)


def _join_coins(numbers: list[Number], text: str) -> list[Number]:
    """Join yuan and their fractions: `3元5角` is 3.5, `八角` 0.8, `五元三毛二分` 5.32, `三块五` 3.5."""
    joined: list[Number] = []
    for number in numbers:
        place = _COINS.get(text[number.end : number.end + 1]) if number.bare else None
        last = joined[-1] if joined else None
        if last is not None and text[last.end : number.start] == "块" and _means_tenths(number, text):
            place = 0.1
        follows = last is not None and text[last.end : number.start].strip() in ("元", "块", "圆", "角", "毛")
        if place and last is not None and follows:
            value = last.value + math.copysign(place * number.value, last.value)
            joined[-1] = last._replace(value=value, half_unit=place / 2, end=number.end)
        elif place == 0.1:
            joined.append(number._replace(value=number.value * place, half_unit=place / 2))
        else:
            joined.append(number)
    return joined


def _means_tenths(number: Number, text: str) -> bool:
    """Whether a number after 块 counts tenths: one figure that nothing follows, as in `三块五`, not `三块五斤`."""
    return number.bare and number.end - number.start == 1 and not text[number.end : number.end + 1].isalnum()


def single_number(text: str) -> Number | None:
    """The number that a whole cleaned text is, in English words or with separators that `read_numbers` does not read.

    A comma separates decimals where it cannot separate thousands. None for every other text.

    >>> texts = ("twenty percent", "1 234 567", "1.234.567", "12,34,567", "1000,99", "0,125", "1.234,56", "1,234")
    >>> [number.value if (number := single_number(text)) else None for text in texts]
    [0.2, 1234567.0, 1234567.0, 1234567.0, 1000.99, 0.125, 1234.56, None]
    """
    if len(text) > _MAX_SINGLE_CHARS:
        return None
    match = _SINGLE.fullmatch(text)
    if not match:
        return None if _ANY_DIGIT.search(text) or not text.isascii() else number_words.english_number(text)
    shown, decimals, point = match["whole"], match["decimals"] or "", match["point"]
    separators = {c for c in shown if not c.isdigit()}
    plain = "".join(c for c in shown if c.isdigit())
    thousands = point == "," and len(decimals) == 3 and len(plain) <= 3 and plain != "0"  # 1,234
    if thousands or (not separators and point != ",") or (separators and point in separators):
        return None
    if separators == {","} and point == ",":
        return None
    if separators == {"."} and shown.count(".") == 1 and not point:
        return None  # 1.234 has decimals
    factor = UNITS[match["unit"].lower()] if match["unit"] else 1.0
    value = float(f"{plain}.{decimals or 0}")
    negative = bool(match["minus"]) != bool(match["minus2"])
    return Number(-value if negative else value, 0.5 * 10.0 ** -len(decimals), 1.0, 0, len(text)).times(factor)


def is_only_numbers(text: str) -> bool:
    """Whether a text holds numbers with their units and nothing else: `1800`, `1,800元`, `(5.3%)`, `3, 4`, `1.2x`.

    Not for a comparison (`1.2 > 1`), nor for a bare `1` or `0`, which may stand for yes and no.
    """
    plain = clean(text).strip()
    if len(plain) > _MAX_SINGLE_CHARS or plain.strip("$().*") in ("0", "1"):
        return False
    numbers = read_numbers(plain, cleaned=True)
    if not numbers:
        return single_number(plain) is not None
    starts, ends = [*(number.start for number in numbers), len(plain)], [0, *(number.end for number in numbers)]
    between = "|".join(plain[end:start] for end, start in zip(ends, starts, strict=True))
    return _NOT_WORDS.fullmatch(between) is not None


_NOT_WORDS = re.compile(
    rf"(?:[\s|$,.;:()\[\]*\"'+\-~≈、]|{CURRENCY}|元|yuan|dollars?|times|x|倍|年|天|days?|years?|shares?|股)*+",
    re.IGNORECASE,
)
