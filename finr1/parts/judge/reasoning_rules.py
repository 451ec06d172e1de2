"""Fin-R1's seven criteria of good reasoning (arXiv 2503.16252 v5, App. B.3), each as a check that needs no model.

Fin-R1 asks Qwen2.5-72B; these rules are ours. They find faults that can be recomputed or counted, and `Verdict.why`
names the fault; they do not check whether an argument convinces. In the paper's order, with a fault that each finds:

| Fin-R1's criterion | here | a fault |
|---|---|---|
| internal consistency | `internal_consistency` | `120 - 100 = 30`; `0.3 is below 0.2` |
| term overlap | `term_overlap` | asked for the operating margin, the reasoning only mentions taxes |
| number of reasoning steps | `step_count` | one line with the answer |
| logical consistency | `logical_consistency` | the last result is 7.5%, the answer 6.76%; an input without a source |
| content diversity | `diversity` | the same line three times |
| relevance to the task domain | `domain_relevance` | "Penguins swim faster than most people can run." |
| consistency with the task instruction | `instruction_following` | no `\\boxed{}` though one is requested |
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from finr1.answer.boxes import read_boxes
from finr1.answer.choices import letters_named, normalise
from finr1.answer.clean import clean
from finr1.answer.labels import labels_named
from finr1.answer.number import read_numbers
from finr1.answer.precision import same_number
from finr1.answer.units import Number
from finr1.answer.yes_no import polarity
from finr1.core.errors import ConfigError
from finr1.core.types import CRITERIA, Question, Verdict
from finr1.parts.judge.base import JudgeItem
from finr1.parts.judge.rules.figures import figures_in, number_key, read
from finr1.parts.judge.rules.trace import QuestionFacts, TraceFacts
from finr1.parts.judge.rules.words import han_share, is_financial, is_working, words

_SAYS = {
    "yes": re.compile(r"\b(?:yes|true|correct)\b|是|对|正确", re.IGNORECASE),
    "no": re.compile(r"\b(?:no|not|false|incorrect)\b|否|不|错", re.IGNORECASE),
}
_TOKENS = re.compile(r"[a-z0-9.%]+|[\u3400-\u9fff]")
_CONCLUDES = re.compile(r"(?:answer\s?(?:is|:)|答案\s?(?:是|为|:))([^\n]*)", re.IGNORECASE)
_LOOP_TOKENS, _LOOP_GRAM, _LOOP_DISTINCT = 65, 6, 0.6  # a text is a loop if fewer than 60% of its 6-grams are distinct


class ReasoningRules:
    """The seven criteria by rule. The thresholds are ours, except the three steps: Fin-R1 gives no others.

    - `min_steps`: distinct steps (lines, and their sentences) that a trace needs.
    - `min_overlap`: share of the asking sentence's financial terms (else of its content words) that the reasoning must
      use; using `enough_figures` numbers of the question is enough too.
    - `max_repeated`: share of steps that may repeat an earlier step word for word.
    - `max_off_topic`: share of steps that may have no word or number of the question and no financial word.
    - `closing_steps`: number of last steps in which the final answer must appear.
    - `max_unsourced`: numbers without a source that calculations may use; raise it for questions that need outside
      figures, such as tax brackets.
    - `only_faults`: criteria that the rules may fail but not pass: a pass becomes undecided, for the next judge.
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
                raise ConfigError(key, name, "unknown criterion", f"use some of {', '.join(CRITERIA)}")
        self.only_faults = only_faults
        self.min_steps, self.min_overlap, self.enough_figures = min_steps, min_overlap, enough_figures
        self.max_repeated, self.max_off_topic = max_repeated, max_off_topic
        self.closing_steps, self.max_unsourced = closing_steps, max_unsourced

    def judge(self, items: Sequence[JudgeItem]) -> list[dict[str, Verdict]]:
        facts = {id(item.question): QuestionFacts(item.question) for item in items}
        return [self._verdicts(TraceFacts(item, facts[id(item.question)])) for item in items]

    def _verdicts(self, trace: TraceFacts) -> dict[str, Verdict]:
        verdicts = {
            "internal_consistency": internal_consistency(trace),
            "term_overlap": self.term_overlap(trace),
            "step_count": self.step_count(trace),
            "logical_consistency": self.logical_consistency(trace),
            "diversity": self.diversity(trace),
            "domain_relevance": self.domain_relevance(trace),
            "instruction_following": instruction_following(trace),
        }
        open_ = {name: verdicts[name]._replace(value=None) for name in self.only_faults if verdicts[name].value == 1}
        return {**verdicts, **open_}

    def term_overlap(self, trace: TraceFacts) -> Verdict:
        """The reasoning uses the terms of the asking sentence (and of a gold in words), or the question's figures."""
        terms = trace.question_facts.terms
        used, figures = terms & trace.words, trace.question_facts.figures & trace.figures
        held = len(used) >= self.min_overlap * len(terms) or len(figures) >= self.enough_figures
        return _verdict(held, f"uses {len(used)} of {len(terms)} terms and {len(figures)} figures of the question")

    def step_count(self, trace: TraceFacts) -> Verdict:
        """There are at least `min_steps` distinct steps."""
        count = len(set(trace.normalised_steps))
        return _verdict(count >= self.min_steps, f"{count} distinct steps")

    def diversity(self, trace: TraceFacts) -> Verdict:
        """Few steps repeat an earlier one, and the text is not a loop of the same words."""
        counts = Counter(trace.normalised_steps)
        repeated = sum(n - 1 for step, n in counts.items() if n > 1 and (len(step) > 3 or step.isdigit()))
        if repeated > self.max_repeated * len(trace.steps):
            return _verdict(False, f"{repeated} of {len(trace.steps)} steps repeat an earlier one")
        tokens = _TOKENS.findall(" ".join(trace.steps).casefold())
        grams = list(zip(*(tokens[i:] for i in range(_LOOP_GRAM)), strict=False))
        if len(tokens) >= _LOOP_TOKENS and len(set(grams)) < _LOOP_DISTINCT * len(grams):
            return _verdict(False, "the same words over and over")
        return _verdict(True, "little repetition")

    def domain_relevance(self, trace: TraceFacts) -> Verdict:
        """Nearly all steps have a word or number of the question, a financial word, or an earlier result."""
        topic = trace.question_facts.topic
        numbers = trace.question_facts.figures | {number_key(e.results[0].value) for e in trace.equations}
        n_on_topic = 0
        off_topic: list[str] = []
        for step in trace.steps:
            content = {word for word in words(step) if not is_working(word)}
            if content & topic or any(map(is_financial, content)) or figures_in(step) & numbers:
                n_on_topic += 1
            elif _n_words(content) >= 2.5:
                off_topic.append(step)
        if not n_on_topic:
            return _verdict(False, "no step has a word or number of the question or a financial word")
        if len(off_topic) / len(trace.steps) > self.max_off_topic:
            return _verdict(False, f"{len(off_topic)} of {len(trace.steps)} steps off topic: {off_topic[0][:60]!r}")
        return _verdict(True, f"{n_on_topic} of {len(trace.steps)} steps on topic")

    def logical_consistency(self, trace: TraceFacts) -> Verdict:
        """The final answer follows from the last steps and matches the gold, and every number has a source."""
        if trace.item.grades.scaled.value == 0:
            return _verdict(False, "the answer does not match the gold")
        unsourced = trace.unsourced_numbers()
        if len(unsourced) > self.max_unsourced:
            return _verdict(False, f"{unsourced[0]} has no source: a step is missing")
        closing = trace.steps[-self.closing_steps :]
        if trace.question.kind == "number":
            return _number_follows(trace, closing)
        held = _closing_states_answer(trace.answer, closing, trace.question, trace.item.reasoning)
        return _verdict(held, f"the last steps {'state' if held else 'do not state'} the answer")


def internal_consistency(trace: TraceFacts) -> Verdict:
    """Every equation and every comparison of numbers holds when recomputed."""
    for equation in trace.equations:
        if not equation.holds:
            return _verdict(False, f"{equation.text[:80]} is wrong: the left side is {equation.left:.6g}")
    for comparison in trace.comparisons:
        if not comparison.holds:
            return _verdict(False, f"{comparison.text[:80]!r} is wrong")
    count = len(trace.equations) + len(trace.comparisons)
    return _verdict(True, f"{count} equations and comparisons hold" if count else "no equation to recompute")


def instruction_following(trace: TraceFacts) -> Verdict:
    """The answer has the type, unit and box asked for, and the reasoning is in the question's language."""
    question = trace.question
    if not trace.answer:
        return _verdict(False, "no answer")
    if trace.question_facts.wants_box and read_boxes(trace.item.answer) is None:
        return _verdict(False, "no \\boxed{} although the question asks for one")
    share = han_share(trace.item.reasoning)
    if share is not None and (share < 0.3) == (question.language == "zh"):
        return _verdict(False, f"the question is in {question.language}, the reasoning is not")
    return _verdict(*_answer_type(trace))


def _answer_type(trace: TraceFacts) -> tuple[bool, str]:
    """Whether the answer has the type and unit that the question asks for."""
    question, answer = trace.question, trace.answer
    if question.kind == "number":
        numbers, unit = trace.answer_numbers, trace.question_facts.unit_factor
        if len(numbers) != 1:
            return len(numbers) > 1, f"{len(numbers)} numbers in the answer"
        if unit != 1.0 and numbers[0].bare and (golds := trace.question_facts.gold_numbers):
            in_unit = same_number(numbers[0].times(unit), golds[0], unit)[0]
            if not in_unit and same_number(numbers[0], golds[0], unit)[0]:
                return False, f"not in {question.meta['unit']}, the unit asked for"
        return True, "a number"
    if question.kind == "choice":
        letters, _ = letters_named(answer, "".join(question.choices) or "ABCDEFGH", question.choices)
        return bool(letters), "names an option" if letters else "names no option"
    if question.kind == "label" and question.choices:
        labels, _ = labels_named(answer, question.choices)
        return bool(labels), "names a label" if labels else "names no label"
    if question.kind == "yes_no":
        said = polarity(answer)
        return said is not None, "yes or no" if said else "neither yes nor no"
    return True, "free text: no type to check"


def _n_words(content: set[str]) -> float:
    """Number of words; Chinese pairs overlap, so each counts half."""
    return sum(1.0 if word.isascii() else 0.5 for word in content)


def _number_follows(trace: TraceFacts, closing: Sequence[str]) -> Verdict:
    """The answer is a result of the last line that calculates, or a known number stated in the last steps."""
    answers = trace.answer_numbers
    if not answers:
        return _verdict(False, "no number in the answer")

    def matches(values: Iterator[float]) -> bool:
        known = list(values)
        return any(_close(answer, value) for answer in answers for value in known)

    conclusions = _CONCLUDES.findall(clean("\n".join(closing)))
    concluded = read_numbers(conclusions[-1], cleaned=True) if conclusions else []
    if concluded and not matches(number.value for number in concluded):
        return _verdict(False, "the last steps state another answer")
    last_line = trace.equations[-1].line if trace.equations else -1
    if matches(equation.results[0].value for equation in trace.equations if equation.line == last_line):
        return _verdict(True, "the answer is the last result")
    stated = (number.value for step in closing for number in read(step))
    if matches(stated) and matches(_known_values(trace)):
        return _verdict(True, "the last steps state the answer")
    return _verdict(False, "the answer is not the last result" if trace.equations else "the answer is not derived")


def _known_values(trace: TraceFacts) -> Iterator[float]:
    """All results, as shown and before rounding, and the question's numbers."""
    for equation in trace.equations:
        yield from (equation.results[0].value, equation.left)
    yield from (number.value for number in trace.question_facts.numbers)


def _close(answer: Number, value: float) -> bool:
    """Whether a value equals the answer, up to the answer's rounding and a missing unit."""
    exact = Number(value, abs(value) * 1e-9, 1.0, 0, 0)
    rounding = answer.half_unit if answer.half_unit < abs(answer.value) else 0.0
    return abs(answer.value - value) <= rounding + 1e-9 * abs(value) or same_number(answer, exact, 1.0, 1e-6)[1]


def _closing_states_answer(answer: str, closing: Sequence[str], question: Question, reasoning: str) -> bool:
    """Whether the last steps state the answer; for free text: whether the reasoning has half of the answer's words."""
    end = "\n".join(closing)
    if question.kind == "choice":
        letters = "".join(question.choices) or "ABCDEFGH"
        named, _ = letters_named(answer, letters, question.choices)
        stated = set(re.findall(rf"(?<![A-Za-z])[{re.escape(letters)}](?![A-Za-z])", clean(end)))
        options = {letter: normalise(question.choices.get(letter, "")) for letter in named}
        stated |= {letter for letter, option in options.items() if option and option in normalise(end)}
        return bool(named) and named <= stated
    if question.kind == "label" and question.choices:
        labels, _ = labels_named(answer, question.choices)
        return bool(labels) and labels <= labels_named(end, question.choices)[0]
    if question.kind == "yes_no":
        said = polarity(answer)
        return said is not None and _SAYS[said].search(clean(end)) is not None
    terms = words(answer)
    return not terms or len(terms & words(reasoning)) >= 0.5 * len(terms)


def _verdict(held: bool, why: str) -> Verdict:
    return Verdict(float(held), None, why)
