r"""Grading an answer against the gold of its question, by the kind of the question.

Numbers, where `a` is the answer's value, `g` the gold's and `h` half of the last digit the gold shows:

- the same number: |a - g| <= h (but for floating point), so the sign must match. `Question.meta["tolerance"]`, if a
  source sets it, also allows that relative difference: 6.76% is no answer to a gold of 0.06757 without it, and one
  with FinQA's 1%. FinQA's own evaluator compares executed programs to five decimals and reads no answers; Fin-R1's
  judge is asked whether the values are the same or deviate clearly;
- strict: the same by value (`25%` = `0.25` = `25 percent`), or, where the question names the unit in
  `Question.meta["unit"]` (`%`, `million`, `亿元`), the bare figure in that unit (`25` for `25%`);
- scaled: strict, or the same after a factor of 100 either way, or, if the answer, the gold or the question shows a
  unit, of 1e3, 1e4, 1e6, 1e8, 1e9 or 1e12 either way. A factor other than the gold's own unit must hit within 0.5%,
  for a gold of one digit would else take anything near;
- a range (`5%-7%`) equals a range with the same ends; one number inside it is undecided;
- a hedge (`24% or 25%`, `5%-7%` where the gold is 5%) is wrong, as to SimpleQA's grader, whose "incorrect" takes in
  "either ... or ..." (openai/simple-evals, simpleqa_eval.py), and to every metric that compares one number;
- None where the answer shows several different numbers and one of them is right, where it is a bound (`more than 5%`)
  or an expression not computed, or where the sign depends on a word of decrease: "a decrease of 5%" for -5%, and for 5%
  unless the question asks for a decrease. The right figure in another currency is wrong.

Choice, label and yes/no answers are read as what they name; naming several is wrong for a single gold if it lists them
or leaves open which (`B or C`), undecided if it argues about them. Figures alone, or an option letter where there are
no options, are wrong for a yes/no or a label; words that could mean yes or no are undecided. Free text that differs
from the gold, and code, need a judge: None. Where gold and answer are both one date, one number or one list, they are
compared as such.

Of an answer of more than `LONGEST_ANSWER` characters the end is read, where it concludes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from finr1.answer.choices import (
    LETTERS,
    NEGATION,
    labels_named,
    letters_named,
    letters_standing,
    normalise,
    polarity,
    yes_or_no,
)
from finr1.answer.clean import clean
from finr1.answer.date import read_date, same_date
from finr1.answer.grade_number import candidates, grade_number, is_number, same_number
from finr1.answer.number import lone_number, only_figures, read_numbers
from finr1.answer.tags import last_box
from finr1.core.types import Question, Verdict

__all__ = [
    "Grade",
    "candidates",
    "grade",
    "labels_named",
    "letters_named",
    "normalise",
    "polarity",
    "same_number",
]

LONGEST_ANSWER = 5_000


class Grade(NamedTuple):
    """Two verdicts on one answer; they differ for numbers only."""

    strict: Verdict
    scaled: Verdict


def grade(answer: str | None, question: Question) -> Grade:
    """Grade the text of an answer block (the last `\\boxed{}` in it counts, if there is one).

    No answer (None or empty) is wrong; an answer that cannot be read, or a gold that cannot, is undecided.
    """
    if question.gold is None or not question.gold.strip():
        return _both(None, None, "the question has no gold")
    if answer is None or not answer.strip():
        return _both(0.0, None, "no answer")
    box = last_box(answer)
    text = answer.strip() if box is None else box
    if not text:
        return _both(0.0, None, "empty box")
    text = text[-LONGEST_ANSWER:]
    if question.kind == "number":
        if is_number(question.gold):
            return Grade(*grade_number(text, question))
        return _both(*(_dates(text, question.gold) or (None, text, f"the gold {question.gold!r} is not one number")))
    if question.kind == "code":
        return _both(None, text, "code is not compared by rule")
    reader = {"choice": _choice, "yes_no": _yes_no, "label": _label, "text": _text}[question.kind]
    return _both(*reader(text, box is not None, question))


def _both(value: float | None, answer: str | None, why: str) -> Grade:
    verdict = Verdict(value, answer, why)
    return Grade(verdict, verdict)


_Read = tuple[float | None, str | None, str]


def _dates(text: str, gold: str) -> _Read | None:
    """The verdict where the gold is a date that is no number (`2019-12-31`, `3Q19`); None for any other gold."""
    if len(gold) < 4 or gold.isdigit() or not _DATE_LIKE.search(gold):
        return None
    wanted = read_date(clean(gold))
    if not wanted:
        return None
    read = read_date(clean(text))
    if not read:
        return None, text, "no date alone"
    same = same_date(read, wanted)
    if same is None:
        return None, text, "a date that says less than the other, or has two meanings"
    return float(same), text, "the same date" if same else "another date"


_DATE_LIKE = re.compile(r"\d[-/.年月qQ]|[a-zA-Z]\D{0,12}\d|年")


def _judge_set(named: set[str], gold: set[str], listed: bool) -> _Read:
    read = ",".join(sorted(named))
    if named == gold:
        return 1.0, read, "names the gold"
    if len(named) > len(gold) and not listed and gold & named:
        return None, read, "names several"
    return 0.0, read, f"names {read}, the gold is {','.join(sorted(gold))}"


def _choice(text: str, boxed: bool, question: Question) -> _Read:
    letters = "".join(question.choices) if question.choices else LETTERS
    gold, _ = letters_named(question.gold or "", letters, question.choices)
    if not gold:
        return None, text, f"the gold {question.gold!r} names no option"
    if whole := _written_out(text, question.choices):
        return _judge_set({whole}, gold, True)
    named, listed = letters_named(text, letters, question.choices)
    if named:
        hedged = len(named) > len(gold) and _HEDGED.fullmatch(clean(text)) is not None
        return _judge_set(named, gold, listed or hedged or (boxed and named <= letters_standing(text)))
    if NEGATION.search(text):
        return None, text, "says only what it is not"
    plain = normalise(text)
    options = [normalise(option) for option in question.choices.values()]
    overlap = any((len(option) > 1 and option in plain) or (len(plain) > 1 and plain in option) for option in options)
    return (None, text, "no option letter") if overlap or not question.choices else (0.0, text, "names no option")


_LETTER_AND_TEXT = re.compile(r"\W*([A-Za-z])\s?[.,:;、)\]]\s?(.+)", re.DOTALL)


def _written_out(text: str, choices: Mapping[str, str]) -> str | None:
    """The letter of an answer that is one option as the question shows it: `C. A、C类份额` names no A."""
    found = _LETTER_AND_TEXT.fullmatch(clean(text).strip())
    letter = found[1].upper() if found else ""
    same = found and letter in choices and normalise(found[2]) == normalise(choices[letter]) != ""
    return letter if same else None


_HEDGED = re.compile(  # which of several letters is left open
    r"\W*+(?:(?:either|the|option|answer|choice|is|maybe|perhaps|probably|选项?|答案|应该?|可能|是|为)\W*)*+[A-H]\W{0,3}"
    r"(?:(?:,|、)\s?[A-H]\W{0,3})*(?:\bor\b|或者?|还是)\W*(?:option\s|choice\s|选项?)?[A-H]\W*",
    re.IGNORECASE,
)


def _label(text: str, boxed: bool, question: Question) -> _Read:
    if not question.choices:
        if normalise(text) == normalise(question.gold or "") != "":
            return 1.0, text, "the same"
        return (0.0 if len(text.split()) <= 3 or only_figures(text) else None), text, "not the same words"
    gold, _ = labels_named(question.gold or "", question.choices)
    if not gold:
        return None, text, f"the gold {question.gold!r} names no label"
    named, rest = labels_named(text, question.choices)
    if not named:
        return 0.0, text, "names no label"
    if NEGATION.search(rest):
        return None, ",".join(sorted(named)), "the answer negates"
    return _judge_set(named, gold, boxed or normalise(rest) in ("", "or", "eitheror", "或", "或者", "还是"))


def _yes_no(text: str, boxed: bool, question: Question) -> _Read:
    gold = yes_or_no(question.gold or "")
    if gold is None:
        return None, text, f"the gold {question.gold!r} is neither yes nor no"
    named = yes_or_no(text)
    if named is None and _YES_OR_NO.fullmatch(clean(text)):
        return 0.0, text, "a hedge: both"
    if named is None and only_figures(text):
        return 0.0, text, "figures, neither yes nor no"
    if named is None and _ONLY_LETTERS.fullmatch(clean(text)) and not _shows_options(question):
        return 0.0, text, "an option letter, and there are no options"
    if named is None:
        return None, text, "neither yes nor no, or both"
    return (1.0, named, "names the gold") if named == gold else (0.0, named, f"the gold is {gold}")


_YES_OR_NO = re.compile(
    r"\W*+(?:either\s)?(?:(?:yes|true|是)\W*(?:or|/|或者?)\W*(?:no|false|否|不是)"
    r"|(?:no|false|否)\W*(?:or|/|或者?)\W*(?:yes|true|是))\W*",
    re.IGNORECASE,
)
_ONLY_LETTERS = re.compile(r"\W*+(?:(?:option|choice|选项?)\s?)?\(?[A-H](?:[\s,、()]++[A-H])*+\W*+")
_OPTION_A = re.compile(r"(?<![A-Za-z])A\s?[).:、：．]")


def _shows_options(question: Question) -> bool:
    """Whether a letter may stand for a text: the question has choices, or its prompt shows some."""
    return bool(question.choices) or any(_OPTION_A.search(message["content"]) for message in question.prompt)


_LIST = re.compile(r"[;；、\n]|,\s?(?!\d)|，")


def _text(text: str, boxed: bool, question: Question) -> _Read:
    gold = question.gold or ""
    if normalise(text) == normalise(gold) != "":
        return 1.0, text, "the same words"
    date = _dates(text, gold)
    if date is not None:
        return date
    wanted, given = ({normalise(part) for part in _LIST.split(whole)} - {""} for whole in (gold, text))
    if len(wanted) > 1 and wanted == given:
        return 1.0, text, "the same list"
    return _numbers_in_text(text, gold) or (None, text, "other words: a judge is needed")


def _numbers_in_text(text: str, gold: str) -> _Read | None:
    """The verdict where gold and answer are each a number and nothing else."""
    if len(text) > 60 or len(gold) > 60:
        return None
    read = []
    for whole in (clean(text).strip(" .。"), clean(gold).strip(" .。")):
        numbers = read_numbers(whole, cleaned=True, most=2)
        if len(numbers) != 1 or numbers[0].end - numbers[0].start < len(whole):
            lone = lone_number(whole)
            if lone is None:
                return None
            numbers = [lone]
        read.append(numbers[0])
    strict, scaled = same_number(read[0], read[1])
    if strict != scaled:
        return None
    return float(strict), text, f"{'' if strict else 'not '}the same number"
