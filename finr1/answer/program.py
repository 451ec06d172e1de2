"""FinQA's program language, run without `eval`.

    >>> execute("subtract(100, 80), divide(#0, 80)")
    0.25
    >>> execute("table_average(revenue, none)", [["", "2018", "2019"], ["Revenue", "$100", "1,200"]])
    650.0

A program is a list of operations (Chen et al., EMNLP 2021, section 3): `add subtract multiply divide exp greater` over
two arguments, and `table_max table_min table_sum table_average` over one table row (`table_sum(revenue, none)`). An
argument is a number (`5%` is 0.05), `#n` (the result of operation n), or `const_n` (`const_m1` is -1). The last result
is the program's. Parsing takes time linear in the program's length.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

MAX_CHARS = 100_000
Value = float | Literal["yes", "no"]
Table = Sequence[Sequence[str]]


class ProgramError(ValueError):
    """A program that cannot be parsed or run; the message says which operation and why."""


class Operation(NamedTuple):
    """One step. For table operations `left` is the row's name and `right` is `none`."""

    name: str
    left: str
    right: str


ARITHMETIC: Mapping[str, Callable[[float, float], float]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "exp": operator.pow,
}
TABLE: Mapping[str, Callable[[Sequence[float]], float]] = {
    "table_max": max,
    "table_min": min,
    "table_sum": math.fsum,
    "table_average": lambda row: math.fsum(row) / len(row),
}
NAMES = frozenset((*ARITHMETIC, "greater", *TABLE))

_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?(%?)", re.ASCII)
_CONST = re.compile(r"const_(m?)(\d+(?:\.\d+)?)", re.ASCII)
_REFERENCE = re.compile(r"#(\d{1,6})", re.ASCII)


def parse(program: str) -> tuple[Operation, ...]:
    """Split a program into its operations. Row names may hold commas and balanced brackets.

    Raises:
        ProgramError: unknown operation, unbalanced brackets, wrong number of arguments, or an empty program.
    """
    if len(program) > MAX_CHARS:
        raise ProgramError(f"program of {len(program)} characters; at most {MAX_CHARS} are read")
    operations: list[Operation] = []
    at, end = 0, len(program)
    while True:
        start = program.find("(", at)
        if start < 0:
            raise ProgramError(f"operation {len(operations)}: no opening bracket in {_excerpt(program[at:])!r}")
        name = program[at:start].strip()
        if name not in NAMES:
            raise ProgramError(f"operation {len(operations)}: unknown name {_excerpt(name)!r}")
        depth, close = 1, start + 1
        while close < end:
            depth += (program[close] == "(") - (program[close] == ")")
            if depth == 0:
                break
            close += 1
        else:
            raise ProgramError(f"operation {len(operations)}: a bracket is never closed")
        operations.append(_operation(name, program[start + 1 : close], len(operations)))
        at = close + 1
        while at < end and program[at].isspace():
            at += 1
        if at == end:
            return tuple(operations)
        if program[at] != ",":
            raise ProgramError(f"operation {len(operations)}: expected a comma before {_excerpt(program[at:])!r}")
        at += 1


def _operation(name: str, inside: str, index: int) -> Operation:
    left, comma, right = (part.strip() for part in inside.rpartition(","))
    if not comma or not left or not right or (name not in TABLE and "," in left):
        raise ProgramError(f"operation {index}: {name} takes two arguments, not {_excerpt(inside)!r}")
    return Operation(name, left, right)


def _excerpt(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "..."


def literal(text: str) -> float:
    """The value of a number or constant: `5%` is 0.05, `const_100` is 100, `const_m1` is -1. Raises ProgramError."""
    constant = _CONST.fullmatch(text)
    if constant:
        return float(constant[2]) * (-1 if constant[1] else 1)
    number = _NUMBER.fullmatch(text)
    if not number:
        raise ProgramError(f"{_excerpt(text)!r} is neither a number, nor #n, nor const_n")
    value = float(text.removesuffix("%"))
    return value / 100 if number[1] else value


def reference(text: str) -> int | None:
    """n of `#n`, or None."""
    match = _REFERENCE.fullmatch(text)
    return int(match[1]) if match else None


def row_numbers(table: Table, name: str) -> list[float]:
    """The numbers in the row of this name (first cell; case and outer white space do not matter).

    Cells are read as in FinQA: currency signs, thousands commas, and brackets after a number are removed.
    Raises ProgramError if there is no such row or a cell holds no number.
    """
    wanted = name.strip().lower()
    for row in table:
        if row and row[0].strip().lower() == wanted:
            cells = [cell.replace("$", "").replace(",", "").split("(")[0] for cell in row[1:]]
            numbers = [literal(re.sub(r"\s+", "", cell)) for cell in cells]
            if not numbers:
                raise ProgramError(f"row {_excerpt(name)!r} holds no number")
            return numbers
    raise ProgramError(f"the table has no row {_excerpt(name)!r}")


def step_values(
    program: str | Sequence[Operation], table: Table = (), override: Mapping[int, float] | None = None
) -> list[Value]:
    """The result of every operation, in order.

    `override` puts another value in place of an operation's result: what follows is computed from it.
    Raises ProgramError (unknown argument, forward reference, division by zero, overflow, complex result).
    """
    operations = parse(program) if isinstance(program, str) else program
    values: list[Value] = []

    def argument(text: str) -> float:
        index = reference(text)
        if index is None:
            return literal(text)
        if index >= len(values):
            raise ProgramError(f"operation {len(values)}: {text} is not computed before it")
        value = values[index]
        if isinstance(value, str):
            raise ProgramError(f"operation {len(values)}: {text} is {value}, not a number")
        return value

    for index, operation in enumerate(operations):
        if override and index in override:
            values.append(override[index])
            continue
        if operation.name in TABLE:
            value: Value = TABLE[operation.name](row_numbers(table, operation.left))
        elif operation.name == "greater":
            value = "yes" if argument(operation.left) > argument(operation.right) else "no"
        else:
            value = _arithmetic(operation.name, argument(operation.left), argument(operation.right), index)
        if isinstance(value, float) and not math.isfinite(value):
            raise ProgramError(f"operation {index}: the result is not finite")
        values.append(value)
    if not values:
        raise ProgramError("the program is empty")
    return values


def _arithmetic(name: str, left: float, right: float, index: int) -> float:
    try:
        value = ARITHMETIC[name](left, right)
    except ZeroDivisionError as error:
        raise ProgramError(f"operation {index}: division by zero") from error
    except OverflowError as error:
        raise ProgramError(f"operation {index}: the result is too large") from error
    if isinstance(value, complex):
        raise ProgramError(f"operation {index}: a root of a negative number")
    return value


def execute(program: str | Sequence[Operation], table: Table = ()) -> Value:
    """The program's result: a float, or "yes"/"no" where it ends in `greater`. Raises ProgramError."""
    return step_values(program, table)[-1]


def short(value: float, places: int = 8) -> str:
    """The shortest plain decimal, without exponent or trailing zeros: 0.25, 1200, -3. Rounded to `places` decimals."""
    text = f"{value:.{places}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text
