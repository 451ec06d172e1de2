"""Comparisons of two numbers in a reasoning trace, and whether they hold: `0.05 is not above 0.3` does."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from finr1.answer.clean import clean
from finr1.answer.number import read_numbers
from finr1.answer.units import CURRENCY, DIGITS, UNITS, one_of

_SIDE = rf"-?\s?(?:{CURRENCY})?\s?(?:{DIGITS})(?:\s?(?:{one_of(UNITS)}))?"
_SIGN = (
    r"(?:above|below|greater than|less than|more than|higher than|lower than|exceeds)\b|>=|<=|≥|≤|>|<"
    r"|高于|低于|大于|小于|超过|不到"
)
_ABOVE = ("above", "greater than", "more than", "higher than", "exceeds", ">", "高于", "大于", "超过")
_COMPARISON = re.compile(  # look-ahead, for speed: at most a sign, two spaces and a currency precede a side's digits
    rf"(?<![\d.,])(?=[^\d.]{{0,7}}[\d.])(?P<left>{_SIDE})\s?(?:is\s|are\s)?(?P<negated>not\s|不)?\s?"
    rf"(?P<sign>{_SIGN})\s?(?P<right>{_SIDE})",
    re.IGNORECASE,
)
_ANY_SIGN = re.compile(_SIGN, re.IGNORECASE)


class Comparison(NamedTuple):
    """A comparison as written, whether it holds, and its two numbers."""

    text: str
    holds: bool
    left: float
    right: float


def comparisons(text: str) -> list[Comparison]:
    """Every comparison of two numbers in a trace."""
    result: list[Comparison] = []
    text = clean(text)
    if not _ANY_SIGN.search(text):  # most traces: the long pattern is slow
        return result
    for match in _COMPARISON.finditer(text):
        left, right, sign = _value(match["left"]), _value(match["right"]), match["sign"].lower()
        if left is None or right is None:
            continue
        if sign in (">=", "<=", "≥", "≤"):
            holds = left >= right if sign in (">=", "≥") else left <= right
        else:
            holds = left > right if sign in _ABOVE else left < right
        result.append(Comparison(match.group().strip(), holds != bool(match["negated"]), left, right))
    return result


@lru_cache(1 << 12)
def _value(side: str) -> float | None:
    numbers = read_numbers(side, cleaned=True)
    return numbers[0].value if len(numbers) == 1 else None
