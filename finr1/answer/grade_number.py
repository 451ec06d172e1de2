"""Grade a numeric answer: compare the numbers it may mean (`candidates`) with the gold (`same_number`), and read what
the words beside them say of them (`doubt`).

The rules, with an example of each, are the table in `finr1.answer.grade`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from finr1.answer import number_words
from finr1.answer.asked import Asked, asked_of
from finr1.answer.candidates import EXPRESSION, MAX_NUMBERS, candidates
from finr1.answer.clean import clean
from finr1.answer.currency import clash, currencies
from finr1.answer.date import read_date
from finr1.answer.doubt import (
    UNEQUAL,
    Facts,
    facts_of,
    in_other_measure,
    is_argument,
    may_be_negative,
    measure_of,
    other_readings,
    time_asked,
    why_doubtful,
)
from finr1.answer.number import read_numbers, single_number, unit_factor
from finr1.answer.precision import TWO_DIGITS, precise, same_number
from finr1.answer.units import Number
from finr1.core.types import Question, Verdict

TOO_MANY = f"more than {MAX_NUMBERS} numbers"  # the reason of such an undecided verdict
_RANGE_JOINT = re.compile(r"\s?(?:[-~至到]|to\b|and\b)\s?", re.I)
_RANGE_LEAD = re.compile(r"(?:between|from|about|约|在|[\s$€£¥(])*", re.I)
_HEDGE_JOINT = re.compile(
    r"[\s$€£¥(),]*(?:(?:\bor\b\s?)?(?:\b(?:maybe|perhaps|possibly|even|about)\b)|\bor\b|或者?|还是"
    r"|也?可能是?)[\s$€£¥(约]*",
    re.IGNORECASE,
)
_LIST_JOINT = re.compile(r"[\s$€£¥]*[,、][\s$€£¥]*")
_HEDGE_END = re.compile(r"\W*+\w{0,20}+\W*+")  # at most a unit: "12 or 13, the former" is not a hedge
_DIFFERENCE = re.compile(r"\s?-\s?")


class _Gold(NamedTuple):
    """A gold: one number, or the two ends of a range, or none where it cannot be graded as one; and its words."""

    numbers: tuple[Number, ...]
    plain: str
    facts: Facts
    unit: float = 1.0  # factor of the unit that the question asks for
    tolerance: float = 0.0
    by_value: bool = False  # a gold without unit may be a value as well as a figure in the unit asked for
    figures: bool = False  # an answer without unit is such a figure, never a value: not 0.0516 for 5.16
    rounds: bool = False  # an answer that is the gold rounded to fewer digits is right but for the strict verdict


@lru_cache(maxsize=8192)
def _read_gold(text: str) -> _Gold:
    plain = clean(text).strip()
    numbers = read_numbers(plain, cleaned=True, most=3)
    single = single_number(plain) if len(numbers) != 1 or plain.startswith("0,") else None
    numbers = [single] if single else numbers
    if len(numbers) == 2 and not _is_range(numbers, plain):
        numbers = []
    if any(any(date[1:]) for date in read_date(plain)):  # a date; a year alone is a number
        numbers = []
    return _Gold(tuple(numbers), plain, facts_of(text))


@lru_cache(maxsize=8192)
def _graded_gold(text: str, tolerance: object, asked: Asked, stated: bool) -> _Gold:
    """A gold at its precision, in the unit asked for; `stated`: by the source, not by the question's words."""
    gold = _read_gold(text)
    unit, step = unit_factor(asked.unit) if asked.unit else 1.0, asked.step
    size = max((abs(number.value) for number in gold.numbers), default=0.0)
    if step >= 1e3 and (step == unit or size < step):
        unit, step = step, 1.0  # 830, to the nearest million: a figure in millions
    bare = unit != 1.0 and all(number.bare for number in gold.numbers)
    in_unit = (number.times(unit) for number in gold.numbers) if bare else gold.numbers
    relative = float(tolerance) if isinstance(tolerance, (int, float)) else 0.0
    return gold._replace(
        numbers=tuple(precise(number, tolerance, step) for number in in_unit),
        unit=unit,
        tolerance=relative,
        by_value=bare and (unit > 1.0 or (not stated and size <= 1.0)),
        figures=bare and unit < 1.0 and not stated,
        rounds=relative > 0 and not step,
    )


def is_number(gold: str) -> bool:
    """Whether a gold can be graded as one number or one range."""
    return len(_read_gold(gold.strip()).numbers) in (1, 2)


def grade_number(text: str, question: Question) -> tuple[Verdict, Verdict]:
    """The strict and the scaled verdict for a question whose gold is one number or one range (`is_number`)."""
    gold_text = (question.gold or "").strip()
    meta = question.meta
    gold = _graded_gold(gold_text, meta.get("tolerance"), asked_of(question), "unit" in meta)
    part, numbers = candidates(text)
    if not numbers:
        word = any(_matches(number, gold)[1] for number in number_words.vague_numbers(text) if len(gold.numbers) == 1)
        return _twice(None if word else 0.0, text, "a word that may mean the number" if word else "no number")
    if len(gold.numbers) == 2:
        return _grade_range(part, numbers, gold)
    if len(numbers) > MAX_NUMBERS:
        return _twice(None, part, TOO_MANY)
    # nothing beside the number: no words to read
    alone = (
        len(numbers) == 1
        and numbers[0].end - numbers[0].start >= len(part)
        and not gold.facts.falls
        and part[-1] != "半"
    )
    if not alone and not gold.facts.measure and (measure := time_asked(question, part, numbers)):
        gold = gold._replace(facts=gold.facts._replace(measure=measure))
    matches = [_matches(number, gold) for number in numbers]
    if not alone and not all(match[0] for match in matches):
        matches = _read_again(part, numbers, matches, gold)
    strict, scaled = [match[0] for match in matches], [match[1] for match in matches]
    if gold.rounds and not any(scaled):
        scaled = [_is_rounding(number, gold, 1.0, 100.0, 0.01) for number in numbers]
    if not any(scaled):
        return _twice(0.0, part, f"not {gold_text}") if alone else _without_match(part, numbers, gold, gold_text)
    if not all(scaled) and _is_hedge(numbers, part):
        return _twice(0.0, part, f"a hedge, not {gold_text}")
    doubt = "" if alone else _why_doubtful(part, numbers, scaled, gold, question)
    if doubt == UNEQUAL:
        return _twice(0.0, part, doubt)
    if doubt:
        undecided = Verdict(None, part, doubt)
        return (undecided if any(strict) else Verdict(0.0, part, f"not {gold_text}")), undecided
    if difference := clash(part, gold.plain):
        return _twice(0.0 if difference == "other" else None, part, f"in another currency than {gold_text}")
    if gold.facts.measure and currencies(part):
        return _twice(None, part, "a sum of money, not a measure")
    by_scale = _verdict(scaled, part, gold_text, "up to scale")
    if gold.rounds and not any(strict) and any(_is_rounding(number, gold, 1.0) for number in numbers):
        return Verdict(None, part, f"rounded: {gold_text} to fewer digits"), by_scale
    if not any(strict) and _is_computed(part, numbers):
        return Verdict(None, part, "an expression, not computed"), by_scale
    return _verdict(strict, part, gold_text, "by value"), by_scale


def _matches(number: Number, gold: _Gold) -> tuple[bool, bool]:
    target = gold.numbers[0]
    figure = target
    if gold.figures or gold.by_value:
        figure = target._replace(value=target.figure, half_unit=target.half_unit / target.factor, factor=1.0)
    if gold.figures and number.bare:
        return same_number(number, figure, 1.0, gold.tolerance)
    strict, scaled = same_number(number, target, gold.unit, gold.tolerance)
    strict = strict or (gold.by_value and same_number(number, figure)[0])
    return strict, strict or scaled


def _is_rounding(number: Number, gold: _Gold, *factors: float) -> bool:
    """Whether an answer is the gold, times a factor, rounded to the digits that it shows, two at least."""
    in_unit = number.times(gold.unit) if number.bare else number
    return number.half_unit <= TWO_DIGITS * abs(number.value) and any(
        abs(read.value - gold.numbers[0].value * factor) <= read.half_unit * (1 + 1e-9)
        for read in (number, in_unit)
        for factor in factors
    )


def _twice(value: float | None, answer: str, why: str) -> tuple[Verdict, Verdict]:
    verdict = Verdict(value, answer, why)
    return verdict, verdict


def _verdict(matches: Sequence[bool], part: str, gold_text: str, how: str) -> Verdict:
    if all(matches):
        return Verdict(1.0, part, f"equals {gold_text} {how}")
    if any(matches):
        return Verdict(None, part, f"several numbers, one of them equals {gold_text}")
    return Verdict(0.0, part, f"{'none equals' if len(matches) > 1 else 'not'} {gold_text}")


def _without_match(part: str, numbers: Sequence[Number], gold: _Gold, gold_text: str) -> tuple[Verdict, Verdict]:
    """No number equals the gold: wrong, unless words may give the sign or the answer is an expression."""
    target = gold.numbers[0].value
    if any(
        _matches(number._replace(value=-number.value), gold)[1]
        and (_is_in_brackets(number, part) or may_be_negative(number, part, gold.facts))
        for number in numbers
        if number.value * target < 0
    ):
        return _twice(None, part, "the sign depends on the words around it")
    if _is_computed(part, numbers):
        return _twice(None, part, "an expression, not computed")
    if any(_is_cut_off(number, part, gold.numbers[0]) for number in numbers):
        return _twice(None, part, "digits left out")
    return _twice(0.0, part, f"{'none equals' if len(numbers) > 1 else 'not'} {gold_text}")


def _read_again(
    part: str, numbers: Sequence[Number], matches: Sequence[tuple[bool, bool]], gold: _Gold
) -> list[tuple[bool, bool]]:
    """The matches, with other readings of the numbers (`3.4 m`), and numbers that say again what another says."""
    found = [
        match
        if match[0]
        else next((m for read in other_readings(n, part, gold.facts) if (m := _matches(read, gold))[0]), match)
        for n, match in zip(numbers, matches, strict=True)
    ]
    equal = [number for number, match in zip(numbers, found, strict=True) if match[0]]
    return [
        (True, True) if any(_says_again(number, other) for other in equal) else match
        for number, match in zip(numbers, found, strict=True)
    ]


def _says_again(number: Number, other: Number) -> bool:
    """Whether a number is another one rounded, in another notation: 8.35% beside 0.083487."""
    off = abs(number.value - other.value)
    return number.factor != other.factor and off <= number.half_unit <= TWO_DIGITS * abs(number.value)


def _is_computed(part: str, numbers: Sequence[Number]) -> bool:
    """Whether the numbers are parts of an expression or arguments of a function: 4 × 5, 1250-1000, √10, 3 out of 5."""
    if any(is_argument(number, part) for number in numbers):
        return True
    if len(numbers) == 2 and numbers[0].value > numbers[1].value:
        return EXPRESSION.search(part) is not None or bool(
            _DIFFERENCE.fullmatch(part, numbers[0].end, numbers[1].start)
        )
    return len(numbers) > 1 and EXPRESSION.search(part) is not None


def _is_cut_off(number: Number, part: str, target: Number) -> bool:
    """Whether `...` after a number leaves out digits that its gold may have: 0.666... for 0.667."""
    return part.startswith("...", number.end) and abs(number.value - target.value) <= 2.02 * number.half_unit


def _why_doubtful(
    part: str, numbers: Sequence[Number], matches: Sequence[bool], gold: _Gold, question: Question
) -> str:
    """Why a number that equals the gold may still not mean it: `more than 5%`; "fell by 5%" for 5%. Empty: no doubt."""
    for number, match in zip(numbers, matches, strict=True):
        if match and len(numbers) == 1 and _is_in_brackets(number, part) and not _is_also_in_words(number, part):
            return "brackets that may mean a minus"
        if match and (doubt := why_doubtful(number, part, gold.facts, question)):
            return doubt
    return ""


def _is_also_in_words(number: Number, text: str) -> bool:
    """`five (5)`."""
    words = number_words.english_number(text[: number.start - 1].strip())
    return words is not None and words.value == number.value


def _is_in_brackets(number: Number, text: str) -> bool:
    """`growth (20%)`: accountants' minus or a side remark; where it can only be a minus it was read as one."""
    return number.value > 0 and text[: number.start].endswith("(") and text[number.end :].lstrip().startswith(")")


def _grade_range(part: str, numbers: Sequence[Number], gold: _Gold) -> tuple[Verdict, Verdict]:
    low, high = gold.numbers
    if len(numbers) == 2 and _is_range(numbers, part):
        ends = [
            _matches(number, gold._replace(numbers=(end,))) for number, end in zip(numbers, (low, high), strict=True)
        ]
        strict, scaled = all(strict for strict, _ in ends), all(scaled for _, scaled in ends)
        if scaled and (doubt := in_other_measure(part[numbers[1].end :], measure_of(gold.plain[high.end :]))):
            return _twice(None, part, doubt)
        if scaled and (difference := clash(part, gold.plain)):
            return _twice(0.0 if difference == "other" else None, part, "in another currency")
        return (
            Verdict(float(strict), part, "the same range" if strict else "another range"),
            Verdict(float(scaled), part, "the same range up to scale" if scaled else "another range"),
        )
    if any(low.value <= number.value <= high.value for number in numbers):
        return _twice(None, part, TOO_MANY if len(numbers) > MAX_NUMBERS else "inside the range")
    return _twice(0.0, part, "not the range")


def _is_range(numbers: Sequence[Number], text: str) -> bool:
    """Whether a text is `5%-7%`, `between 12 and 13`, `3至5亿`."""
    first, second = numbers
    between = text[first.end : second.start + 1].rstrip("0123456789.$€£¥")
    head = text[: first.start]
    joined = _RANGE_JOINT.fullmatch(between) or _RANGE_JOINT.fullmatch(text[first.end : second.start].strip("元 $"))
    lead = _RANGE_LEAD.fullmatch(head)
    if "and" in between and "between" not in head.lower():
        return False
    return bool(joined and lead) and first.value < second.value


def _is_hedge(numbers: Sequence[Number], text: str) -> bool:
    """Whether an answer leaves open which of its numbers is meant: `24% or 25%`, `12, 13或14`, `5%-7%`.

    `$5 million or 25%` may give one value twice, and `from 20% to 25%` is a change: neither is a hedge.
    """
    if len({number.factor < 1 for number in numbers}) > 1 or not _HEDGE_END.fullmatch(text, numbers[-1].end):
        return False
    if len(numbers) == 2 and _is_range(numbers, text):
        return "from" not in text.lower() and not EXPRESSION.search(text)
    joints = [text[left.end : right.start] for left, right in pairwise(numbers)]
    is_or = [_HEDGE_JOINT.fullmatch(joint) is not None for joint in joints]
    return any(is_or) and all(o or _LIST_JOINT.fullmatch(joint) for o, joint in zip(is_or, joints, strict=True))
