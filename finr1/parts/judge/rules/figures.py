"""The figures of a text, keyed so that rounding, sign and unit do not matter: `-12.5%` and `12.50` both give "12.5"."""

from __future__ import annotations

from collections.abc import Iterable, Set
from functools import lru_cache

from finr1.answer.clean import clean
from finr1.answer.number import read_numbers
from finr1.answer.units import Number


@lru_cache(1 << 14)
def number_key(value: float) -> str:
    """A number to six significant digits, without its sign."""
    return f"{abs(value):.6g}"


def read(text: str) -> list[Number]:
    """The numbers of a text in which a slash divides: `90 / 3` is two numbers, not a fraction."""
    return read_numbers(clean(text).replace("/", " ; "), cleaned=True)


def figures_of(numbers: Iterable[Number]) -> set[str]:
    """The numbers' keys, units left out."""
    return {number_key(number.figure) for number in numbers}


@lru_cache(1 << 12)  # a question's samples share many steps
def figures_in(text: str) -> Set[str]:
    """The keys of the figures in a text."""
    return frozenset(figures_of(read(text)))
