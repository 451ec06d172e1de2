"""Executed answers of FinQA and ConvFinQA: write them plainly, and check them against program and annotated answer."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import NamedTuple

from finr1.answer.asked import read_asked
from finr1.answer.number import unit_factor
from finr1.answer.program import ProgramError, Table, execute, literal
from finr1.core.errors import RowError

_NUMBER = re.compile(r"-?\s*\$?\s*(?:\d[\d,]*\.?\d*|\.\d+)")
DISAGREE = ("unreadable", "sign", "value", "program")  # doubts about rows whose answers contradict each other


class Executed(NamedTuple):
    """The gold of an executed answer, and the question's `meta`."""

    gold: str
    meta: dict[str, str]


def examine(
    value: object, shown: str | None, program: str, table: Table, place: str, drop: bool, question: str
) -> Executed:
    """Check an executed answer against the annotated answer (None: not published) and the program.

    Raises:
        RowError: the value is not an answer; or, with `drop`, its doubt is in `DISAGREE`.
    """
    gold = plain(value, place)
    doubt, percent = ("", "") if shown is None else agreement(value, shown)
    if program and not program_gives(program, table, value):
        doubt = "program"
    if drop and doubt in DISAGREE:
        why = f"executed answer {gold}, annotated {shown or ''!r}, program {program!r}: {doubt}"
        raise RowError(place, why, reason="doubtful_gold")
    meta = {"program": program, "answer": shown or "", "doubt": doubt, "percent": percent}
    # a gold in percentage points (16.9 for 16.9%) is read as such; a fraction (0.169) equals 16.9% by value
    asked = read_asked(question).unit
    scale = asked if not percent and unit_factor(asked) > 1 else ""
    return Executed(gold, meta | {"unit": "%" if percent == "points" else scale})


def plain(value: object, place: str) -> str:
    """`exe_ans` as text without exponent or trailing zeros: 1e-05 is 0.00001, 2057.0 is 2057, `yes` stays.

    Raises:
        RowError: neither a finite number nor yes or no.
    """
    if isinstance(value, str) and value.strip().lower() in ("yes", "no"):
        return value.strip().lower()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or abs(value) == float("inf"):
        raise RowError(place, f"exe_ans {value!r}", "it should be a number, yes or no")
    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def agreement(value: object, shown: str) -> tuple[str, str]:
    """Compare the executed answer with the annotated one.

    Returns:
        The doubt ("" for none, "no answer", "unreadable", "sign", "value"); and, if the annotated answer is the same
        value as a percentage, whether the executed one is in "points" (16.9) or a "fraction" (0.169).
    """
    if not shown:
        return "no answer", ""
    if isinstance(value, str):
        return ("" if shown.lower().startswith(value.strip().lower()) else "value"), ""
    match = _NUMBER.search(shown)
    if not match or not isinstance(value, (int, float)):
        return "unreadable", ""
    digits = re.sub(r"[\s$,]", "", match.group())
    annotated, rounding = float(digits), 0.51 * 10.0 ** -len(digits.partition(".")[2])
    percent = "%" in shown or "percent" in shown.lower()
    for factor in (1.0, 0.01, 100.0):
        if abs(abs(annotated) - abs(value / factor)) <= max(rounding, 0.01 * abs(annotated)):
            kind = {1.0: "points", 0.01: "fraction", 100.0: ""}[factor] if percent else ""
            return ("sign" if annotated * value < 0 else ""), kind
    return "value", ""


def program_gives(program: str, table: Table, value: object) -> bool:
    """Whether a program (or, in ConvFinQA, a single number) gives the executed answer, to its five decimals."""
    try:
        result = execute(program, table) if "(" in program else literal(program.strip())
    except ProgramError:
        return False
    if isinstance(result, str) or not isinstance(value, (int, float)):
        return result == (value.strip().lower() if isinstance(value, str) else value)
    return abs(result - value) <= 1e-5 + 1e-6 * abs(value)
