"""Facts of a question and a trace that the reasoning rules use, computed on first use."""

from __future__ import annotations

import math
import re
from collections.abc import Set
from functools import cached_property, lru_cache

from finr1.answer.boxes import final_answer
from finr1.answer.candidates import candidates
from finr1.answer.choices import normalise
from finr1.answer.number import read_numbers, unit_factor
from finr1.answer.units import Number
from finr1.core.prompt import clauses, parts_of, sentence_that_asks
from finr1.core.types import Question
from finr1.parts.judge.base import JudgeItem
from finr1.parts.judge.rules.comparisons import Comparison, comparisons
from finr1.parts.judge.rules.equations import Equation, equations
from finr1.parts.judge.rules.figures import figures_of, number_key, read
from finr1.parts.judge.rules.words import is_financial, is_working, steps, words

# Keys of numbers that a calculation may use without a source: anywhere, and only as divisor, factor or exponent.
_ANYWHERE = (0, 1, 2, 10, 100, 360, 365, 366, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e12)
CONSTANTS = frozenset(map(number_key, _ANYWHERE))
COUNTS = frozenset(map(number_key, (*range(3, 13), 0.5, 0.25, 24, 30, 52, 250, 252, 364)))

_UNITS = (1e3, 1e-3, 1e4, 1e-4, 1e6, 1e-6, 1e8, 1e-8, 1e9, 1e-9)  # between which a report's figures may be restated
_PERCENT_COLUMN = re.compile(r"[(（|,]\s?(?:in )?(?:%|percent)")
_BOX_ASKED = re.compile(r"\\boxed|\bbox(?:ed)?\b")
_CALCULATES = re.compile(r"[=≈><≥≤]|above|below|than|exceed|高于|低于|大于|小于|超过|等于")

_normalise = lru_cache(1 << 13)(normalise)  # a question's samples share many steps


def asked_part(question: Question) -> str:
    """The sentence that asks: the last with a question mark, else the longer of the last two sentences."""
    parts = parts_of(question)
    sentences = clauses("\n".join(parts.asked or parts.context))
    asking = sentence_that_asks(sentences)
    return max(sentences[-2:], key=len, default="") if asking is None else sentences[asking]


class QuestionFacts:
    """A question as the rules see it; shared by all its traces."""

    def __init__(self, question: Question) -> None:
        self.question = question

    @cached_property
    def numbers(self) -> list[Number]:
        """The numbers of the prompt."""
        return read(self.question.text)

    @cached_property
    def figures(self) -> set[str]:
        """The keys of the prompt's figures."""
        return figures_of(self.numbers)

    @cached_property
    def topic(self) -> set[str]:
        """The words of the question and of its options."""
        return words(self.question.text).union(*map(words, self.question.choices.values()))

    @cached_property
    def terms(self) -> set[str]:
        """The words to reuse: financial (else content) words of the asking sentence, and those of a gold in words."""
        asked = words(asked_part(self.question))
        terms = {word for word in asked if is_financial(word)} or {word for word in asked if not is_working(word)}
        return terms | words(self.question.gold or "") if self.question.kind in ("label", "text") else terms

    @cached_property
    def given_numbers(self) -> list[Number]:
        """The numbers of the prompt and of the options."""
        choices = self.question.choices.values()
        return read(self.question.text + "\n" + "\n".join(choices)) if choices else self.numbers

    @cached_property
    def given_figures(self) -> set[str]:
        """The keys of the given numbers without their units."""
        return figures_of(self.given_numbers)

    @cached_property
    def given_values(self) -> set[float]:
        """The given numbers, with and without their units."""
        return {number.value for number in self.given_numbers} | {number.figure for number in self.given_numbers}

    @cached_property
    def restated(self) -> set[str]:
        """The keys of the given numbers, as they are and in other units."""
        factors = (1.0, *_UNITS, 0.01) if _PERCENT_COLUMN.search(self.question.text) else (1.0, *_UNITS)
        return {number_key(value * factor) for value in self.given_values for factor in factors}

    @cached_property
    def wants_box(self) -> bool:
        return _BOX_ASKED.search(self.question.text) is not None

    @cached_property
    def unit_factor(self) -> float:
        """What the asked unit multiplies by: 0.01 for `%`."""
        return unit_factor(str(self.question.meta.get("unit", "")))

    @cached_property
    def gold_numbers(self) -> list[Number]:
        return read_numbers(self.question.gold or "")


class TraceFacts:
    """A trace as the rules see it."""

    def __init__(self, item: JudgeItem, question_facts: QuestionFacts) -> None:
        self.item, self.question, self.question_facts = item, item.question, question_facts

    @cached_property
    def steps(self) -> list[str]:
        return steps(self.item.reasoning)

    @cached_property
    def normalised_steps(self) -> list[str]:
        return list(map(_normalise, self.steps))

    @cached_property
    def equations(self) -> list[Equation]:
        return equations(self.item.reasoning)

    @cached_property
    def comparisons(self) -> list[Comparison]:
        return comparisons(self.item.reasoning)

    @cached_property
    def words(self) -> set[str]:
        return words(self.item.reasoning)

    @cached_property
    def figures(self) -> set[str]:
        return figures_of(read(self.item.reasoning))

    @cached_property
    def answer(self) -> str:
        return final_answer(self.item.answer)

    @cached_property
    def answer_numbers(self) -> list[Number]:
        """The numbers that the final answer may mean."""
        return candidates(self.answer)[1]

    def unsourced_numbers(self) -> list[str]:
        """Inputs of calculations that are neither given, nor a constant, nor an earlier result.

        A given number may be restated in another unit; any known number may be rounded, used as 1 ± rate, or split into
        its decimal places where all of these are used (`x * 20`, `x * 1` for 21). A rate stated in a step without a
        calculation (`增值税税率为13%`) counts as given: background knowledge.
        """
        inputs = {number_key(token.value) for equation in self.equations for token in equation.inputs}
        statements = "\n".join(step for step in self.steps if not _CALCULATES.search(step))
        known = CONSTANTS | self.question_facts.restated
        known |= {number_key(number.value) for number in read(statements) if number.factor == 0.01}
        for value in self.question_facts.given_values:
            known |= reusable_keys(value, inputs)
        given_figures = self.question_facts.given_figures
        unsourced = []
        for equation in self.equations:
            for token in equation.inputs:
                key = number_key(token.value)
                sourced = key in known or number_key(token.value / token.factor) in given_figures
                if not sourced and not (token.kind == "by" and key in COUNTS):
                    unsourced.append(token.text)
            for value in (equation.left, *(token.value for token in equation.results)):
                known |= reusable_keys(value, inputs)
        for value in (value for comparison in self.comparisons for value in (comparison.left, comparison.right)):
            if number_key(value) not in known | given_figures | COUNTS:
                unsourced.append(f"{value:g}")
        return unsourced


def reusable_keys(value: float, inputs: Set[str]) -> frozenset[str]:
    """The keys under which a known number may be used again; `inputs` are the keys of all numbers used."""
    keys, places = _keys_and_places(value)
    return keys | places if places <= inputs else keys


@lru_cache(1 << 14)
def _keys_and_places(value: float) -> tuple[frozenset[str], frozenset[str]]:
    """The keys of a number, rounded and as 1 ± rate; and those of its decimal places (20 and 1 of 21) if several."""
    if not math.isfinite(value) or value == 0:
        return frozenset((number_key(value),)), frozenset()
    variants = [value, *(round(value, digits) for digits in range(5))]
    variants += [form for rate in (value, value / 100) if abs(rate) < 1 for form in (1 + rate, 1 - rate)]
    exponent = math.floor(math.log10(abs(value)))
    digits = f"{abs(value):.5e}"[:7].replace(".", "")
    places = [number_key(int(digit) * 10.0 ** (exponent - i)) for i, digit in enumerate(digits) if digit != "0"]
    return frozenset(map(number_key, variants)), frozenset(places if len(set(places)) > 1 else ())
