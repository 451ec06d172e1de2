"""Fin-R1's seven criteria of good reasoning (arXiv 2503.16252 v5, App. B.3), each as a check that needs no model.

Fin-R1 asks Qwen2.5-72B; these rules are ours. They see what can be recomputed or counted, not whether an argument
convinces: a trace that fails one has a fault that can be pointed at (`Verdict.why` names it), a trace that holds all
seven has none of these faults.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache

from finr1.answer.choices import labels_named, letters_named, normalise, polarity
from finr1.answer.clean import clean
from finr1.answer.grade_number import same_number
from finr1.answer.number import read_numbers
from finr1.answer.tags import last_box
from finr1.answer.units import Number
from finr1.core.errors import ConfigError
from finr1.core.types import CRITERIA, Question, Verdict
from finr1.parts.judge.base import JudgeItem
from finr1.parts.judge.rules.equations import Equation
from finr1.parts.judge.rules.figures import figures_in, key, read
from finr1.parts.judge.rules.trace import Asked, Reading, asked_part
from finr1.parts.judge.rules.words import han_share, is_working, words

__all__ = ["ReasoningRules", "asked_part"]

_SAYS = {
    "yes": re.compile(r"\b(?:yes|true|correct)\b|是|对|正确", re.IGNORECASE),
    "no": re.compile(r"\b(?:no|not|false|incorrect)\b|否|不|错", re.IGNORECASE),
}
_TOKENS = re.compile(r"[a-z0-9.%]+|[\u3400-\u9fff]")
_CONCLUDES = re.compile(r"(?:answer\s?(?:is|:)|答案\s?(?:是|为|:))([^\n]*)", re.IGNORECASE)


class ReasoningRules:
    """The rule judge of reasoning. All thresholds are settings of ours: Fin-R1 gives none but the three steps.

    - `min_steps`: distinct steps (lines, and sentences in them) that a trace must have.
    - `min_overlap`: share of the asked sentence's financial terms (its content words, where it has none) that the
      reasoning must use; `enough_figures` numbers of the question do as well.
    - `max_repeated`: share of steps that may repeat an earlier one word for word.
    - `max_off_topic`: share of steps that may have no word or number of the question or of finance.
    - `closing_steps`: the last steps, in which the final answer must appear.
    - `max_unsourced`: numbers that may enter the calculation from nowhere; raise it for questions that need outside
      figures, such as tax brackets.
    - `only_faults`: criteria in which the rules only find faults: what passes is left open, for a judge after this one.
    """

    name = "reasoning_rules"

    def __init__(
        self,
        min_steps: int = 3,
        min_overlap: float = 0.25,
        enough_figures: int = 2,
        max_repeated: float = 0.1,
        max_off_topic: float = 0.1,
        closing_steps: int = 2,
        max_unsourced: int = 0,
        only_faults: Sequence[str] = (),
    ) -> None:
        for name in only_faults:
            if name not in CRITERIA:
                key = "judge.reasoning.reasoning_rules.only_faults"
                raise ConfigError(key, name, "no such criterion", f"use some of {', '.join(CRITERIA)}")
        self.only_faults = tuple(only_faults)
        self.min_steps, self.min_overlap, self.enough_figures = min_steps, min_overlap, enough_figures
        self.max_repeated, self.max_off_topic = max_repeated, max_off_topic
        self.closing_steps, self.max_unsourced = closing_steps, max_unsourced

    def judge(self, items: Sequence[JudgeItem]) -> list[dict[str, Verdict]]:
        questions = {id(item.question): item.question for item in items}
        asked = {name: Asked(question) for name, question in questions.items()}
        found = [self._one(Reading(item, asked[id(item.question)])) for item in items]
        for verdicts in found if self.only_faults else ():
            for name in self.only_faults:
                if verdicts[name].value == 1:
                    verdicts[name] = verdicts[name]._replace(value=None)
        return found

    def _one(self, trace: Reading) -> dict[str, Verdict]:
        return {
            "internal_consistency": internal_consistency(trace),
            "term_overlap": self.term_overlap(trace),
            "step_count": self.step_count(trace),
            "logical_consistency": self.logical_consistency(trace),
            "diversity": self.diversity(trace),
            "domain_relevance": self.domain_relevance(trace),
            "instruction_following": instruction_following(trace),
        }

    def term_overlap(self, trace: Reading) -> Verdict:
        """The reasoning uses the words of what is asked, and of a gold in words, or the figures of the question."""
        terms = trace.asked.terms
        used, numbers = terms & trace.words, trace.asked.figures & trace.figures
        held = len(used) >= self.min_overlap * len(terms) or len(numbers) >= self.enough_figures
        return _verdict(held, f"{len(used)} of {len(terms)} terms and {len(numbers)} figures of the question used")

    def step_count(self, trace: Reading) -> Verdict:
        """At least three different steps."""
        count = len(set(trace.plain_steps))
        return _verdict(count >= self.min_steps, f"{count} steps")

    def diversity(self, trace: Reading) -> Verdict:
        """Steps are not repeated, and the text does not go round in circles."""
        plain = trace.plain_steps
        counts = Counter(plain) if len(set(plain)) < len(plain) else {}
        repeated = sum(n - 1 for step, n in counts.items() if n > 1 and (len(step) > 3 or step.isdigit()))
        if plain and repeated / len(plain) > self.max_repeated:
            return _verdict(False, f"{repeated} of {len(plain)} steps repeat an earlier one")
        text = " ".join(trace.steps).casefold()
        short = len(text) < (128 if text.isascii() else 64)  # Latin words stand apart: fewer tokens than 65
        tokens = [] if short else _TOKENS.findall(text)
        total = len(tokens) - 5
        circles = total >= 60 and len(set(zip(*(tokens[i:] for i in range(6)), strict=False))) < 0.6 * total
        return _verdict(not circles, "the same words again and again" if circles else "no repetition to speak of")

    def domain_relevance(self, trace: Reading) -> Verdict:
        """Steps keep to the question and to finance."""
        asked, taken, plain = trace.asked, trace.steps, trace.is_plain
        numbers: set[str] | None = None
        off: list[str] = []
        on = 0
        for step in taken:
            if asked.touches(step, plain):
                on += 1
                continue
            if numbers is None:
                numbers = asked.figures.union([key(equation.results[0].value) for equation in trace.equations])
            if not numbers.isdisjoint(_figures_of(step, plain)):
                on += 1
            elif _bulk({word for word in words(step) if not is_working(word)}) >= 2.5:
                off.append(step)
        if not on:
            return _verdict(False, "no step has a word or number of the question or of finance")
        if len(off) / len(taken) > self.max_off_topic:
            return _verdict(False, f"{len(off)} of {len(taken)} steps off the topic, such as {off[0][:60]!r}")
        return _verdict(True, f"{on} of {len(taken)} steps on the topic")

    def logical_consistency(self, trace: Reading) -> Verdict:
        """The final answer follows from the last steps and agrees with the gold, and no number comes from nowhere."""
        if trace.item.grades.scaled.value == 0:
            return _verdict(False, "the answer is not the gold")
        strangers = trace.unsourced()
        if len(strangers) > self.max_unsourced:
            return _verdict(False, f"{strangers[0]} comes from nowhere: a step is missing")
        closing = trace.steps[-self.closing_steps :]
        if trace.question.kind == "number":
            return _number_follows(trace, closing)
        return _verdict(*_named_in(trace.answer, closing, trace.question, trace.item.reasoning))


_figures_of = lru_cache(1 << 12)(figures_in)  # of a step: the samples of a question say much the same


def internal_consistency(trace: Reading) -> Verdict:
    """Every equation and comparison of numbers holds when recomputed."""
    wrong = [equation for equation in trace.equations if not equation.holds]
    if wrong:
        return _verdict(False, f"{wrong[0].text[:80]} is wrong: the left side is {wrong[0].left:.6g}")
    false = [text for text, holds, _ in trace.comparisons if not holds]
    if false:
        return _verdict(False, f"{false[0][:80]!r} is wrong")
    count = len(trace.equations) + len(trace.comparisons)
    return _verdict(True, f"{count} equations hold" if count else "no equation to recompute")


def instruction_following(trace: Reading) -> Verdict:
    """The answer has the form, unit and box that were asked for, and the reasoning the question's language."""
    question = trace.question
    if not trace.answer:
        return _verdict(False, "no answer")
    if trace.asked.wants_box and last_box(trace.item.answer) is None:
        return _verdict(False, "no box, though one is asked for")
    share = han_share(trace.item.reasoning)
    if share is not None and (share < 0.3) == (question.language == "zh"):
        return _verdict(False, f"the question is in {question.language}, the reasoning is not")
    return _verdict(*_form(trace))


def _form(trace: Reading) -> tuple[bool, str]:
    question, answer = trace.question, trace.answer
    if question.kind == "number":
        numbers, unit = trace.answer_numbers, trace.asked.unit
        if len(numbers) != 1:
            return len(numbers) > 1, f"{len(numbers)} numbers in the answer"
        if unit != 1.0 and numbers[0].bare and (golds := trace.asked.gold_numbers):
            in_unit = same_number(numbers[0].times(unit), golds[0], unit)[0]
            if not in_unit and same_number(numbers[0], golds[0], unit)[0]:
                return False, f"not in {question.meta['unit']}, the unit asked for"
        return True, "a number, as asked"
    if question.kind == "choice":
        named, _ = letters_named(answer, "".join(question.choices) or "ABCDEFGH", question.choices)
        return bool(named), "names an option" if named else "names no option"
    if question.kind == "label" and question.choices:
        labels, _ = labels_named(answer, question.choices)
        return len(labels) > 0, "names a label" if labels else "names no label"
    if question.kind == "yes_no":
        said = polarity(answer)
        return said is not None, "says yes or no" if said else "says neither yes nor no"
    return True, "no form to check"


def _bulk(terms: set[str]) -> float:
    """How much a set of words says; Chinese pairs overlap, so each counts half a word."""
    return sum(1.0 if term.isascii() else 0.5 for term in terms)


def _number_follows(trace: Reading, closing: Sequence[str]) -> Verdict:
    """The number is a result of the last line that calculates, or was found before and is said in the last steps."""
    numbers, found = trace.answer_numbers, trace.equations
    if not numbers:
        return _verdict(False, "no number in the answer")
    end = "\n".join(closing)
    concluded = _CONCLUDES.findall(end if trace.is_plain else clean(end))
    told = _told(concluded[-1]) if concluded else ()
    if told and not any(_close(number, other.value) for number in numbers for other in told):
        return _verdict(False, "the last steps come to another answer")
    results = [equation for equation in found if equation.line == found[-1].line] if found else []
    if any(_close(number, equation.results[0].value) for number in numbers for equation in results):
        return _verdict(True, "the answer is the last result")
    said = (number.value for step in closing for number in _told(step if trace.is_plain else clean(step), divides=True))
    if any(_close(number, value) for value in said for number in numbers) and any(
        _close(number, value) for value in _before(trace, found) for number in numbers
    ):
        return _verdict(True, "the answer is said in the last steps")
    return _verdict(False, "the answer is not derived" if not found else "the answer is not the last result")


@lru_cache(1 << 12)  # the samples of a question conclude much the same
def _told(cleaned: str, divides: bool = False) -> Sequence[Number]:
    """The numbers of a text; a stroke that `divides` makes no fraction."""
    return read(cleaned, cleaned=True) if divides else read_numbers(cleaned, cleaned=True)


def _before(trace: Reading, found: Sequence[Equation]) -> Iterator[float]:
    """What was known before the last steps: results, what they were before rounding, and the question's numbers."""
    for equation in found:
        yield from (equation.results[0].value, equation.left)
    yield from (number.value for number in trace.asked.numbers)


def _close(answer: Number, value: float) -> bool:
    """The same up to the answer's rounding and a unit left out."""
    shown = Number(value, abs(value) * 1e-9, 1.0, 0, 0)
    rounded = answer.half_unit if answer.half_unit < abs(answer.value) else 0.0
    return abs(answer.value - value) <= rounded + 1e-9 * abs(value) or same_number(answer, shown, 1.0, 1e-6)[1]


def _named_in(answer: str, closing: Sequence[str], question: Question, reasoning: str) -> tuple[bool, str]:
    """Whether the last steps come to the answer that is given."""
    end = "\n".join(closing)
    if question.kind == "choice":
        letters = "".join(question.choices) or "ABCDEFGH"
        named, _ = letters_named(answer, letters, question.choices)
        said = set(re.findall(rf"(?<![A-Za-z])[{re.escape(letters)}](?![A-Za-z])", clean(end)))
        by_text = {
            k
            for k in named
            if normalise(question.choices.get(k, "")) and normalise(question.choices[k]) in normalise(end)
        }
        held = bool(named) and (named <= said | by_text)
    elif question.kind == "label" and question.choices:
        labels, _ = labels_named(answer, question.choices)
        held = bool(labels) and labels <= labels_named(end, question.choices)[0]
    elif question.kind == "yes_no":
        said_now = polarity(answer)
        held = said_now is not None and _SAYS[said_now].search(clean(end)) is not None
    else:
        terms = words(answer)
        held = not terms or len(terms & words(reasoning)) >= 0.5 * len(terms)
    return held, "the last steps come to the answer" if held else "the last steps do not come to the answer"


def _verdict(held: bool, why: str) -> Verdict:
    return Verdict(float(held), None, why)
