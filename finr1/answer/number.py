r"""Numbers as English and Chinese reports write them: `(1,234)`, `$1.2 million`, `50 bps`, `百分之二十`, `1.2万亿元`.

A number keeps what it showed: its value, the size of its last digit, and its unit's factor (`%` 0.01, `万` 1e4,
`bn` 1e9), so that comparison can go by the precision shown and tell `25%` from a bare `25`. Patterns have no nested
repetition: reading is linear in the text.
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
    DIGITS,
    LETTER,
    DENOMINATORS,
    PERCENT,
    SCALE,
    UNITS,
    Number,
    starts_with_any,
    fraction_half_unit,
    one_of,
)

__all__ = [
    "CURRENCY",
    "DIGITS",
    "LETTER",
    "PERCENT",
    "SCALE",
    "UNITS",
    "Number",
    "clean",
    "single_number",
    "one_of",
    "is_only_numbers",
    "read_numbers",
    "unit_factor",
]

_LONGEST_DIGITS = 400
_TENTH = r"[成折](?![本功立为为长長員员交都熟分果效就旧舊扣算现現合])"
_UNIT_WORD = f"{starts_with_any((*UNITS, *'成折'))}(?:{one_of(UNITS)}|{_TENTH})"
_CURRENCY = rf"(?-i:(?=[$€£¥₹₩A-Z人美港欧英日])(?:{CURRENCY}))"
_NUMBER = re.compile(
    r"(?-i:(?=[-负負\s\d.$€£¥₹₩A-Z人美港欧英日mn]))"
    rf"(?<![A-Za-z_\d./])(?P<minus>(?<![\d)%‰万亿千元])(?<!\d[kmbt])(?<!\d[bm][nm])-|[负負]|minus\s|negative\s)?+\s?+"
    rf"(?:{_CURRENCY}\s?+(?:{_CURRENCY}\s?+)?+(?P<minus2>-)?+)?+"
    rf"(?P<digits>{DIGITS})(?:(?P<mixed>[\s又]\d{{1,4}}(?=/))?\s?/\s?(?P<under>{DIGITS})(?!/|\d|\.\d))?"
    r"(?:(?P<exponent>[eE][-+]?\d{1,3}(?!\w)|\s?[×xX*·]\s?10\s?\^\s?[{(]?(?P<power>[-+]?\d{1,3})[)}]?)"
    r"|\s?(?:\^|\*\*)\s?[{(]?(?P<raised>[-+]?\d{1,3})[)}]?)?"
    rf"(?:(?:\$|\s?{_CURRENCY})?\s{{0,3}}(?P<some>[余多几幾](?=[万萬亿億]))?(?P<unit>{_UNIT_WORD})"
    rf"|\s?\((?:in\s|单位:)?(?P<noted>{_UNIT_WORD})[^\d()]{{0,12}}\)"
    r"|(?P<letter>[kmbtKMBT])(?![A-Za-z^])(?:个百分点)?|\s(?P<capital>[KMBT])(?![A-Za-z^]))?",
    re.IGNORECASE,
)
_UNIT = re.compile(rf"(?<![A-Za-z])(?:{one_of(UNITS)})", re.IGNORECASE)
_UNIT_AFTER_BRACKET = re.compile(rf"\s?\)\s?({one_of(UNITS)})", re.IGNORECASE)
_RANGE = re.compile(r"\s?[~至到]\s?|-|\s(?:to|or)\s?")
_IS = re.compile(r"\b(?:is|are|was|were)$", re.IGNORECASE)
_LABEL = re.compile(r"[A-Za-z]\d|_")  # 3Q19, 0x1F, 1_000
_PLACES = {"角": 0.1, "毛": 0.1, "分": 0.01}  # of 元
_LONE = re.compile(
    rf"[\s(]*(?P<minus>-)?\s?{_CURRENCY}?\s?(?P<minus2>-)?"
    r"(?P<whole>\d{1,3}(?P<mark>[ .'’])\d{3}(?:(?P=mark)\d{3})*|\d{1,2}(?:,\d\d)+,\d{3}|\d+)"
    rf"(?P<point>[.,])?(?(point)(?P<decimals>\d+))\s?{_CURRENCY}?\s?(?P<unit>{one_of(UNITS)})?[^\d]{{0,12}}",
    re.IGNORECASE,
)
_LONGEST_LONE = 60


@lru_cache(maxsize=1024)
def unit_factor(unit: str) -> float:
    """What a unit's words multiply by: `%` 0.01, `USD million` 1e6, `万元` 1e4; 1.0 for any other."""
    match = _UNIT.search(clean(unit))
    return UNITS[match.group().lower()] if match else 1.0


def read_numbers(text: str, cleaned: bool = False, most: int | None = None) -> list[Number]:
    """Every number of a text, in order, or the first `most`; Chinese numerals only where there are no digits, but
    `百分之二十` and `五分之一` always.

    Brackets make a number negative, as accountants write it, only where they are not an aside: `(1,234)` alone, after a
    currency sign, or after `=` or `:`; not in `0.2 (20%)`. The first of a range has the unit of the second: `5-7%`.
    """
    text = text if cleaned else clean(text)
    han = not text.isascii() and number_words.HAN.search(text) is not None
    tries = None if most is None else 5 * most  # in a hostile text next to none is a number
    divided = islice(number_words.FRACTION_OF.finditer(text), tries) if "分之" in text else ()
    fractions = {match.end(): match for match in divided}
    numbers: list[Number] = []
    lowest = 1.0  # the factor of the last part of the last number: 1亿 2000万 may go on with 千, not with 亿
    for match in islice(_NUMBER.finditer(text), tries):
        number = _arabic(match, text)
        if number is None:
            continue
        if fractions:
            if text.startswith(("分之", "又"), number.end):
                continue
            at = match.start("digits")
            number = _divided(number, fractions[at]) if at in fractions else number
            if number is None:
                continue
        if number.factor != 1.0 and numbers:
            last = numbers[-1]
            if last.end == number.start and 1 < number.factor < lowest and text[last.end - 1] in "万亿千萬億":
                value = last.value + (number.value if last.value >= 0 else -number.value)  # 1亿2000万
                numbers[-1] = last._replace(value=value, half_unit=number.half_unit, end=number.end)
                lowest = number.factor
                continue
            if last.end == number.start and _shares_its_unit(last, number, text):
                numbers[-1] = last._replace(value=last.value * number.factor / 100 + number.value, end=number.end)
                numbers[-1] = numbers[-1]._replace(half_unit=number.half_unit, factor=number.factor)
                lowest = number.factor
                continue
            if last.factor == 1.0 and _RANGE.fullmatch(text, last.end, number.start):
                numbers[-1] = last if 1900 <= last.value <= 2100 else last.times(number.factor)
        numbers.append(number)
        lowest = number.factor
        if most is not None and len(numbers) >= most:
            return numbers
    if han:
        numbers = _merged(numbers, list(number_words.chinese_numbers(text, not numbers, tries)))
    if "角" in text or "毛" in text or "块" in text:
        numbers = _joined_coins(numbers, text)
    return numbers if most is None else numbers[:most]


def _shares_its_unit(thousands: Number, hundreds: Number, text: str) -> bool:
    """`3千8百万`: the 千 too counts 万."""
    unit = text[hundreds.end - 2 : hundreds.end]
    return text[thousands.end - 1] == "千" and thousands.factor == 1e3 and unit[0] == "百" and unit[1] in "万亿萬億"


def _merged(figures: list[Number], written: list[Number]) -> list[Number]:
    """Both in order, without the figures that are part of a written number: 3分之一."""
    if not figures or not written:
        return figures or written
    starts = [number.start for number in written]
    before = [written[bisect_right(starts, figure.start) - 1] for figure in figures]
    apart = [f for f, w in zip(figures, before, strict=True) if not w.start <= f.start < w.end]
    return sorted([*apart, *written], key=lambda number: number.start)


_PLAIN = _NUMBER.groupindex["digits"]
_GROUPS = ("under", "mixed", "exponent", "power", "raised", "unit", "noted", "letter", "capital")


def _arabic(match: re.Match[str], text: str) -> Number | None:
    plain = match.lastindex == _PLAIN  # digits and perhaps a sign: by far the most frequent
    shown, minus, minus2 = match.group("digits", "minus", "minus2")
    start, end = match.span()
    after = match.end("digits")
    if len(shown) > _LONGEST_DIGITS or (text[after : after + 1] == "." and text[after + 1 : after + 2].isdigit()):
        return None  # 1.2.3 is no number
    digits = shown.replace(",", "")
    value = float(digits)
    half_unit = 0.5 * 10.0 ** -len(digits.partition(".")[2]) if "." in digits else 0.5
    next_char = text[end : end + 1]
    if plain and not (next_char.isalpha() or next_char in (")", " ", "_")):
        value = value if (minus is None) == (minus2 is None) else -value
        return Number(value, half_unit, 1.0, start, end) if math.isfinite(value) else None
    under, mixed, exponent, power, raised, unit, noted, letter, capital = match.group(*_GROUPS)
    if under:
        value, half_unit = _fraction(value, mixed, under)
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
    elif _LABEL.match(text, end):
        return None
    negative = (minus is None) != (minus2 is None)
    if not under and text.find(")", end, end + 3) >= 0 and _in_accounting_brackets(start, end, text):
        negative = True
        outside = _UNIT_AFTER_BRACKET.match(text, end)
        if outside and factor == 1.0:
            factor, end = UNITS[outside[1].lower()], outside.end()
    if not math.isfinite(value):
        return None
    return Number(-value * factor if negative else value * factor, half_unit * factor, factor, start, end)


def _fraction(whole: float, mixed: str | None, under: str) -> tuple[float, float]:
    """The value of `3/4` or `1 3/4`, and half of its last digit; NaN where it has none."""
    below = float(under.replace(",", "")) if len(under) <= _LONGEST_DIGITS else 0.0
    above = float(mixed.lstrip("又")) if mixed else whole
    if not below or (mixed and (above >= below or whole % 1)):
        return math.nan, 0.0
    value = above / below
    if mixed and not 1900 <= whole <= 2100:  # "in 2019 3/4 of it" has no mixed number
        value += whole
    return value, fraction_half_unit(value)


def _power(base: float, power: int) -> float:
    """NaN where it is none or leaves the finite numbers."""
    try:
        return float(base**power)
    except (OverflowError, ZeroDivisionError):
        return math.nan


def _in_accounting_brackets(start: int, end: int, text: str) -> bool:
    before, after = text[max(start - 12, 0) : start].rstrip(), text[end : end + 3].lstrip()
    if not before.endswith("(") or not after.startswith(")"):
        return False
    outside = before[:-1].rstrip()
    return not outside or outside == "-" or outside[-1] in "=≈:$€£¥₹|为是" or _IS.search(outside) is not None


def _divided(number: Number, fraction: re.Match[str]) -> Number | None:
    """`百分之3.5`, `16分之5`."""
    divided = number_words.denominator_factor(fraction["under"])
    if divided is None:
        return None
    sign = -1.0 if fraction["minus"] else 1.0
    divided *= sign
    if fraction["under"] in DENOMINATORS:
        scaled = number.times(divided)
        return scaled._replace(factor=number.factor * abs(divided), start=fraction.start())
    value = number.value * divided
    if fraction["whole"]:
        whole = float(fraction["whole"]) if fraction["whole"].isdecimal() else number_words.chinese_integer(fraction["whole"])
        if whole is None:
            return None
        value += sign * whole
    if not math.isfinite(value):
        return None
    return Number(value, fraction_half_unit(value), 1.0, fraction.start(), number.end)


def _joined_coins(numbers: list[Number], text: str) -> list[Number]:
    """`3元5角` is 3.5, `八角` 0.8, `五元三毛二分` 5.32, `三块五` 3.5."""
    joined: list[Number] = []
    for number in numbers:
        place = _PLACES.get(text[number.end : number.end + 1]) if number.bare else None
        last = joined[-1] if joined else None
        if last is not None and text[last.end : number.start] == "块" and _tenths_said(number, text):
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


def _tenths_said(number: Number, text: str) -> bool:
    """One figure that nothing follows: `三块五`, not `三块五斤`."""
    return number.bare and number.end - number.start == 1 and not text[number.end : number.end + 1].isalnum()


def single_number(text: str) -> Number | None:
    """The number that a cleaned text consists of, where it is written in words or with other separators.

    `twenty percent`; `1 234 567`, `1.234.567`, `1'234`, `12,34,567`; and with a comma before the decimals where it
    cannot separate thousands: `1000,99`, `2,74`, `0,125`, `1.234,56`.
    """
    if len(text) > _LONGEST_LONE:
        return None
    match = _LONE.fullmatch(text)
    if not match:
        return number_words.english_number(text) if text.isascii() else None
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
    """Whether a text is one number or several and says nothing besides: `1800`, `1,800元`, `(5.3%)`, `3, 4`, `1.2x`.

    Not a comparison (`1.2 > 1`), nor the bare `1` and `0`, by which yes and no are written too.
    """
    plain = clean(text).strip()
    if len(plain) > _LONGEST_LONE or plain.strip("$().*") in ("0", "1"):
        return False
    numbers = read_numbers(plain, cleaned=True)
    if not numbers:
        return single_number(plain) is not None
    begins, ends = [*(n.start for n in numbers), len(plain)], [0, *(n.end for n in numbers)]
    return _BESIDE_FIGURES.fullmatch("|".join(plain[a:b] for a, b in zip(ends, begins, strict=True))) is not None


_BESIDE_FIGURES = re.compile(
    rf"(?:[\s|$,.;:()\[\]*\"'+\-~≈、]|{CURRENCY}|元|yuan|dollars?|times|x|倍|年|天|days?|years?|shares?|股)*+",
    re.IGNORECASE,
)
