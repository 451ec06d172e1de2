r"""Numbers as English and Chinese reports write them: `(1,234)`, `$1.2 million`, `50 bps`, `百分之二十`, `1.2万亿元`.

A number keeps what it showed: its value, the size of its last digit, and its unit's factor (`%` 0.01, `万` 1e4,
`bn` 1e9), so that comparison can go by the precision shown and tell `25%` from a bare `25`. Patterns have no nested
repetition: reading is linear in the text.
"""

from __future__ import annotations

import math
import re
import unicodedata
from typing import NamedTuple

PERCENT = {
    "%": 1e-2, "percent": 1e-2, "per cent": 1e-2, "pct": 1e-2, "percentage points": 1e-2, "percentage point": 1e-2,
    "pp": 1e-2, "个百分点": 1e-2, "百分点": 1e-2, "‰": 1e-3, "个千分点": 1e-3, "bps": 1e-4, "bp": 1e-4,
    "basis points": 1e-4, "basis point": 1e-4, "个基点": 1e-4, "基点": 1e-4, "个bp": 1e-4, "‱": 1e-4,
}  # fmt: skip
SCALE = {
    "hundred": 1e2, "thousand": 1e3, "thousands": 1e3, "million": 1e6, "millions": 1e6, "mn": 1e6, "mm": 1e6,
    "mln": 1e6, "mio": 1e6, "billion": 1e9, "billions": 1e9, "bn": 1e9, "bln": 1e9,
    "trillion": 1e12, "trillions": 1e12, "tn": 1e12,
    "百": 1e2, "千": 1e3, "万": 1e4, "十万": 1e5, "百万": 1e6, "千万": 1e7, "亿": 1e8, "十亿": 1e9, "百亿": 1e10,
    "千亿": 1e11, "万亿": 1e12, "兆": 1e12,
}  # fmt: skip
LETTER = {
    "k": 1e3,
    "m": 1e6,
    "b": 1e9,
    "t": 1e12,
}  # only straight after the digits: "5m", or capital after a space: "5 M"
UNITS = PERCENT | SCALE
CURRENCY = r"(?:US|HK|NT|AU?|CA?|S)?\$|[€£¥₹₩]|USD|EUR|GBP|JPY|CNY|RMB|HKD|CHF|INR|AUD|CAD|SGD|人民币|美元|港元"


def one_of(words: dict[str, float]) -> str:
    """A pattern of unit words, the longest first, Latin ones whole."""
    return "|".join(
        re.escape(word) + (r"(?![A-Za-z])" if word[-1].isascii() and word[-1].isalpha() else "")
        for word in sorted(words, key=len, reverse=True)
    )


DIGITS = r"\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"(?<![A-Za-z_\d./])(?P<minus>(?<![\d)%])-|负|minus\s|negative\s)?\s?(?:(?:{CURRENCY})\s?(?P<minus2>-)?)?"
    rf"(?P<digits>{DIGITS})(?P<over>\s?/\s?\d+(?:\.\d+)?(?!/|\d|\.\d))?"
    r"(?P<exponent>[eE][-+]?\d{1,3}(?!\w)|\s?[×xX*·]\s?10\s?\^\s?[{(]?(?P<power>[-+]?\d{1,3})[)}]?)?"
    rf"(?:\s?(?P<unit>{one_of(UNITS)})|(?P<letter>[kmbtKMBT])(?![A-Za-z])|\s(?P<capital>[KMB])(?![A-Za-z]))?",
    re.IGNORECASE,
)
_UNIT = re.compile(rf"(?<![A-Za-z])(?:{one_of(UNITS)})", re.IGNORECASE)

_HAN_DIGIT = dict(
    zip("零〇一二两三四五六七八九壹贰叁肆伍陆柒捌玖", (0, 0, 1, 2, 2, *range(3, 10), *range(1, 10)), strict=True)
)
_HAN_UNIT = {"十": 10, "拾": 10, "百": 100, "佰": 100, "千": 1000, "仟": 1000}
_HAN_BIG = {"万": 10**4, "亿": 10**8, "兆": 10**12}
_D = "".join(_HAN_DIGIT)
_HAN = re.compile(
    rf"(?P<per>[百千万]分之)?(?P<minus>负)?(?P<body>[{_D}十拾百佰千仟万亿兆]+)(?:点(?P<tail>[{_D}]+)(?P<big>[万亿兆]{{1,2}})?)?(?P<unit>个百分点|个基点|%)?"
)
_PER = re.compile(rf"(负)?([百千万])分之(负)?(?={DIGITS})")
_UNIT_AFTER_BRACKET = re.compile(rf"\s?\)\s?({one_of(UNITS)})", re.IGNORECASE)
_HAN_FIGURE = re.compile(r"[约为是共计达有：:=\s]")

_SUPERSCRIPT = {ord(c): f"^{d}" for c, d in zip("⁰¹²³⁴⁵⁶⁷⁸⁹", range(10), strict=True)} | {ord("⁻"): "^-"}
_LATEX = (
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|operatorname|textit)\s?\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\[dtc]?frac\s?\{([^{}]*)\}\s?\{([^{}]*)\}"), r"(\1)/(\2)"),
    (re.compile(r"\((\d[\d.]*)\)/\((\d[\d.]*)\)"), r"\1/\2"),
    (re.compile(r"\\[,;:! ]|\\q?quad|\\left|\\right|\\[()\[\]]|\\displaystyle"), " "),
    (re.compile(r"\\([%$&#_{}])"), r"\1"),
    (re.compile(r"\{,\}"), ","),
    (re.compile(r"(\d)\s,\s?(?=\d{3}(?!\d))"), r"\1,"),
    (re.compile(r"\\times|\\cdot"), "×"),
    (re.compile(r"\\div"), "÷"),
    (re.compile(r"\\(?:approx|simeq)"), "≈"),
    (re.compile(r"\*\*(?=\S)([^*\n]{0,200}\S)\*\*"), r"\1"),
    (re.compile(r"`"), ""),
)
_SPACES = re.compile(r"[ \t]+")
_CHARS = str.maketrans({"−": "-", "–": "-", "—": "-", "﹣": "-", "⁄": "/", "，": ",", "％": "%", "～": "~"})


PER = {"百": 1e-2, "千": 1e-3, "万": 1e-4}  # 百分之, 千分之, 万分之
LONGEST = 200_000  # characters read: one character can become 18 in normal form


class Number(NamedTuple):
    """One number of a text.

    `value` is the whole value (`25%` 0.25, `1.2亿` 1.2e8); `half_unit` half of the last digit shown, in the same
    measure (0.005 and 5e6); `factor` what the unit multiplies by (1.0 when bare); `start`, `end` its place in the
    cleaned text.
    """

    value: float
    half_unit: float
    factor: float
    start: int
    end: int

    @property
    def figure(self) -> float:
        """The number as shown, without its unit: 25 for `25%`."""
        return self.value / self.factor

    def times(self, factor: float) -> Number:
        """The same figure with a unit of this factor."""
        return self._replace(value=self.value * factor, half_unit=self.half_unit * abs(factor), factor=abs(factor))

    @property
    def bare(self) -> bool:
        """Shown without percent sign or scale word."""
        return self.factor == 1.0


def clean(text: str) -> str:
    r"""Full-width forms, LaTeX (`\%`, `\text{}`, `\frac{a}{b}`, `{,}`), bold marks and odd dashes made plain."""
    text = unicodedata.normalize("NFKC", text.translate(_SUPERSCRIPT)).translate(_CHARS)[:LONGEST]
    text = _SPACES.sub(" ", text)
    if "\\" in text or "{" in text or "*" in text or "`" in text or " ," in text:
        for pattern, plain in _LATEX:
            text = pattern.sub(plain, text)
    return text


def unit_factor(unit: str) -> float:
    """What a unit's words multiply by: `%` 0.01, `USD million` 1e6, `万元` 1e4; 1.0 for any other."""
    match = _UNIT.search(clean(unit))
    return UNITS[match.group().lower()] if match else 1.0


def read_numbers(text: str, cleaned: bool = False) -> list[Number]:
    """Every number of a text, in order; Chinese numerals only where there are no digits, but `百分之二十` always.

    Brackets make a number negative, as accountants write it, only where they are not an aside: `(1,234)` alone, after a
    currency sign, or after `=` or `:`; not in `0.2 (20%)`.
    """
    text = text if cleaned else clean(text)
    per = {m.end(): (-1 if m[1] else 1) * PER[m[2]] for m in _PER.finditer(text)}
    numbers: list[Number] = []
    for match in _NUMBER.finditer(text):
        number = _arabic(match, text)
        if number is None:
            continue
        if match.start("digits") in per:
            number = number.times(per[match.start("digits")])
        last = numbers[-1] if numbers else None
        if last and last.end == number.start and 1 < number.factor < last.factor and text[last.end - 1] in "万亿":
            value = last.value + (number.value if last.value >= 0 else -number.value)  # 1亿2000万
            numbers[-1] = last._replace(value=value, half_unit=number.half_unit, end=number.end)
        else:
            numbers.append(number)
    chinese = [_chinese(match, text) for match in _HAN.finditer(text) if match["per"] or not numbers]
    return sorted([*numbers, *(number for number in chinese if number)], key=lambda number: number.start)


def _arabic(match: re.Match[str], text: str) -> Number | None:
    digits = match["digits"].replace(",", "")
    value, half_unit = float(digits), 0.5 * 10.0 ** -len(digits.partition(".")[2])
    if match["over"]:
        below = float(match["over"].strip(" /"))
        if below == 0:
            return None
        value, half_unit = value / below, 0.0005
    if match["exponent"]:
        power = int(match["power"] or match["exponent"][1:])
        if abs(power) > 300:
            return None
        value, half_unit = value * 10.0**power, half_unit * 10.0**power
    letter, end = match["letter"], match.end()
    if match["capital"]:
        letter = match["capital"] if match["capital"].isupper() else None
        end = end if letter else match.start("capital") - 1
    factor = UNITS[match["unit"].lower()] if match["unit"] else LETTER[letter.lower()] if letter else 1.0
    negative = bool(match["minus"]) != bool(match["minus2"])
    if not match["over"] and _in_accounting_brackets(match.start(), end, text):
        negative = True
        unit = _UNIT_AFTER_BRACKET.match(text, end)
        if unit and factor == 1.0:
            factor, end = UNITS[unit[1].lower()], unit.end()
    if not math.isfinite(value):
        return None
    return Number(-value if negative else value, half_unit, 1.0, match.start(), end).times(factor)


def _in_accounting_brackets(start: int, end: int, text: str) -> bool:
    before, after = text[max(start - 12, 0) : start].rstrip(), text[end : end + 3].lstrip()
    if not before.endswith("(") or not after.startswith(")"):
        return False
    outside = before[:-1].rstrip()
    return not outside or outside[-1] in "=≈:$€£¥₹|"


def _chinese(match: re.Match[str], text: str) -> Number | None:
    body, tail, big = match["body"], match["tail"] or "", match["big"] or ""
    if len(body) == 1 and not tail and not match["per"]:
        alone = text[: match.start()].strip() == "" or _HAN_FIGURE.match(text[match.start() - 1])
        if body not in _HAN_DIGIT or not alone:
            return None
    whole = _han_integer(body)
    if whole is None:
        return None
    value = whole + sum(_HAN_DIGIT[c] * 10.0 ** -(i + 1) for i, c in enumerate(tail[:15]))
    factor = PER[match["per"][0]] if match["per"] else 1.0
    for char in big:
        factor *= _HAN_BIG[char]
    if match["unit"]:
        factor *= PERCENT[match["unit"]]
    half_unit = 0.5 * 10.0 ** -len(tail[:15])
    return Number(-value if match["minus"] else value, half_unit, 1.0, match.start(), match.end()).times(factor)


def _han_integer(body: str) -> int | None:
    """一百二十三 is 123, 二〇二四 is 2024, 三万五千 is 35000; None for a row of units without meaning, or too long."""
    if len(body) > 30:
        return None
    if all(c in _HAN_DIGIT for c in body):
        return int("".join(str(_HAN_DIGIT[c]) for c in body))
    if body[0] in "百佰千仟万亿兆":
        return None
    total = section = digit = 0
    for char in body:
        if char in _HAN_DIGIT:
            digit = _HAN_DIGIT[char]
        elif char in _HAN_UNIT:
            section += (digit or (1 if char in "十拾" else 0)) * _HAN_UNIT[char]
            digit = 0
        else:
            big, section = _HAN_BIG[char], section + digit
            total = (total + section) * big if total < big else total + section * big  # 亿 takes all before it: 一万亿
            section = digit = 0
    return total + section + digit
