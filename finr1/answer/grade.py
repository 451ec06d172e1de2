r"""Grade an answer against the gold answer of its question, by rules alone.

A verdict is 1 (correct), 0 (wrong) or None (undecided: left to a judge model). Each answer gets two verdicts, which
differ only for numbers: *strict* compares values, *scaled* also accepts a missing unit or another power of ten. The
rules, with examples (`-` is None; tests/answer/test_rule_table.py grades every row):

    kind    gold         answer                  strict  scaled  rule
    number  25%          0.25                    1       1       equal by value, in any notation
    number  25%          25                      0       1       the gold's unit is missing
    number  3.5 million  3,500,000               1       1       scale words are part of the value
    number  5.0          5.04                    1       1       within half of the last digit the gold shows (0.05)
    number  5.0          5.05                    0       0       the upper end rounds to 5.1
    number  5            5.04                    0       0       an integer is exact
    number  at least 8%  at least 8%             1       1       the gold itself, whatever its form
    number  -5           5                       0       0       the sign must match
    number  0.118        11.8                    0       1       scaled: a factor of 100 either way
    number  1.2亿        120 million             1       1       units of both languages
    number  US$5         €5                      0       0       the same figure in another currency
    number  5%-7%        between 5% and 7%       1       1       a range needs both ends
    number  5%-7%        6%                      -       -       one number inside the range
    number  24%          24% or 25%              0       0       a hedge
    number  24%          it rose from 20% to 24%  -      -       several numbers, one of them correct
    number  5%           more than 5%            -       -       a bound
    number  20           4 × 5                   -       -       an expression, not computed
    number  -5%          a decrease of 5%        -       -       the sign depends on a word
    number  5%           5% or more              -       -       a bound, before or after the number
    number  5%           5% is wrong             -       -       a denial
    number  252          \sqrt{252}              -       -       the argument of a function is not its value
    number  3            three segments          1       1       a number in words, also among others
    number  5 years      5 months                -       -       another measure
    number  0.125        0.125 or 12.5%          1       1       one value twice is no hedge
    choice  B            B. stocks               1       1       an option's letter, its text, or both
    choice  AC           A and C                 1       1       several letters, in any order
    choice  B            B or C                  0       0       a hedge
    choice  AB           all except C            1       1       all, less those denied
    choice  B            not bonds but stocks    1       1       texts of options stand for their letters
    choice  B            B is wrong              -       -       says only what the answer is not
    choice  A            A股                     0       0       a letter of a name
    yes_no  yes          Yes, because it rose    1       1       yes or no where the answer concludes
    yes_no  yes          1800                    0       0       a figure says neither
    yes_no  yes          not entirely correct    0       0       a negation says the opposite
    yes_no  yes          partly true             -       -       neither yes nor no
    label   1            bullish                 1       1       a label's id, meaning or synonym
    label   1            not bearish but bullish  1      1       what it is not does not count
    label   1            bullish or bearish      0       0       a hedge
    label   1            the stock rose 1%       0       0       a figure of a sentence is no label's id
    text    Apple Inc.   apple inc               1       1       the same words but for case and punctuation
    text    Apple Inc.   Apple Inc. (AAPL)       1       1       a stock code in brackets
    text    red; green   green, red              1       1       the same list
    text    rates rose   yields went up          -       -       other words
    code    x = 1        x = 1                   -       -       code is never compared

Numbers in detail, with `a` the answer's value, `g` the gold's and `h` half of the last digit the gold shows:

- strict: the precision of the gold is what its source states in `Question.meta["tolerance"]`. `exact`: a = g. `shown`:
  a rounds to g, so g - h <= a < g + h. A number: that relative difference, such as FinQA's 1%, at which 6.76% is right
  for 0.06757; an answer further off that is g rounded to the two or more digits it shows (1.3% for 0.01266) is
  undecided, "rounded", and right in the scaled verdict. Not stated: a whole number (not of percent) is exact, another
  as `shown`, with h at most a tenth of g. FinQA's own evaluator compares executed programs to five decimals; Fin-R1's
  judge is asked whether values deviate.
- what the question asks for (`finr1.answer.asked`): a bare figure is in that unit, unless `Question.meta["unit"]` (`%`,
  `million`, `亿元`, or empty) states one: $19.2 million for 19.2. Digits asked for are those of the gold: of two
  decimal places, 3.31 is not 3.3.
- scaled: also a factor of 100 either way; if gold, answer or question shows a unit, also 1e3, 1e4, 1e6, 1e8, 1e9, 1e12.
  A factor other than the gold's own unit must hit within 0.5%: a gold of one digit would else accept almost anything.
- a hedge is wrong, as for SimpleQA's grader (openai/simple-evals, simpleqa_eval.py) and every metric that compares one
  number.

Only the last `\boxed{}` is read, if there is one, with what stands directly beside it (`finr1.answer.boxes`). A hedge
between boxes, `\boxed{24\%} or \boxed{25\%}`, is undecided unless both are right or both wrong. Of more than
`LONGEST_ANSWER` characters the end is read; where only that is wrong, and concludes nothing, a judge must decide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from finr1.answer.boxes import read_boxes
from finr1.answer.choices import key_of_meaning, letters_named, letters_standing, normalise
from finr1.answer.choosing import LETTERS
from finr1.answer.clean import clean
from finr1.answer.date import read_date, same_date
from finr1.answer.grade_number import grade_number, is_number
from finr1.answer.labels import labels_chosen, labels_named, mentions_id
from finr1.answer.number import is_only_numbers, read_numbers, single_number
from finr1.answer.precision import precise, same_number
from finr1.answer.units import Number
from finr1.answer.words import ANSWER_IS, NEGATION
from finr1.answer.yes_no import IS_YES_OR_NO, yes_or_no
from finr1.core.types import Question, Verdict

LONGEST_ANSWER = 5_000
HEDGE = "a hedge between several boxes"


class Grade(NamedTuple):
    """The strict and the scaled verdict on one answer; they differ only for numbers."""

    strict: Verdict
    scaled: Verdict


def grade(answer: str | None, question: Question) -> Grade:
    r"""Grade the text of an answer block; the rules are in this module's docstring.

    No answer (None or empty) is wrong; an unreadable answer, or an unreadable or missing gold, is undecided.

    >>> question = Question("finqa", "page 1", "en", "reasoning business", "number", [], gold="25%")
    >>> strict, scaled = grade(r"The margin is \boxed{25}", question)
    >>> strict.value, scaled.value
    (0.0, 1.0)
    """
    if question.gold is None or not question.gold.strip():
        return _both(None, None, "the question has no gold answer")
    if answer is None or not answer.strip():
        return _both(0.0, None, "no answer")
    boxes = read_boxes(answer)
    if boxes is not None and boxes.either:
        return _either([grade(f"\\boxed{{{content}}}", question) for content in boxes.either])
    text = answer.strip() if boxes is None else boxes.text
    if not text:
        return _both(0.0, None, "empty box")
    found = _grade(text[-LONGEST_ANSWER:], boxes is not None, question)
    if len(text) > LONGEST_ANSWER:
        start, text = text[:LONGEST_ANSWER], text[-LONGEST_ANSWER:]
        ends_open = found.strict.value == 0.0 and not ANSWER_IS.search(text)
        if ends_open and _grade(start, boxes is not None, question).scaled.value != 0.0:
            return _both(None, text, "a long answer: its end is wrong, its start is not")
    if found.strict.value != 1.0 and question.kind != "code" and _plain(text) == _plain_gold(question.gold):
        return _both(1.0, text, "the gold itself")  # whatever its form: at least 8%, 5:1, 1.2.3
    return found


def _plain(text: str) -> str:
    return clean(text).strip(" .。\n").casefold()


_plain_gold = lru_cache(maxsize=8192)(_plain)


def _grade(text: str, boxed: bool, question: Question) -> Grade:
    gold = question.gold or ""
    if question.kind == "number":
        if is_number(gold):
            return Grade(*grade_number(text, question))
        if IS_YES_OR_NO.fullmatch(clean(gold)):  # True among the numbers of a data set
            return _both(*_yes_no(text, boxed, question))
        return _both(*(_dates(text, gold) or (None, text, f"the gold {gold!r} is not one number")))
    if question.kind == "code":
        return _both(None, text, "code: a judge must decide")
    grader = {"choice": _choice, "yes_no": _yes_no, "label": _label, "text": _text}[question.kind]
    return _both(*grader(text, boxed, question))


def _either(grades: Sequence[Grade]) -> Grade:
    """The verdicts on a hedge between boxes: decided where the same holds of each."""
    out = []
    for verdicts in zip(*grades, strict=True):
        values = {verdict.value for verdict in verdicts}
        answer = " or ".join(verdict.answer or "" for verdict in verdicts)
        out.append(
            Verdict(values.pop(), answer, verdicts[-1].why) if len(values) == 1 else Verdict(None, answer, HEDGE)
        )
    return Grade(*out)


def _both(value: float | None, answer: str | None, why: str) -> Grade:
    verdict = Verdict(value, answer, why)
    return Grade(verdict, verdict)


_Outcome = tuple[float | None, str | None, str]  # a verdict's value, the answer as read, and why


def _dates(text: str, gold: str) -> _Outcome | None:
    """The verdict for a gold that is a date but not a number (`2019-12-31`, `3Q19`); None for any other gold."""
    if len(gold) < 4 or gold.isdigit() or not _DATE_LIKE.search(gold):
        return None
    gold_date = read_date(clean(gold))
    if not gold_date:
        return None
    answer_date = read_date(clean(text))
    if not answer_date:
        return None, text, "not a date alone"
    same = same_date(answer_date, gold_date)
    if same is None:
        return None, text, "a less precise or ambiguous date"
    return float(same), text, "the same date" if same else "another date"


_DATE_LIKE = re.compile(r"\d[-/.年月qQ]|[a-zA-Z]\D{0,12}\d|年")


def _compare_sets(answer: set[str], gold: set[str], is_list: bool) -> _Outcome:
    """Compare letters or labels. More than the gold is wrong if the answer only lists them, undecided if it argues."""
    shown = ",".join(sorted(answer))
    if answer == gold:
        return 1.0, shown, "equals the gold"
    if len(answer) > len(gold) and not is_list and gold & answer:
        return None, shown, "mentions several options, the gold among them"
    return 0.0, shown, f"says {shown}, the gold is {','.join(sorted(gold))}"


def _choice(text: str, boxed: bool, question: Question) -> _Outcome:
    letters = "".join(question.choices) if question.choices else LETTERS
    gold = _gold_letters(question.gold or "", letters, tuple(question.choices.items()))
    if not gold:
        return None, text, f"the gold {question.gold!r} is not an option"
    if letter := _whole_option(text, question.choices):
        return _compare_sets({letter}, gold, True)
    answer, manner = letters_named(text, letters, question.choices)
    if manner == "hedge":
        return 0.0, text, "a hedge: leaves open which option it is"
    if answer:
        return _compare_sets(answer, gold, manner == "list" or (boxed and answer <= letters_standing(text)))
    if manner == "denial" or NEGATION.search(text):
        return None, text, "says only what the answer is not"
    plain = normalise(_ARTICLE.sub("", text))
    options = [normalise(option) for option in question.choices.values()]
    overlaps = any((len(option) > 1 and option in plain) or (len(plain) > 1 and plain in option) for option in options)
    if overlaps or not question.choices:
        return None, text, "no option letter"
    return 0.0, text, "not one of the options"


@lru_cache(maxsize=8192)
def _gold_letters(gold: str, letters: str, options: tuple[tuple[str, str], ...]) -> set[str]:
    return letters_named(gold, letters, dict(options))[0]


@lru_cache(maxsize=8192)
def _gold_labels(gold: str, options: tuple[tuple[str, str], ...]) -> set[str]:
    return labels_named(gold, dict(options))[0]


_ARTICLE = re.compile(r"^\s*an?\s", re.IGNORECASE)
_LETTER_AND_TEXT = re.compile(r"\W*([A-Za-z])(?:\s?[.,:;、)\]]\s?|\s)(.+)", re.DOTALL)


def _whole_option(text: str, choices: Mapping[str, str]) -> str | None:
    """The letter of an answer that repeats one whole option, whose text may hold other letters: `C. A、C类份额`."""
    match = _LETTER_AND_TEXT.fullmatch(clean(text).strip())
    letter = match[1].upper() if match else ""
    same = match and letter in choices and normalise(match[2]) == normalise(choices[letter]) != ""
    return letter if same else None


def _same_words(text: str, gold: str) -> bool:
    """Whether two texts have the same words but for case, punctuation, LaTeX, "the answer is", a code in brackets."""
    plain, wanted = (normalise(clean(whole) if "\\" in whole else whole) for whole in (text, gold))
    if plain != wanted and len(text) < 2 * len(gold) + _LONGEST_ASIDE:
        plain = normalise(_ASIDE.sub("", clean(text)))
    return plain == wanted != ""


_LONGEST_ASIDE = 60
_ASIDE = re.compile(  # the answer is; (AAPL), (NASDAQ: AAPL), (600519.SH)
    rf"^\W*(?:the )?(?:(?:final|correct) )?(?:{ANSWER_IS.pattern})\s*"
    r"|\s?\((?-i:(?:[A-Z]{2,8} ?: ?)?(?:[A-Z]{2,5}|\d{5,6}|\d{4,6}\.[A-Z]{1,3}))\)\W*$",
    re.IGNORECASE,
)


def _label(text: str, boxed: bool, question: Question) -> _Outcome:
    if not question.choices:
        if _same_words(text, question.gold or ""):
            return 1.0, text, "the same words"
        return (0.0 if len(text.split()) <= 3 or is_only_numbers(text) else None), text, "other words"
    gold = _gold_labels(question.gold or "", tuple(question.choices.items()))
    if not gold:
        return None, text, f"the gold {question.gold!r} is not a label"
    if key := key_of_meaning(text, tuple(question.choices.items())):
        return _compare_sets({key}, gold, True)
    answer, rest = labels_named(text, question.choices)
    if not answer:
        return (None if mentions_id(text, question.choices) else 0.0), text, "not one of the labels"
    negated = NEGATION.search(rest) is not None
    chosen = labels_chosen(text, question.choices) if negated or len(answer) > 1 else None
    if chosen and chosen[0] and (chosen[0] < answer or chosen[1]):
        return (0.0, text, "a hedge") if chosen[1] else _compare_sets(chosen[0], gold, True)
    if negated:
        return None, ",".join(sorted(answer)), "the answer holds a negation"
    is_list = boxed or normalise(rest) in ("", "or", "eitheror", "或", "或者", "还是")
    return _compare_sets(answer, gold, is_list)


def _yes_no(text: str, boxed: bool, question: Question) -> _Outcome:
    gold, answer = yes_or_no(question.gold or ""), yes_or_no(text)
    if gold is None:
        return None, text, f"the gold {question.gold!r} is neither yes nor no"
    if answer is not None:
        return float(answer == gold), answer, f"the gold is {gold}"
    if _YES_OR_NO.fullmatch(clean(text)):
        return 0.0, text, "a hedge: both yes and no"
    if is_only_numbers(text):
        return 0.0, text, "a figure, neither yes nor no"
    if _ONLY_LETTERS.fullmatch(clean(text)) and not _shows_options(question):
        return 0.0, text, "an option letter, but the question has no options"
    return None, text, "neither a clear yes nor a clear no"


_YES_OR_NO = re.compile(
    r"\W*+(?:either\s)?(?:(?:yes|true|是)\W*(?:or|/|或者?)\W*(?:no|false|否|不是)"
    r"|(?:no|false|否)\W*(?:or|/|或者?)\W*(?:yes|true|是))\W*",
    re.IGNORECASE,
)
_ONLY_LETTERS = re.compile(r"\W*+(?:(?:option|choice|选项?)\s?)?\(?[A-H](?:[\s,、()]++[A-H])*+\W*+")
_OPTION_A = re.compile(r"(?<![A-Za-z])A\s?[).:、：．]")


def _shows_options(question: Question) -> bool:
    """Whether a letter may stand for an option: the question has choices, or its prompt lists some."""
    return bool(question.choices) or any(_OPTION_A.search(message["content"]) for message in question.prompt)


_LIST = re.compile(r"[;；、\n]|,\s?(?!\d)|，|\sand\s|和")


def _text(text: str, boxed: bool, question: Question) -> _Outcome:
    gold = question.gold or ""
    if _same_words(text, gold):
        return 1.0, text, "the same words"
    date = _dates(text, gold)
    if date is not None:
        return date
    gold_items, answer_items = ({normalise(item) for item in _LIST.split(whole)} - {""} for whole in (gold, text))
    if len(gold_items) > 1 and gold_items == answer_items:
        return 1.0, text, "the same list"
    return _numbers_in_text(text, gold, question.meta.get("tolerance")) or (
        None,
        text,
        "other words: a judge must decide",
    )


def _numbers_in_text(text: str, gold: str, tolerance: object) -> _Outcome | None:
    """The verdict where gold and answer are each one number and nothing else."""
    if len(text) > 60 or len(gold) > 60:
        return None
    answer_number, gold_number = (_only_number(clean(whole).strip(" .。")) for whole in (text, gold))
    if answer_number is None or gold_number is None:
        return None
    strict, scaled = same_number(answer_number, precise(gold_number, tolerance))
    if strict != scaled:
        return None
    return float(strict), text, f"{'' if strict else 'not '}the same number"


def _only_number(text: str) -> Number | None:
    numbers = read_numbers(text, cleaned=True, most=2)
    if len(numbers) == 1 and numbers[0].end - numbers[0].start >= len(text):
        return numbers[0]
    return single_number(text)
