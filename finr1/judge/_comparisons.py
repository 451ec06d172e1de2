"""Finds the comparisons of numbers in a reasoning trace (`0.05 is not above 0.3`) and says whether they hold."""

from __future__ import annotations

import re

from finr1.answer.number import CURRENCY, DIGITS, UNITS, clean, one_of, read_numbers

_SIDE = rf"-?\s?(?:{CURRENCY})?\s?(?:{DIGITS})(?:\s?(?:{one_of(UNITS)}))?"
_SIGN = (
    r"(?:above|below|greater than|less than|more than|higher than|lower than|exceeds)\b|>=|<=|≥|≤|>|<"
    r"|高于|低于|大于|小于|超过|不到"
)
_COMPARISON = re.compile(
    rf"(?<![\d.,])(?P<left>{_SIDE})\s?(?:is\s|are\s)?(?P<negated>not\s|不)?\s?"
    rf"(?P<sign>{_SIGN})\s?(?P<right>{_SIDE})",
    re.IGNORECASE,
)
_COMPARES = re.compile(rf"(?:{_SIGN})\s?-?\s?(?:{CURRENCY})?\s?\.?\d", re.IGNORECASE)  # and so must any comparison
_ABOVE = ("above", "greater than", "more than", "higher than", "exceeds", ">", "高于", "大于", "超过")


Comparison = tuple[str, bool, tuple[float, float]]


def comparisons(text: str, cleaned: bool = False) -> list[Comparison]:
    """Every comparison of two numbers in a trace (`0.05 is not above 0.3`): its text, whether it holds, the numbers."""
    found: list[Comparison] = []
    text = text if cleaned else clean(text)
    if not _COMPARES.search(text):
        return found
    for match in _COMPARISON.finditer(text):
        sides = [read_numbers(match[side], cleaned=True) for side in ("left", "right")]
        if not all(len(side) == 1 for side in sides):
            continue
        left, right, sign = sides[0][0].value, sides[1][0].value, match["sign"].lower()
        if sign in (">=", "<=", "≥", "≤"):
            holds = left >= right if sign in (">=", "≥") else left <= right
        else:
            holds = left > right if sign in _ABOVE else left < right
        found.append((match.group().strip(), holds != bool(match["negated"]), (left, right)))
    return found
