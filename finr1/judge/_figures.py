"""The figures of a text by their keys, without taking plain numbers apart as `read_numbers` must.

A filter by rules looks up the figures of each trace and of each of its steps, and most are written plainly: digits,
perhaps a decimal point or thousands, a space or a sign after them. Those are told by one short pattern. A text in which
anything could join, divide, raise or cancel a number is left to `read_numbers`: both ways give the same keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from finr1.answer.number import Number, clean, read_numbers
from finr1.answer.quantity import DIGITS

# A number that stands clear: nothing before it makes it part of a name, nothing after it is written to it. Any other
# digit is found as an empty string.
_CLEAR = re.compile(rf"(?<![A-Za-z_\d./])(?<!\d,)((?>{DIGITS}))(?!\w|\.\d)|\d")
# Powers; Chinese units, which join what they stand between; fractions and coins in words.
_JOINS = re.compile(r"\^|\*\*|[万萬亿億千分角毛]")
_LONGEST = 40  # characters of a number; much longer ones are none
# A key has six digits. Of more, a unit (or that of a range's other end) could move the last one: none may follow.
_LONG = re.compile(r"(?<![\d,.])(?:\d{7}|[\d,.]{8})[\d,.]*+(?!\s{0,3}[=+*×÷;≈]|\s-\s|\s*+$)")


@lru_cache(1 << 14)
def key(value: float) -> str:
    """A number by six digits, without its sign."""
    return f"{abs(value):.6g}"


@lru_cache(1 << 14)
def _key_of(digits: str) -> str:
    return key(float(digits.replace(",", "")))


def read(text: str, cleaned: bool = False) -> list[Number]:
    """The numbers of a text in which a stroke divides: `90 / 3` is two of them, not a fraction."""
    return read_numbers((text if cleaned else clean(text)).replace("/", " ; "), cleaned=True)


def figures_of(numbers: Iterable[Number]) -> set[str]:
    """Numbers by their shown figure."""
    return {key(number.figure) for number in numbers}


def figures_in(text: str, cleaned: bool = False) -> set[str]:
    """`figures_of(read(text))`, by the short way where it is open."""
    plain = (text if cleaned else clean(text)).replace("/", " ; ")
    clear = _CLEAR.findall(plain)
    joins = ("^" in plain or "**" in plain) if plain.isascii() else _JOINS.search(plain)
    if clear and "" not in clear and not joins:
        longest = len(max(clear, key=len))
        if longest <= 6 or (longest <= _LONGEST and not _LONG.search(plain)):
            return set(map(_key_of, clear))
    return figures_of(read_numbers(plain, cleaned=True))
