"""Finds the comparisons of numbers in a reasoning trace (`0.05 is not above 0.3`) and says whether they hold."""

from __future__ import annotations

import re
from functools import lru_cache

from finr1.answer.clean import clean
from finr1.answer.number import read_numbers
from finr1.answer.units import CURRENCY, DIGITS, UNITS, one_of

_SIDE = rf"-?\s?(?:{CURRENCY})?\s?(?:{DIGITS})(?:\s?(?:{one_of(UNITS)}))?"
_SIGN = (
    r"(?:above|below|greater than|less than|more than|higher than|lower than|exceeds)\b|>=|<=|≥|≤|>|<"
    r"|高于|低于|大于|小于|超过|不到"
)


# The look-ahead: before the digits of a side there are at most a sign, two spaces and a currency.
_COMPARISON = re.compile(
    rf"(?<![\d.,])(?=[^\d.]{{0,7}}[\d.])(?P<left>{_SIDE})\s?(?:is\s|are\s)?(?P<negated>not\s|不)?\s?"
    rf"(?P<sign>{_SIGN})\s?(?P<right>{_SIDE})",
    re.IGNORECASE,
)
_FIGURE = re.compile(rf"=?\s?-?\s?(?:{CURRENCY})?\s?\.?\d", re.IGNORECASE)
_SIGNS = ("than", "above", "below", "exceeds", ">", "<")  # one of them is in every sign
_ALL_SIGNS = (*_SIGNS, "≥", "≤", "高于", "低于", "大于", "小于", "超过", "不到")
_LONGEST_AFTER_DIGITS = 40  # of a left side and what joins it to the sign: "percentage points are not greater "
_LONGEST_BEFORE_DIGITS = 8
_ABOVE = ("above", "greater than", "more than", "higher than", "exceeds", ">", "高于", "大于", "超过")


def _may_start(text: str) -> int | None:
    """Where the first comparison may start: before a sign that has a figure after it; None without one.

    Most traces have none, or one at their end, which is sooner told without the long pattern.
    """
    folded = text.casefold()
    first: int | None = None
    for sign in _SIGNS if text.isascii() else _ALL_SIGNS:
        at = folded.find(sign, 0, first)
        while at >= 0:
            if _FIGURE.match(folded, at + len(sign)):
                first = at
                break
            at = folded.find(sign, at + 1, first)
    if first is None or len(folded) != len(text):
        return None if first is None else 0
    start = max(first - _LONGEST_AFTER_DIGITS, 0)
    while start and (text[start - 1].isdigit() or text[start - 1] in ".,"):
        start -= 1
    return max(start - _LONGEST_BEFORE_DIGITS, 0)


@lru_cache(1 << 12)
def _value(side: str) -> float | None:
    numbers = read_numbers(side, cleaned=True)
    return numbers[0].value if len(numbers) == 1 else None


Comparison = tuple[str, bool, tuple[float, float]]


def comparisons(text: str, cleaned: bool = False) -> list[Comparison]:
    """Every comparison of two numbers in a trace (`0.05 is not above 0.3`): its text, whether it holds, the numbers."""
    found: list[Comparison] = []
    text = text if cleaned else clean(text)
    start = _may_start(text)
    if start is None:
        return found
    for match in _COMPARISON.finditer(text, start):
        left, right, sign = _value(match["left"]), _value(match["right"]), match["sign"].lower()
        if left is None or right is None:
            continue
        if sign in (">=", "<=", "≥", "≤"):
            holds = left >= right if sign in (">=", "≥") else left <= right
        else:
            holds = left > right if sign in _ABOVE else left < right
        found.append((match.group().strip(), holds != bool(match["negated"]), (left, right)))
    return found
