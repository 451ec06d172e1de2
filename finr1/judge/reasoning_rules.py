"""Fin-R1's seven criteria of good reasoning (arXiv 2503.16252 v5, App. B.3), each as a check that needs no model.

Fin-R1 asks Qwen2.5-72B; these rules are ours. They see what can be recomputed or counted, not whether an argument
convinces: a trace that fails one has a fault that can be pointed at (`Verdict.why` names it), a trace that holds all
seven has none of these faults.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence, Set

from finr1.answer import final_answer, grade
from finr1.answer.compare import candidates, labels_named, letters_named, normalise, polarity, same_number
from finr1.answer.extract import last_box
from finr1.answer.number import Number, clean, read_numbers, unit_factor
from finr1.errors import ConfigError
from finr1.judge._equations import Equation, comparisons, equations
from finr1.judge._terms import han_share, is_financial, is_working, steps, words
from finr1.judge.base import CRITERIA, JudgeItem
from finr1.types import Question, Verdict

# Figures a calculation may use without having read them: anywhere, and only as what it divides or multiplies by.
_CONSTANTS = (0, 1, 2, 10, 100, 360, 365, 366, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e12)
_COUNTS = (*range(3, 13), 0.5, 0.25, 24, 30, 52, 250, 252, 364)
_UNITS = (1e3, 1e-3, 1e4, 1e-4, 1e6, 1e-6, 1e8, 1e-8, 1e9, 1e-9)  # between which a report's figures may be restated
_CLAUSE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？；])|\n")
_SAYS = {
    "yes": re.compile(r"\b(?:yes|true|correct)\b|是|对|正确", re.IGNORECASE),
    "no": re.compile(r"\b(?:no|not|false|incorrect)\b|否|不|错", re.IGNORECASE),
}
_PERCENT_COLUMN = re.compile(r"[(（|,]\s?(?:in )?(?:%|percent)")
_CONCLUDES = re.compile(r"(?:answer\s?(?:is|:)|答案\s?(?:是|为|:))([^\n]*)", re.IGNORECASE)
_CALCULATES = re.compile(r"[=≈><≥≤]|above|below|than|exceed|高于|低于|大于|小于|超过|等于")
_BOX_ASKED = re.compile(r"\\boxed|\bbox(?:ed)?\b")


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
        found = [self._one(item) for item in items]
        for verdicts in found if self.only_faults else ():
            for name in self.only_faults:
                if verdicts[name].value == 1:
                    verdicts[name] = verdicts[name]._replace(value=None)
        return found

    def _one(self, item: JudgeItem) -> dict[str, Verdict]:
        found, taken = equations(item.reasoning), steps(item.reasoning)
        return {
            "internal_consistency": internal_consistency(item, found),
            "term_overlap": self.term_overlap(item),
            "step_count": self.step_count(taken),
            "logical_consistency": self.logical_consistency(item, found, taken),
            "diversity": self.diversity(taken),
            "domain_relevance": self.domain_relevance(item, found, taken),
            "instruction_following": instruction_following(item),
        }

    def term_overlap(self, item: JudgeItem) -> Verdict:
        """The reasoning uses the words of what is asked, and of a gold in words, or the figures of the question."""
        asked = words(asked_part(item.question))
        terms = {word for word in asked if is_financial(word)} or {word for word in asked if not is_working(word)}
        if item.question.kind in ("label", "text"):
            terms |= words(item.question.gold or "")
        used = terms & words(item.reasoning)
        numbers = figures(item.question.text) & figures(item.reasoning)
        held = len(used) >= self.min_overlap * len(terms) or len(numbers) >= self.enough_figures
        return _verdict(held, f"{len(used)} of {len(terms)} terms and {len(numbers)} figures of the question used")

    def step_count(self, taken: Sequence[str]) -> Verdict:
        """At least three different steps."""
        count = len({normalise(step) for step in taken})
        return _verdict(count >= self.min_steps, f"{count} steps")

    def diversity(self, taken: Sequence[str]) -> Verdict:
        """Steps are not repeated, and the text does not go round in circles."""
        plain = [normalise(step) for step in taken]
        repeated = [
            step for step, n in Counter(plain).items() if n > 1 for _ in range(n - 1) if len(step) > 3 or step.isdigit()
        ]
        if plain and len(repeated) / len(plain) > self.max_repeated:
            return _verdict(False, f"{len(repeated)} of {len(plain)} steps repeat an earlier one")
        tokens = re.findall(r"[a-z0-9.%]+|[\u3400-\u9fff]", " ".join(taken).casefold())
        grams = Counter(zip(*(tokens[i:] for i in range(6)), strict=False))
        total = sum(grams.values())
        circles = total >= 60 and len(grams) < 0.6 * total
        return _verdict(not circles, "the same words again and again" if circles else "no repetition to speak of")

    def domain_relevance(self, item: JudgeItem, found: Sequence[Equation], taken: Sequence[str]) -> Verdict:
        """Steps keep to the question and to finance."""
        topic, numbers = words(item.question.text), figures(item.question.text)
        for option in item.question.choices.values():
            topic |= words(option)
        numbers |= {_key(equation.results[0].value) for equation in found}
        off: list[str] = []
        on = 0
        for step in taken:
            terms = {word for word in words(step) if not is_working(word)}
            if any(word in topic or is_financial(word) for word in terms) or figures(step) & numbers:
                on += 1
            elif _bulk(terms) >= 2.5:
                off.append(step)
        if not on:
            return _verdict(False, "no step has a word or number of the question or of finance")
        if len(off) / len(taken) > self.max_off_topic:
            return _verdict(False, f"{len(off)} of {len(taken)} steps off the topic, such as {off[0][:60]!r}")
        return _verdict(True, f"{on} of {len(taken)} steps on the topic")

    def logical_consistency(self, item: JudgeItem, found: Sequence[Equation], taken: Sequence[str]) -> Verdict:
        """The final answer follows from the last steps and agrees with the gold, and no number comes from nowhere."""
        if grade(item.answer, item.question).scaled.value == 0:
            return _verdict(False, "the answer is not the gold")
        strangers = unsourced(item, found)
        if len(strangers) > self.max_unsourced:
            return _verdict(False, f"{strangers[0]} comes from nowhere: a step is missing")
        closing = taken[-self.closing_steps :]
        question, answer = item.question, final_answer(item.answer)
        if question.kind == "number":
            _, numbers = candidates(answer)
            return _number_follows(numbers, found, closing, item)
        return _verdict(*_named_in(answer, closing, question, item.reasoning))


def internal_consistency(item: JudgeItem, found: Sequence[Equation]) -> Verdict:
    """Every equation and comparison of numbers holds when recomputed."""
    wrong = [equation for equation in found if not equation.holds]
    if wrong:
        return _verdict(False, f"{wrong[0].text[:80]} is wrong: the left side is {wrong[0].left:.6g}")
    compared = comparisons(item.reasoning)
    false = [text for text, holds, _ in compared if not holds]
    if false:
        return _verdict(False, f"{false[0][:80]!r} is wrong")
    return _verdict(
        True, f"{len(found) + len(compared)} equations hold" if found or compared else "no equation to recompute"
    )


def instruction_following(item: JudgeItem) -> Verdict:
    """The answer has the form, unit and box that were asked for, and the reasoning the question's language."""
    question, answer = item.question, final_answer(item.answer)
    if not answer:
        return _verdict(False, "no answer")
    if _BOX_ASKED.search(question.text) and last_box(item.answer) is None:
        return _verdict(False, "no box, though one is asked for")
    share = han_share(item.reasoning)
    if share is not None and (share < 0.3) == (question.language == "zh"):
        return _verdict(False, f"the question is in {question.language}, the reasoning is not")
    return _verdict(*_form(answer, question))


def _form(answer: str, question: Question) -> tuple[bool, str]:
    if question.kind == "number":
        _, numbers = candidates(answer)
        unit = unit_factor(str(question.meta.get("unit", "")))
        golds = read_numbers(question.gold or "")
        if len(numbers) != 1:
            return len(numbers) > 1, f"{len(numbers)} numbers in the answer"
        if unit != 1.0 and numbers[0].bare and golds:
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


def asked_part(question: Question) -> str:
    """The sentence that asks: the last with a question mark, else the longer of the last two."""
    text = question.prompt[-1]["content"] if question.prompt else ""
    clauses = [clause.strip() for clause in _CLAUSE.split(text) if clause.strip()]
    asking = [clause for clause in clauses if clause.endswith(("?", "？"))]
    return asking[-1] if asking else max(clauses[-2:], key=len, default="")


def _bulk(terms: set[str]) -> float:
    """How much a set of words says; Chinese pairs overlap, so each counts half a word."""
    return sum(1.0 if term.isascii() else 0.5 for term in terms)


def figures(text: str) -> set[str]:
    """The numbers of a text by their shown figure."""
    return {_key(number.figure) for number in _read(text)}


def _read(text: str) -> list[Number]:
    """The numbers of a text in which a stroke divides: `90 / 3` is two of them, not a fraction."""
    return read_numbers(clean(text).replace("/", " ; "), cleaned=True)


def unsourced(item: JudgeItem, found: Sequence[Equation]) -> list[str]:
    """Inputs of equations that are neither in the question, nor a constant, nor an earlier result.

    A number of the question may be restated in another unit, any number rounded or as 1 ± rate, and taken apart by
    places where all its parts are used (`x * 20`, `x * 1` for 21). A rate that the trace states in a step without
    calculation (`增值税税率为13%`) counts as given: knowledge the question supposes.
    """
    given = _read(item.question.text + "\n" + "\n".join(item.question.choices.values()))
    factors = (1.0, *_UNITS, 0.01) if _PERCENT_COLUMN.search(item.question.text) else (1.0, *_UNITS)
    inputs = {_key(token.value) for equation in found for token in equation.inputs}
    shown = {_key(number.figure) for number in given}
    known = {_key(value) for value in _CONSTANTS}
    for value in {number.value for number in given} | {number.figure for number in given}:
        known |= _known(value, inputs) | {_key(value * factor) for factor in factors}
    prose = "\n".join(step for step in steps(item.reasoning) if not _CALCULATES.search(step))
    known |= {_key(number.value) for number in _read(prose) if number.factor == 0.01}
    counts = {_key(value) for value in _COUNTS}
    strangers = []
    for equation in found:
        for token in equation.inputs:
            key = _key(token.value)
            if key in known or _key(token.value / token.factor) in shown or (token.kind == "by" and key in counts):
                continue
            strangers.append(token.text)
        for value in (equation.left, *(token.value for token in equation.results)):
            known |= _known(value, inputs)
    compared = (value for _, _, values in comparisons(item.reasoning) for value in values)
    return strangers + [f"{value:g}" for value in compared if _key(value) not in known | shown | counts]


def _known(value: float, inputs: Set[str]) -> set[str]:
    """Keys under which a known number may be used again."""
    if not math.isfinite(value) or value == 0:
        return {_key(value)}
    forms = [value, *(round(value, digits) for digits in range(5))]
    forms += [form for rate in (value, value / 100) if abs(rate) < 1 for form in (1 + rate, 1 - rate)]
    top = math.floor(math.log10(abs(value)))
    digits = f"{abs(value):.5e}"[:7].replace(".", "")
    places = {_key(int(digit) * 10.0 ** (top - i)) for i, digit in enumerate(digits) if digit != "0"}
    return {_key(form) for form in forms} | (places if len(places) > 1 and places <= inputs else set())


def _key(value: float) -> str:
    return f"{abs(value):.6g}"


def _number_follows(
    numbers: Sequence[Number], found: Sequence[Equation], closing: Sequence[str], item: JudgeItem
) -> Verdict:
    """The number is a result of the last line that calculates, or was found before and is said in the last steps."""
    if not numbers:
        return _verdict(False, "no number in the answer")
    concluded = _CONCLUDES.findall(clean("\n".join(closing)))
    told = read_numbers(concluded[-1], cleaned=True) if concluded else []
    if told and not any(_close(number, other.value) for number in numbers for other in told):
        return _verdict(False, "the last steps come to another answer")
    results = [equation for equation in found if equation.line == found[-1].line] if found else []
    if any(_close(number, equation.results[0].value) for number in numbers for equation in results):
        return _verdict(True, "the answer is the last result")
    said = [number.value for step in closing for number in _read(step)]
    earlier = [value for equation in found for value in (equation.results[0].value, equation.left)]
    given = [number.value for number in _read(item.question.text)]
    if any(_close(number, value) for number in numbers for value in said) and any(
        _close(number, value) for number in numbers for value in earlier + given
    ):
        return _verdict(True, "the answer is said in the last steps")
    return _verdict(False, "the answer is not derived" if not found else "the answer is not the last result")


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
        says = re.compile(
            r"\b(?:yes|true|correct)\b|是|对|正确" if said_now == "yes" else r"\b(?:no|not|false|incorrect)\b|否|不|错",
            re.I,
        )
        held = said_now is not None and says.search(clean(end)) is not None
    else:
        terms = words(answer)
        held = not terms or len(terms & words(reasoning)) >= 0.5 * len(terms)
    return held, "the last steps come to the answer" if held else "the last steps do not come to the answer"


def _verdict(held: bool, why: str) -> Verdict:
    return Verdict(float(held), None, why)
