"""How precise a gold is, and whether a number equals it: at its precision, or also at another power of ten."""

from __future__ import annotations

import math

from finr1.answer.units import Number

SCALES = (100.0, 1e3, 1e4, 1e6, 1e8, 1e9, 1e12)
TWO_DIGITS = 0.05  # half of the last digit, relative to a figure of two digits, at most
_FLOAT_ERROR = 1e-14  # relative, of floating-point arithmetic; rounding is judged by the digits shown
_SCALED_TOLERANCE = 0.005
_MOST_ROUNDING = 0.1  # relative: a gold of one digit, such as 0.1, would else accept 0.14


def same_number(answer: Number, gold: Number, unit: float = 1.0, tolerance: float = 0.0) -> tuple[bool, bool]:
    """Whether two numbers are equal, (strict, scaled), to `gold.half_unit`.

    Args:
        answer: number read from the answer.
        gold: number read from the gold, at its precision (`precise`).
        unit: factor of the unit that the question asks for (1.0: none); a bare gold is in that unit.
        tolerance: relative difference allowed at another power of ten, where it is more than 0.5%.

    >>> from finr1.answer.number import read_numbers
    >>> answer, gold = (read_numbers(text)[0] for text in ("25", "25%"))
    >>> same_number(answer, gold), same_number(answer, gold, unit=0.01)
    ((False, True), (True, True))
    """
    if unit != 1.0 and gold.bare:
        gold = gold.times(unit)
    value, target = answer.value, gold.value
    size = abs(target)
    float_error = _FLOAT_ERROR * size
    rounding = gold.half_unit
    bare = answer.factor == 1.0
    if _near(value, target, rounding, float_error) or (
        bare and unit != 1.0 and _near(value * unit, target, rounding, float_error)
    ):
        return True, True
    if target == 0 or value == 0 or (value < 0) != (target < 0):
        return False, False
    if bare and _near(value * gold.factor, target, rounding, float_error):  # the same figure without the gold's unit
        return False, True
    rounding = min(rounding, max(_SCALED_TOLERANCE, tolerance) * size)
    scales = SCALES[:1] if bare and gold.bare and unit == 1.0 else SCALES  # the first where neither has a unit
    return False, any(
        _near(value * f, target, rounding, float_error) or _near(value / f, target, rounding, float_error)
        for f in scales
    )


def _near(value: float, target: float, rounding: float, float_error: float) -> bool:
    """Whether a value rounds to the target, half a unit away from zero: 2.5 rounds to 3, not to 2."""
    apart = value - target
    outward = apart if target > 0 else -apart if target < 0 else abs(apart)
    return -rounding - float_error <= outward < rounding - float_error or abs(apart) <= float_error


def precise(gold: Number, tolerance: object = None, step: float = 0.0) -> Number:
    """The gold with the difference that it allows as its `half_unit`.

    Args:
        gold: number as its text shows it.
        tolerance: `Question.meta["tolerance"]`: `exact`, `shown` (half of the last digit shown) or a relative
            difference; None: an integer is exact, another number as `shown`, but to 10% at most.
        step: what the question asks to round the figure to; 0.0: not asked.

    >>> from finr1.answer.number import read_numbers
    >>> two, third, share = (read_numbers(text)[0] for text in ("2", "0.3333", "25%"))
    >>> [precise(number).half_unit for number in (two, third, share)]
    [0.0, 5e-05, 0.005]
    >>> precise(two, "shown").half_unit, precise(third, step=0.01)[:2]
    (0.5, (0.33, 0.005))
    """
    size, factor, rounding = abs(gold.value), gold.factor, gold.half_unit
    rounded = math.floor(size / factor / step + 0.5 + 1e-9) * step * factor if step else size
    if abs(rounded - size) > TWO_DIGITS * size:
        step, rounded = 0.0, size  # not the rounding that the gold has
    most = _MOST_ROUNDING * size if size else math.inf
    if isinstance(tolerance, (int, float)):
        rounding = tolerance * size * (1 + 1e-9)  # the largest difference allowed is allowed
    elif tolerance == "exact":
        rounding = 0.0
    elif step:
        return gold._replace(value=math.copysign(rounded, gold.value), half_unit=min(0.5 * step * factor, most))
    elif tolerance is None:
        integer = rounding == 0.5 * factor
        rounding = 0.0 if integer and (factor >= 1.0 or not size) else min(rounding, most)
    return gold._replace(half_unit=max(rounding, abs(rounded - size)))
