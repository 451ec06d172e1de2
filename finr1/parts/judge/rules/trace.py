"""What the reasoning rules read in a question and in a trace, each thing once and only when a rule asks for it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence, Set
from functools import lru_cache
from typing import Any, Generic, TypeVar

from finr1.answer.choices import normalise
from finr1.answer.clean import clean
from finr1.answer.grade_number import candidates
from finr1.answer.number import read_numbers, unit_factor
from finr1.answer.tags import final_answer
from finr1.answer.units import Number
from finr1.core.types import Question
from finr1.parts.judge.base import JudgeItem
from finr1.parts.judge.rules.comparisons import Comparison, comparisons
from finr1.parts.judge.rules.equations import Equation, equations
from finr1.parts.judge.rules.figures import figures_in, figures_of, key, read
from finr1.parts.judge.rules.words import is_financial, is_working, steps, touches, words

# Figures a calculation may use without having read them: anywhere, and only as what it divides or multiplies by.
_CONSTANTS = (0, 1, 2, 10, 100, 360, 365, 366, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e12)
_COUNTS = (*range(3, 13), 0.5, 0.25, 24, 30, 52, 250, 252, 364)
_UNITS = (1e3, 1e-3, 1e4, 1e-4, 1e6, 1e-6, 1e8, 1e-8, 1e9, 1e-9)  # between which a report's figures may be restated
_CLAUSE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？；])|\n")
_PERCENT_COLUMN = re.compile(r"[(（|,]\s?(?:in )?(?:%|percent)")
_BOX_ASKED = re.compile(r"\\boxed|\bbox(?:ed)?\b")
_CALCULATES = re.compile(r"[=≈><≥≤]|above|below|than|exceed|高于|低于|大于|小于|超过|等于")

CONSTANTS = frozenset(map(key, _CONSTANTS))
COUNTS = frozenset(map(key, _COUNTS))


def asked_part(question: Question) -> str:
    """The sentence that asks: the last with a question mark, else the longer of the last two."""
    text = question.prompt[-1]["content"] if question.prompt else ""
    clauses = [clause.strip() for clause in _CLAUSE.split(text) if clause.strip()]
    asking = [clause for clause in clauses if clause.endswith(("?", "？"))]
    return asking[-1] if asking else max(clauses[-2:], key=len, default="")


_Value = TypeVar("_Value")


class once(Generic[_Value]):
    """`cached_property` without the lock that Python 3.11 takes at each first look: a trace is read by one thread."""

    def __init__(self, function: Callable[[Any], _Value]) -> None:
        self.function, self.name = function, function.__name__

    def __get__(self, instance: Any, owner: type | None = None) -> _Value:
        value = self.function(instance)
        instance.__dict__[self.name] = value
        return value


_normalise = lru_cache(1 << 13)(normalise)  # the samples of a question say much the same


class Asked:
    """A question as the rules see it; all its traces share one."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.cleaned = clean(question.text)
        self._touching: dict[str, bool] = {}

    def touches(self, step: str, cleaned: bool) -> bool:
        """Whether a step has a word of the question or of finance."""
        found = self._touching.get(step)
        if found is None:
            found = self._touching[step] = touches(step, self.topic, cleaned)
        return found

    @once
    def numbers(self) -> list[Number]:
        return read(self.cleaned, cleaned=True)

    @once
    def figures(self) -> set[str]:
        return figures_of(self.numbers)

    @once
    def topic(self) -> set[str]:
        """Words of the question and of its options."""
        topic = words(self.cleaned, cleaned=True)
        return topic.union(*map(words, self.question.choices.values()))

    @once
    def terms(self) -> set[str]:
        """Words that an answer should take up: the financial ones of what is asked, and those of a gold in words."""
        asked = words(asked_part(self.question))
        terms = {word for word in asked if is_financial(word)} or {word for word in asked if not is_working(word)}
        return terms | words(self.question.gold or "") if self.question.kind in ("label", "text") else terms

    @once
    def given(self) -> list[Number]:
        """Numbers of the question and of its options."""
        choices = self.question.choices.values()
        return read(self.question.text + "\n" + "\n".join(choices)) if choices else self.numbers

    @once
    def shown(self) -> set[str]:
        return figures_of(self.given)

    @once
    def values(self) -> set[float]:
        return {number.value for number in self.given} | {number.figure for number in self.given}

    @once
    def plain_keys(self) -> frozenset[str]:
        """Constants, and the given numbers as they are: what most inputs of a calculation are."""
        return CONSTANTS.union(map(key, self.values))

    @once
    def restated(self) -> set[str]:
        """The given numbers in other units."""
        factors = (1.0, *_UNITS, 0.01) if _PERCENT_COLUMN.search(self.question.text) else (1.0, *_UNITS)
        return {key(value * factor) for value in self.values for factor in factors}

    @once
    def wants_box(self) -> bool:
        return _BOX_ASKED.search(self.question.text) is not None

    @once
    def unit(self) -> float:
        return unit_factor(str(self.question.meta.get("unit", "")))

    @once
    def gold_numbers(self) -> list[Number]:
        return read_numbers(self.question.gold or "")


class Reading:
    """A trace as the rules see it."""

    def __init__(self, item: JudgeItem, asked: Asked) -> None:
        self.item, self.asked, self.question = item, asked, item.question
        self.cleaned = clean(item.reasoning)

    @once
    def is_plain(self) -> bool:
        """Whether cleaning changes neither the trace nor any part of it."""
        text = self.cleaned
        return (
            text.isascii()
            and text == self.item.reasoning
            and not ("\\" in text or "{" in text or " ," in text or "**" in text)
        )

    @once
    def steps(self) -> list[str]:
        return steps(self.item.reasoning)

    @once
    def plain_steps(self) -> list[str]:
        return list(map(_normalise, self.steps))

    @once
    def equations(self) -> list[Equation]:
        return equations(self.cleaned, cleaned=True)

    @once
    def comparisons(self) -> list[Comparison]:
        return comparisons(self.cleaned, cleaned=True)

    @once
    def words(self) -> set[str]:
        return words(self.cleaned, cleaned=True)

    @once
    def figures(self) -> set[str]:
        return figures_in(self.cleaned, cleaned=True)

    @once
    def answer(self) -> str:
        return final_answer(self.item.answer)

    @once
    def answer_numbers(self) -> list[Number]:
        """The numbers that the final answer may mean."""
        return candidates(self.answer)[1]

    def unsourced(self) -> list[str]:
        """Inputs of equations that are neither in the question, nor a constant, nor an earlier result.

        A number of the question may be restated in another unit, any number rounded or as 1 ± rate, and taken apart by
        places where all its parts are used (`x * 20`, `x * 1` for 21). A rate that the trace states in a step without
        calculation (`增值税税率为13%`) counts as given: knowledge the question supposes.
        """
        plain, shown = set(self.asked.plain_keys), self.asked.shown
        known: set[str] | None = None  # all forms of what is known, from the first input on that is not plainly there
        results: list[float] = []
        strangers = []
        for equation in self.equations:
            for token in equation.inputs:
                name = key(token.value)
                if name in plain or key(token.value / token.factor) in shown or (token.kind == "by" and name in COUNTS):
                    continue
                if known is None:
                    known = self._forms_known(results)
                if name not in known:
                    strangers.append(token.text)
            for value in (equation.left, *(token.value for token in equation.results)):
                plain.add(key(value))
                if known is None:
                    results.append(value)
                else:
                    known |= forms(value, self._inputs)
        for value in (value for _, _, values in self.comparisons for value in values):
            name = key(value)
            if name not in plain and name not in shown and name not in COUNTS:
                known = self._forms_known(results) if known is None else known
                if name not in known:
                    strangers.append(f"{value:g}")
        return strangers

    @once
    def _inputs(self) -> set[str]:
        return {key(token.value) for equation in self.equations for token in equation.inputs}

    def _forms_known(self, results: Sequence[float]) -> set[str]:
        """All forms of the given numbers, of the rates that are stated, and of these results."""
        known = set(self.asked.restated)
        for value in (*self.asked.values, *results):
            known |= forms(value, self._inputs)
        prose = "\n".join(step for step in self.steps if not _CALCULATES.search(step))
        return known | {key(number.value) for number in read(prose) if number.factor == 0.01}


def forms(value: float, inputs: Set[str]) -> frozenset[str]:
    """Keys under which a known number may be used again, where `inputs` are all that is used."""
    whole, places = _forms(value)
    return whole | places if places and places <= inputs else whole


@lru_cache(1 << 14)
def _forms(value: float) -> tuple[frozenset[str], frozenset[str]]:
    """The number rounded and as 1 ± rate; and its decimal places, if it has several."""
    if not math.isfinite(value) or value == 0:
        return frozenset((key(value),)), frozenset()
    found = [value, *(round(value, digits) for digits in range(5))]
    found += [form for rate in (value, value / 100) if abs(rate) < 1 for form in (1 + rate, 1 - rate)]
    top = math.floor(math.log10(abs(value)))
    digits = f"{abs(value):.5e}"[:7].replace(".", "")
    places = frozenset(key(int(digit) * 10.0 ** (top - i)) for i, digit in enumerate(digits) if digit != "0")
    return frozenset(map(key, found)), places if len(places) > 1 else frozenset()
