"""The equations of a reasoning trace, recomputed without `eval`, in time linear in the trace.

`growth = (120 - 100) / 100 = 0.2 = 20%` has the equations `(120 - 100) / 100 = 0.2` and `0.2 = 20%`; names are skipped.
An equation that cannot be computed is left out. Where a side can be read in several ways (a leading dash may be a
bullet, a bracket after a number an aside), the equation is wrong only if every reading fails.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from finr1.answer.clean import clean
from finr1.parts.judge.rules.expressions import Token, evaluate, tokens_of

MAX_TOKENS = 200  # per side of an equation
_RELATIVE = 1e-6


class Equation(NamedTuple):
    """One `left = right` that could be computed.

    `inputs` are the numbers on the left as shown, of kind "by" where one divides, multiplies or is an exponent;
    `results` are the numbers on the right, usually one; `line` is the index of the trace's line.
    """

    text: str
    left: float
    right: float
    holds: bool
    inputs: tuple[Token, ...]
    results: tuple[Token, ...]
    line: int


def equations(text: str) -> list[Equation]:
    """Every equation of a trace that can be computed, in order."""
    result: list[Equation] = []
    exact: dict[float, float] = {}  # a rounded result as shown -> the value before rounding, which may be carried on
    for number, line in enumerate(lines(text)):
        for equation in _equations_of(tokens_of(line), exact):
            result.append(equation._replace(line=number))
            if equation.holds and equation.left != equation.right:
                exact[equation.results[0].value] = equation.left
    return result


def lines(text: str) -> list[str]:
    """The cleaned lines of a trace; a line that begins with `=` continues the one before."""
    joined: list[str] = []
    for line in clean(text).splitlines():
        if joined and line.lstrip(" &").startswith(("=", "≈")):
            joined[-1] += " " + line.strip()
        elif line.strip():
            joined.append(line.strip())
    return joined


_EQUAL = frozenset(("equals", "alias", "says"))
_EXPRESSION = frozenset(("number", "op", "root", "open", "close", "percent"))


def _equations_of(tokens: Sequence[Token], exact: Mapping[float, float]) -> Iterator[Equation]:
    """The equations of one line, one for each equals sign (or word for it) between two expressions.

    A generator: the caller adds to `exact` what one equation rounds before the next one is compared.
    """
    marks = [i for i, token in enumerate(tokens) if token.kind in _EQUAL]
    for n, mark in enumerate(marks):
        floor = marks[n - 1] + 1 if n else 0
        ceiling = marks[n + 1] if n + 1 < len(marks) else len(tokens)
        start = mark
        while start > floor and tokens[start - 1].kind in _EXPRESSION:
            start -= 1
        end = mark + 1
        while end < ceiling and tokens[end].kind in _EXPRESSION:
            end += 1
        left, right = tokens[start:mark], tokens[mark + 1 : end]
        if len(left) > MAX_TOKENS or len(right) > MAX_TOKENS or not left or not right:
            continue
        computes = _computes(left)
        chained = n > 0 and start == floor  # `a = 0.2 = 20%`: a number restated in another format
        plain = tokens[mark].kind == "equals"
        if not computes and not chained and not (plain and any(t.kind == "op" for t in right[1:])):
            continue
        if tokens[mark].kind == "says" and not computes:
            continue
        equation = _compare(left, right, exact)
        # without an operator on the left, "2019 = 3 + 4" may be a name that ends in a number
        if equation and (computes or chained or equation.holds or start == 0):
            yield equation


def _inputs(tokens: Sequence[Token]) -> tuple[Token, ...]:
    inputs = []
    by = False  # whether the previous token multiplies, divides or is a power
    for token in tokens:
        if token.kind == "number":
            inputs.append(Token("by", token.text, token.value, token.half_unit, token.factor) if by else token)
        by = token.kind == "op" and token.text not in "+-"
    return tuple(inputs)


def _computes(tokens: Sequence[Token]) -> bool:
    """Whether an expression is more than a signed number."""
    kinds = [token.kind for token in tokens]
    return "op" in kinds[1:] or "root" in kinds


def _compare(left: Sequence[Token], right: Sequence[Token], exact: Mapping[float, float]) -> Equation | None:
    results = [token for token in right if token.kind == "number"]
    if not results:
        return None
    first, calculated = None, _computes(left)
    for right_side in _right_readings(right):
        value = evaluate(right_side)
        if value is None:
            continue
        shown = right_side[-1] if len(right_side) <= 2 and right_side[-1].kind == "number" else None
        for left_side in _left_readings(left):
            if calculated and left_side is not left and not _computes(left_side):
                continue
            # a value that was rounded earlier is tried as shown, then unrounded
            carried = [left_side]
            if exact and not exact.keys().isdisjoint([t.value for t in left_side]):
                carried.append([t._replace(value=exact.get(t.value, t.value)) for t in left_side])
            for side in carried:
                computed = evaluate(side)
                if computed is None:
                    continue
                inputs = _inputs(left_side)
                holds = _same(computed, value, shown, inputs)
                same = shown is not None and shown.value == value != 0
                signed = (shown if same else shown._replace(value=value),) if shown else tuple(results)
                text = "".join([t.text for t in left_side]) + " = " + "".join([t.text for t in right_side])
                equation = Equation(text, computed, value, holds, inputs, signed, 0)
                if holds:
                    return equation
                first = first or equation
    return first


_BEFORE_FIGURE = re.compile(r"^[^1-9]*|[^\d]")


def _same(left: float, right: float, shown: Token | None, inputs: Sequence[Token]) -> bool:
    """Whether both sides agree, up to the rounding that the right side shows (at most 1%).

    `shown` is the right side's number; None where that is an expression, which must agree up to its inputs' rounding.
    """
    if shown is None:
        rounding = max(
            (t.half_unit / abs(t.value) for t in inputs if t.value and t.half_unit < 0.5 * t.factor), default=0.0
        )
        return abs(left - right) <= max(_RELATIVE, min(rounding, 0.01)) * max(abs(left), abs(right))

    if _near(left, right, shown.half_unit, shown.text):
        return True
    # the unit may be written on one side only: `0.2 * 100 = 20%`, `120 - 100 = 20 million`, `12% - 10% = 2`
    factors = {token.factor for token in inputs}
    if len(factors) != 1 or shown.factor in factors or 1.0 not in (shown.factor, *factors):
        return False
    return _near(left / factors.pop(), right / shown.factor, shown.half_unit / shown.factor, shown.text)


def _near(left: float, right: float, half_unit: float, text: str) -> bool:
    gap, slack = abs(left - right), 1e-9 * abs(right)
    if gap > half_unit * (1 + 1e-6) + slack:
        return False
    if gap <= min(half_unit, 0.01 * abs(left)) * (1 + 1e-6) + slack:
        return True
    return len(_BEFORE_FIGURE.sub("", text.replace(".", ""))) >= 2  # accepting 7 for 7.2 would hide a slip


def _left_readings(tokens: Sequence[Token]) -> list[Sequence[Token]]:
    """The whole side; without a leading sign, which may be a bullet; from after a bracket that may be an aside."""
    readings = [tokens]
    if tokens[0].kind == "op":
        readings.append(tokens[1:])
    breaks = [
        i + 1
        for i in range(len(tokens) - 1)
        if tokens[i].kind in ("close", "number") and tokens[i + 1].kind == "number"
    ]
    if breaks:
        readings.append(tokens[breaks[-1] :])
    return readings


def _right_readings(tokens: Sequence[Token]) -> list[Sequence[Token]]:
    """The whole side; up to a bracket after a number, which may be an aside; without operators dangling at the end."""
    readings: list[Sequence[Token]] = [tokens]
    if len(tokens) == 1:
        return readings
    for i in range(1, len(tokens)):
        if tokens[i - 1].kind == "number" and tokens[i].kind in ("open", "number", "close"):
            readings.append(tokens[:i])
            break
    end = len(tokens)
    while end and tokens[end - 1].kind in ("op", "open", "root"):
        end -= 1
    if 0 < end < len(tokens):
        readings.append(tokens[:end])
    return readings
