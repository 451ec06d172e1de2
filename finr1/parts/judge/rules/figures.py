"""The figures of a text by their keys, without taking plain numbers apart as `read_numbers` must.

A filter by rules looks up the figures of each trace and of each of its steps, and most are written plainly: digits,
perhaps a decimal point or thousands, a space or a sign after them. Those are told by one short pattern. A text in which
anything could join, divide, raise or cancel a number is left to `read_numbers`: both ways give the same keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Set
from functools import lru_cache

from finr1.answer.clean import clean
from finr1.answer.number import read_numbers
from finr1.answer.number_words import HAN
from finr1.answer.units import DIGITS, Number

# A number that stands clear: nothing before it makes it part of a name, nothing after it is written to it. Any other
# digit is found as an empty string.
_CLEAR = re.compile(rf"(?<![A-Za-z_\d./])(?<!\d,)((?>{DIGITS}))(?!\w|\.\d)|\d")
_LONGEST = 40  # characters of a number; much longer ones are none
_LONG = re.compile(r"(?<![\d,.])(?:\d{7}|[\d,.]{8})[\d,.]*+(?!\s{0,3}[=+*×÷;≈]|\s-\s|\s*+$)")  # a unit may follow


# Powers; Chinese units, which join what they stand between; fractions and coins in words.
_JOINS = re.compile(r"\^|\*\*|[万萬亿億千分角毛]")


@lru_cache(1 << 14)
def key(value: float) -> str:
    """A number by six digits, without its sign."""
    return f"{abs(value):.6g}"


@lru_cache(1 << 14)
def _key_of(digits: str) -> str:
    """The key of a figure; empty where a unit after it (or after a range's other end) could move the last digit.

    Multiplied by a unit and divided again, a number may differ in its last bit: it must not lie between two keys.
    """
    plain = digits.replace(",", "")
    beyond = plain.replace(".", "").lstrip("0")[6:]
    return "" if len(beyond) > 8 or beyond.rstrip("0") == "5" else key(float(plain))


def read(text: str, cleaned: bool = False) -> list[Number]:
    """The numbers of a text in which a stroke divides: `90 / 3` is two of them, not a fraction."""
    return read_numbers((text if cleaned else clean(text)).replace("/", " ; "), cleaned=True)


def figures_of(numbers: Iterable[Number]) -> set[str]:
    """Numbers by their shown figure."""
    return {key(number.figure) for number in numbers}


def figures_in(text: str, cleaned: bool = False) -> set[str]:
    """`figures_of(read(text))`, by the short way where it is open."""
    plain = (text if cleaned else clean(text)).replace("/", " ; ")
    split = plain.split("\n")
    lines = [*map(_clear_figures, split)]
    if None in lines and len(split) == 1:
        lines = [_alone_figures(plain)]
    if None not in lines:
        figures: set[str] = set().union(*filter(None, lines))
        if figures or plain.isascii() or not HAN.search(plain):  # Chinese numerals count where there are no digits
            return figures
    return figures_of(read_numbers(plain, cleaned=True))


@lru_cache(1 << 13)  # asked of a trace and of each of its steps, and the samples of a question say much the same
def _clear_figures(line: str) -> Set[str] | None:
    """The figures in digits of a line where the short way is open whatever stands around it."""
    clear = _CLEAR.findall(line)
    if not clear:
        return frozenset() if line.isascii() or not _joins(line) else None
    if "" in clear or _joins(line):
        return None
    figures = frozenset(map(_key_of, clear))
    return None if "" in figures else figures


def _alone_figures(line: str) -> Set[str] | None:
    """The figures of a line where the short way is open because nothing stands around it."""
    clear = _CLEAR.findall(line)
    if not clear or "" in clear or _joins(line) or len(max(clear, key=len)) > _LONGEST or _LONG.search(line):
        return None
    return frozenset([key(float(digits.replace(",", ""))) for digits in clear])


def _joins(line: str) -> bool:
    return ("^" in line or "**" in line) if line.isascii() else _JOINS.search(line) is not None
