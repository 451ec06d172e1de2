r"""Grading an answer against the gold of its question, by the kind of the question.

Numbers, where `a` is the answer's value, `g` the gold's and `h` half of the last digit the gold shows:

- the same number: |a - g| <= h (but for floating point), so the sign must match. `Question.meta["tolerance"]`, if a
  source sets it, also allows that relative difference;
- strict: the same by value (`25%` = `0.25` = `25 percent`), or, where the question names the unit in
  `Question.meta["unit"]` (`%`, `million`, `亿元`), the bare figure in that unit (`25` for `25%`);
- scaled: strict, or the same after a factor of 100 either way, or, if the answer, the gold or the question shows a
  unit, of 1e3, 1e4, 1e6, 1e8, 1e9 or 1e12 either way. A factor other than the gold's own unit must hit within 0.5%,
  for a gold of one digit would else take anything near;
- None where the answer shows several different numbers and one of them is right, or where the right number has the
  wrong sign beside a word of decrease ("a decrease of 5%" for -5%).

Choice, label and yes/no answers are read as what they name; naming several is wrong for a single gold if it lists them,
undecided if it argues about them. Free text that differs from the gold, and code, need a judge: None.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from finr1.answer.extract import final_answer, last_box
from finr1.answer.number import Number, clean, read_numbers, unit_factor
from finr1.types import Question, Verdict

SCALES = (1e3, 1e4, 1e6, 1e8, 1e9, 1e12)
_RELATIVE = 1e-14  # of floating point, not of rounding
_SCALED_RELATIVE = 0.005
_MARK = re.compile(
    r"(?:answer|result)\s?(?:is|:|=|would be|equals)|答案\s?(?:是|为|:)|结果\s?(?:是|为|:)|[=≈]", re.IGNORECASE
)
_YEAR = re.compile(r"(?:\b(?:in|for|of|by|to|from|since|during|at|fiscal|year|fy|and)|[年至到在])\s?$", re.IGNORECASE)
_DECREASE = re.compile(
    r"decreas|declin|fell|fall|drop|reduc|lower|loss|down|negative|下降|减少|降低|下跌|亏损|缩减|负", re.I
)
_NEGATION = re.compile(r"\b(?:not|neither|nor|isn't)\b|不|非")
_LETTERS = "ABCDEFGH"
_YES = ("yes", "true", "correct", "是", "是的", "对", "对的", "正确", "真", "√", "会", "属于", "合规")
_NO = (
    "no",
    "false",
    "incorrect",
    "not correct",
    "否",
    "不是",
    "错",
    "错误",
    "不对",
    "不正确",
    "假",
    "×",
    "不会",
    "不属于",
    "不合规",
)


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
    text = final_answer(answer)
    boxed = last_box(answer) is not None
    if not text:
        return _both(0.0, None, "empty box")
    if question.kind == "number":
        return _grade_number(text, question)
    if question.kind == "code":
        return _both(None, text, "code is not compared by rule")
    reader = {"choice": _choice, "yes_no": _yes_no, "label": _label, "text": _text}[question.kind]
    return _both(*reader(text, boxed, question))


def same_number(answer: Number, gold: Number, unit: float = 1.0, tolerance: float = 0.0) -> tuple[bool, bool]:
    """Whether two numbers are the same, (strictly, up to scale), by the rules at the head of this module.

    `unit` is the factor of the unit that the question names (1.0: none); `tolerance` a relative difference allowed.
    """
    if gold.bare and unit != 1.0:
        gold = gold.times(unit)
    room = max(gold.half_unit, tolerance * abs(gold.value))

    def near(value: float, limit: float) -> bool:
        return abs(value - gold.value) <= limit + _RELATIVE * abs(gold.value)

    in_unit = answer.bare and unit != 1.0 and near(answer.value * unit, room)
    strict = near(answer.value, room) or in_unit
    if strict or gold.value == 0:
        return strict, strict
    own = answer.bare and near(answer.value * gold.factor, room)  # figure against figure: the gold's own unit left out
    limit = min(room, max(_SCALED_RELATIVE, tolerance) * abs(gold.value))
    factors = [100.0]
    if not answer.bare or not gold.bare or unit != 1.0:
        factors += SCALES
    return False, own or any(near(answer.value * f, limit) or near(answer.value / f, limit) for f in factors)


def _grade_number(text: str, question: Question) -> Grade:
    assert question.gold is not None
    golds = read_numbers(question.gold)
    if len(golds) != 1:
        return _both(None, text, f"the gold {question.gold!r} is not one number")
    unit = unit_factor(str(question.meta.get("unit", "")))
    tolerance = float(question.meta.get("tolerance", 0.0))
    read, numbers = candidates(text)
    if not numbers:
        return _both(0.0, text, "no number")
    pairs = [same_number(number, golds[0], unit, tolerance) for number in numbers]
    opposite = [n for n in numbers if any(same_number(n._replace(value=-n.value), golds[0], unit, tolerance))]
    gold_text, several = question.gold.strip(), len(numbers) > 1

    def verdict(hits: Sequence[bool], how: str) -> Verdict:
        if all(hits):
            return Verdict(1.0, read, f"equals {gold_text} {how}")
        if any(hits):
            return Verdict(None, read, f"several numbers, one of them equals {gold_text}")
        if opposite and golds[0].value != 0 and _DECREASE.search(text):
            return Verdict(None, read, "the sign depends on the words around it")
        return Verdict(0.0, read, f"{'none equals' if several else 'not'} {gold_text}")

    return Grade(
        verdict([strict for strict, _ in pairs], "by value"), verdict([scaled for _, scaled in pairs], "up to scale")
    )


def candidates(text: str) -> tuple[str, list[Number]]:
    """The numbers that an answer may mean, and the part of it they were read in.

    What follows the last "answer is", `答案是` or `=` counts if it holds a number; years beside other numbers do not.
    """
    text = clean(text)
    marks = [match.end() for match in _MARK.finditer(text)]
    for part in ([text[marks[-1] :].strip()] if marks else []) + [text.strip()]:
        numbers = read_numbers(part, cleaned=True)
        if len(numbers) > 1:
            numbers = [number for number in numbers if not _is_year(number, part)] or numbers
        if numbers:
            return part, numbers
    return text.strip(), []


def _is_year(number: Number, text: str) -> bool:
    if not (
        number.bare and 1900 <= number.value <= 2100 and number.half_unit == 0.5 and number.end - number.start <= 5
    ):
        return False
    return (
        text[number.end : number.end + 1] == "年"
        or _YEAR.search(text[max(number.start - 8, 0) : number.start]) is not None
    )


def normalise(text: str) -> str:
    """Case, width, white space and punctuation aside."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in text if c.isalnum() or c in "%+-.√×").strip(".")


def _both(value: float | None, answer: str | None, why: str) -> Grade:
    verdict = Verdict(value, answer, why)
    return Grade(verdict, verdict)


_Read = tuple[float | None, str | None, str]


def _judge_set(named: set[str], gold: set[str], listed: bool) -> _Read:
    read = ",".join(sorted(named))
    if named == gold:
        return 1.0, read, "names the gold"
    if len(named) > len(gold) and not listed and gold & named:
        return None, read, "names several"
    return 0.0, read, f"names {read}, the gold is {','.join(sorted(gold))}"


def _choice(text: str, boxed: bool, question: Question) -> _Read:
    letters = "".join(question.choices) if question.choices else _LETTERS
    gold, _ = letters_named(question.gold or "", letters, question.choices)
    if not gold:
        return None, text, f"the gold {question.gold!r} names no option"
    named, listed = letters_named(text, letters, question.choices)
    if named:
        return _judge_set(named, gold, listed or boxed)
    plain = normalise(text)
    overlap = [
        key for key, option in question.choices.items() if len(normalise(option)) > 1 and normalise(option) in plain
    ]
    overlap += [key for key, option in question.choices.items() if len(plain) > 1 and plain in normalise(option)]
    return (None, text, "no option letter") if overlap or not question.choices else (0.0, text, "names no option")


def letters_named(text: str, letters: str, choices: Mapping[str, str]) -> tuple[set[str], bool]:
    """The option letters that a text names, and whether it merely lists them (`B`, `A,B`, `ABD`) or says more.

    Read in this order: letters alone, a leading letter with its text (`C：国家税务总局`), an option's own text, one
    letter after a word such as "option" or 选, letters standing alone inside a sentence.
    """
    plain = clean(text).strip().strip("()[]{}<>*.,;:。、\"'$ ")
    one = f"[{re.escape(letters)}{re.escape(letters.lower())}]"
    bare = re.sub(
        r"[\s,;、/&.()\[\]]|and|和|与|及|选项?|option|choice|answer|答案|[是为:]", "", plain, flags=re.IGNORECASE
    )
    if re.fullmatch(f"{one}+", bare) and (len(bare) == 1 or bare.isupper()) and len(set(bare.upper())) == len(bare):
        return set(bare.upper()), True
    same = [key for key, option in choices.items() if normalise(option) == normalise(plain) and normalise(plain)]
    if len(same) == 1:
        return set(same), True
    numbers = read_numbers(plain, cleaned=True)
    if len(numbers) == 1 and not re.search(r"(?<![A-Za-z])[A-H](?![A-Za-z])", plain):
        options = {key: read_numbers(option) for key, option in choices.items()}
        equal = [
            k
            for k, o in options.items()
            if len(o) == 1 and abs(o[0].value - numbers[0].value) <= _RELATIVE * abs(o[0].value)
        ]
        if len(equal) == 1 and all(len(o) == 1 for o in options.values()):
            return set(equal), True
    lead = re.match(
        rf"(?:[\s:(是为]|选项?|答案|option|answer)*({one})\s?[)\].:、,]\s?(?!\s*{one}\s?(?:$|[)\].:、,]))",
        plain,
        re.IGNORECASE,
    )
    if lead and (lead[1].isupper() or lead[0].rstrip().endswith((")", ".", ":"))):
        others = set(re.findall(rf"(?<![A-Za-z])[{re.escape(letters)}](?=\s?[)\].:、])", plain[lead.end() :]))
        return {lead[1].upper(), *others}, bool(others)
    marked = re.findall(
        rf"(?:选项?|答案[是为选:]*|option|choice|answer is|answer:)\s?\(?({one})(?![A-Za-z])", plain, re.IGNORECASE
    )
    alone = re.findall(rf"(?<![A-Za-z])([{re.escape(letters)}])(?![A-Za-z'])(\s(?!(?:or|and|is)\b)[a-z])?", plain)
    found = set(marked) or {letter for letter, word in alone if letter != "A" or not word}  # "A company": an article
    return {letter.upper() for letter in found}, False


def _label(text: str, boxed: bool, question: Question) -> _Read:
    if not question.choices:
        if normalise(text) == normalise(question.gold or "") != "":
            return 1.0, text, "the same"
        return (0.0 if len(text.split()) <= 3 else None), text, "not the same words"
    gold, _ = labels_named(question.gold or "", question.choices)
    if not gold:
        return None, text, f"the gold {question.gold!r} names no label"
    named, rest = labels_named(text, question.choices)
    if not named:
        return 0.0, text, "names no label"
    if _NEGATION.search(rest):
        return None, ",".join(sorted(named)), "the answer negates"
    return _judge_set(named, gold, boxed or not normalise(rest))


def labels_named(text: str, choices: Mapping[str, str]) -> tuple[set[str], str]:
    """The labels that a text names, by id or by meaning (longer names first), and the text without them."""
    names = {
        normal: key for key, meaning in choices.items() for normal in (key.casefold(), meaning.casefold()) if normal
    }
    if not names:
        return set(), text
    words = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    pattern = re.compile(rf"(?<![a-z\d.])(?:{words})(?![a-z\d]|\.\d)")
    text = clean(text).casefold()
    return {names[match.group()] for match in pattern.finditer(text)}, pattern.sub(" ", text)


def _yes_no(text: str, boxed: bool, question: Question) -> _Read:
    gold = polarity(question.gold or "")
    if gold is None:
        return None, text, f"the gold {question.gold!r} is neither yes nor no"
    named = polarity(text)
    if named is None:
        return None, text, "neither yes nor no, or both"
    return (1.0, named, "names the gold") if named == gold else (0.0, named, f"the gold is {gold}")


_POLAR_NAMES = dict.fromkeys(_YES, "yes") | dict.fromkeys(_NO, "no")
_POLAR = re.compile(
    "|".join(
        rf"(?<![a-z]){re.escape(name)}(?![a-z])" if name.isascii() else re.escape(name)
        for name in sorted(_POLAR_NAMES, key=len, reverse=True)
    )
)


def polarity(text: str) -> str | None:
    """ "yes" or "no" if a text says one of them, at its start, at its end or after "answer is"; else None."""
    text = clean(text).casefold().strip(" \n.。!,;:\"'()[]$")
    found = [(match.start(), match.end(), _POLAR_NAMES[match.group()]) for match in _POLAR.finditer(text)]
    if not found:
        return None
    (start, end, first), last = found[0], found[-1]
    if len({name for _, _, name in found}) == 1:
        told = start == 0 or last[1] == len(text) or bool(_MARK.search(text[:start]))
        return first if told else None
    # "Yes, because it is not correct that …" says yes; "yes/no", "yes or no" and "yes, no" say nothing
    says_first = (
        start == 0 and re.match(r"\s?[,.;:。、]|\s(?:because|since|as)\b|\s?因为", text[end:]) and found[1][0] - end > 8
    )
    return first if says_first else None


def _text(text: str, boxed: bool, question: Question) -> _Read:
    same = normalise(text) == normalise(question.gold or "") != ""
    return (1.0, text, "the same words") if same else (None, text, "other words: a judge is needed")
