"""`Number`, one number read from a text, and the unit words and signs that scale it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

PERCENT = {
    "%": 1e-2, "percent": 1e-2, "percents": 1e-2, "percentage": 1e-2, "per cent": 1e-2, "pct": 1e-2, "pct.": 1e-2,
    "percentage points": 1e-2, "percentage point": 1e-2, "percentage-points": 1e-2, "percentage-point": 1e-2,
    "pp": 1e-2, "pps": 1e-2, "ppt": 1e-2, "ppts": 1e-2, "p.p.": 1e-2, "个百分点": 1e-2, "百分点": 1e-2,
    "個百分點": 1e-2, "百分點": 1e-2, "‰": 1e-3, "per mille": 1e-3, "个千分点": 1e-3, "bps": 1e-4, "bp": 1e-4,
    "basis points": 1e-4, "basis point": 1e-4, "个基点": 1e-4, "基点": 1e-4, "個基點": 1e-4, "基點": 1e-4,
    "个bp": 1e-4, "‱": 1e-4, "p.c.": 1e-2, "per hundred": 1e-2, "per-cent": 1e-2,
}  # fmt: skip
SCALE = {
    "hundred": 1e2, "thousand": 1e3, "thousands": 1e3, "million": 1e6, "millions": 1e6, "mn": 1e6, "mm": 1e6,
    "mln": 1e6, "mio": 1e6, "mil": 1e6, "billion": 1e9, "billions": 1e9, "bn": 1e9, "bln": 1e9, "bil": 1e9,
    "trillion": 1e12, "trillions": 1e12, "tn": 1e12, "trn": 1e12, "lakh": 1e5, "lakhs": 1e5, "crore": 1e7,
    "crores": 1e7, "lakh crore": 1e12, "lakh crores": 1e12, "dozen": 12.0,
    "百": 1e2, "千": 1e3, "万": 1e4, "十万": 1e5, "百万": 1e6, "千万": 1e7, "亿": 1e8, "万万": 1e8, "十亿": 1e9,
    "百亿": 1e10, "千亿": 1e11, "万亿": 1e12, "兆": 1e12, "百万亿": 1e14, "千万亿": 1e15,
    "萬": 1e4, "十萬": 1e5, "百萬": 1e6, "千萬": 1e7, "億": 1e8, "萬萬": 1e8, "十億": 1e9, "百億": 1e10,
    "千億": 1e11, "萬億": 1e12,
}  # fmt: skip
# directly after the digits ("5m"), or as a capital after a space ("5 M")
LETTER = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
UNITS = PERCENT | SCALE
DENOMINATORS = {"百": 1e-2, "千": 1e-3, "万": 1e-4, "萬": 1e-4}  # denominators that work like a unit: 百分之 is %
CURRENCY = (
    r"(?:US|HK|NT|AU?|CA?|S|R)?\$|[€£¥₹₩]|USD|EUR|GBP|JPY|CNY|RMB|HKD|CHF|INR|AUD|CAD|SGD|Rs\.?"
    r"|人民币|美元|港元|港币|欧元|英镑|日元"
)
DIGITS = r"\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"


def fraction_half_unit(value: float) -> float:
    """The `half_unit` of a fraction or power, which shows no decimals: as if it had three decimals, or three digits."""
    return 0.0005 * max(1.0, abs(value)) if abs(value) > 1 / 3 else 0.0015 * abs(value)


class Number(NamedTuple):
    """One number of a text.

    Attributes:
        value: with its unit: `25%` is 0.25, `1.2亿` is 1.2e8.
        half_unit: half of the last digit shown, on the scale of `value`: 0.005 and 5e6.
        factor: what the unit multiplies by: 0.01 and 1e8; 1.0 without a unit.
        start: index of its first character in the cleaned text.
        end: index after its last character.
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
        return Number(self.value * factor, self.half_unit * abs(factor), abs(factor), self.start, self.end)

    @property
    def bare(self) -> bool:
        """Whether it is shown without a percent sign or scale word."""
        return self.factor == 1.0


def starts_with_any(words: Iterable[str]) -> str:
    """A regex look-ahead for the first character of any of the words: saves trying them all at every position."""
    return "(?=[" + re.escape("".join(sorted({word[0] for word in words}))) + "])"


# kilogram, megawatt, percentile: measures that begin with a scale word
_NOT_BEFORE = {"千": "(?![克米瓦卡帕伏安赫焦升]|字节)", "兆": "(?![瓦帕赫焦欧]|字节)", "百": "(?!帕|分位)"}


def one_of(words: Iterable[str]) -> str:
    """A regex for any of the words, longest first; a Latin word must not continue."""
    return "|".join(
        re.escape(word)
        + (r"(?![A-Za-z])" if word[-1].isascii() and word[-1].isalpha() else _NOT_BEFORE.get(word[-1], ""))
        for word in sorted(words, key=len, reverse=True)
    )
