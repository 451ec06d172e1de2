r"""Grade a numeric answer: find the numbers it may mean (`candidates`), and compare each with the gold (`same_number`).

The rules, with an example of each, are the table in `finr1.answer.grade`. Only numbers that an answer may conclude
with are compared:

    >>> [number.value for number in candidates("In 2019 revenue was 120 - 80 = $40 million")[1]]
    [40000000.0]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from finr1.answer import number_words
from finr1.answer.asked import Asked, asked_of
from finr1.answer.clean import clean
from finr1.answer.date import date_spans, read_date
from finr1.answer.number import read_numbers, single_number, unit_factor
from finr1.answer.precision import TWO_DIGITS, precise, same_number
from finr1.answer.units import Number
from finr1.answer.words import ANSWER_IS, last_match
from finr1.core.types import Question, Verdict

MAX_NUMBERS = 40  # more than these are not compared
TOO_MANY = f"more than {MAX_NUMBERS} numbers"  # the reason of such an undecided verdict
LONGEST_SENTENCE = 1000  # characters; in longer parts incidental numbers are not filtered out
_DIGIT = re.compile(r"\d")
_EQUALS = re.compile(r"[=≈]")
_CLAUSE_END = re.compile(
    r"[。;!?\n]|\.(?=\s|$)|\(?\b(?:because|since|as|not|rather than|instead of)\b|因为|由于|而不是|而非", re.IGNORECASE
)
_DECREASE = re.compile(
    r"decreas|declin|fell|fall|drop|reduc|lower|loss|down|negative|下降|减少|降低|下跌|亏损|缩减|负", re.I
)
_DECREASED_BY = re.compile(
    r"(?:decreas\w*|declin\w*|fell|fallen|drop\w*|reduc\w*|down|下降|减少|降低|下跌|缩减)(?:\s(?:of|by|about|approximately)){0,2}"
    r"[了约\s$]*$",
    re.I,
)
_BOUND = re.compile(
    r"(?:more than|less than|greater than|fewer than|higher than|lower than|over|under|above|below|at least|at most"
    r"|up to|exceed(?:s|ed|ing)?|not|n't|超过|不到|大于|小于|高于|低于|多于|少于|至少|至多|不足|不是|不等于"
    r"|[<>≤≥±≠])[\s$]*$",
    re.I,
)
_BEFORE_YEAR = re.compile(
    r"(?:\b(?:in|for|of|by|to|from|since|during|at|fiscal|year|fy|and|than|vs\.?|ended)|[年至到在较比])\s?$",
    re.IGNORECASE,
)
_NAME_WITH_NUMBER = re.compile(
    r"(?:S&P|Russell|CSI|FTSE|Nasdaq|Nikkei|Euro Stoxx|DAX|ISO|form|note|table|page|step|item|section|level|option|sfas"
    r"|沪深|中证|上证|标普|第)\s?$",
    re.IGNORECASE,
)
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b")
_EXPRESSION = re.compile(
    r"[\d)%]\s?(?:[*+÷]|[×x](?!\s?10\s?\^))\s?[(\d$]|\)\s?[\^/]|/\s?\(|\d\s-\s\d|\)\s?-|-\s?\(|√|sqrt"
)
_DASH = re.compile(r"[$€£¥(\s]*-[)\s]*")  # a dash alone: accountants' zero
_RANGE_JOINT = re.compile(r"\s?(?:[-~至到]|to\b|and\b)\s?", re.I)
_RANGE_LEAD = re.compile(r"(?:between|from|about|约|在|[\s$€£¥(])*", re.I)
_HEDGE_JOINT = re.compile(
    r"[\s$€£¥(),]*(?:\bor\b(?:\s(?:maybe|perhaps|possibly|even|about))?|或者?|还是)[\s$€£¥(约]*", re.I
)
_LIST_JOINT = re.compile(r"[\s$€£¥]*[,、][\s$€£¥]*")
_HEDGE_END = re.compile(r"\W*+\w{0,20}+\W*+")  # at most a unit: "12 or 13, the former" is not a hedge
_CURRENCIES = (
    ("USD", "US$", "美元", "美金"), ("HKD", "HK$", "港元", "港币"), ("EUR", "€", "欧元"), ("GBP", "£", "英镑"),
    ("JPY", "日元", "円"), ("CNY", "RMB", "人民币", "元"),
)  # fmt: skip
_CURRENCY_OF = {word: names[0] for names in _CURRENCIES for word in names}
_CURRENCY = re.compile("|".join(sorted(map(re.escape, _CURRENCY_OF), key=len, reverse=True)))


class _Gold(NamedTuple):
    """A gold: one number, or the two ends of a range, or none where it cannot be graded as one; and its currency."""

    numbers: tuple[Number, ...]
    currency: str | None
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
    return _Gold(tuple(numbers), _currency(plain))


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
        return _twice(0.0, text, "no number")
    if len(gold.numbers) == 2:
        return _grade_range(part, numbers, gold)
    if len(numbers) > MAX_NUMBERS:
        return _twice(None, part, TOO_MANY)
    matches = [_matches(number, gold) for number in numbers]
    strict, scaled = [match[0] for match in matches], [match[1] for match in matches]
    if gold.rounds and not any(scaled):
        scaled = [_is_rounding(number, gold, 1.0, 100.0, 0.01) for number in numbers]
    if not any(scaled):
        verdict = _verdict_without_match(part, numbers, gold, gold_text)
        return verdict, verdict
    if not all(scaled) and _is_hedge(numbers, part):
        return _twice(0.0, part, f"a hedge, not {gold_text}")
    doubt = _why_doubtful(part, numbers, scaled, question)
    if doubt:
        undecided = Verdict(None, part, doubt)
        return (undecided if any(strict) else Verdict(0.0, part, f"not {gold_text}")), undecided
    if gold.currency and (currency := _currency(part)) and currency != gold.currency:
        return _twice(0.0, part, f"in {currency}, not in {gold.currency}")
    by_scale = _verdict(scaled, part, gold_text, "up to scale")
    if gold.rounds and not any(strict) and any(_is_rounding(number, gold, 1.0) for number in numbers):
        return Verdict(None, part, f"rounded: {gold_text} to fewer digits"), by_scale
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


def _verdict_without_match(part: str, numbers: Sequence[Number], gold: _Gold, gold_text: str) -> Verdict:
    """No number equals the gold: wrong, unless words may give the sign or the answer is an expression."""
    if gold.numbers[0].value != 0:
        opposite = (
            number._replace(value=-number.value)
            for number in numbers
            if _is_in_brackets(number, part) or _DECREASE.search(part if number.value > 0 else part[: number.start])
        )
        if any(_matches(number, gold)[1] for number in opposite):
            return Verdict(None, part, "the sign depends on the words around it")
    if len(numbers) > 1 and _EXPRESSION.search(part):
        return Verdict(None, part, "an expression, not computed")
    return Verdict(0.0, part, f"{'none equals' if len(numbers) > 1 else 'not'} {gold_text}")


def _why_doubtful(part: str, numbers: Sequence[Number], matches: Sequence[bool], question: Question) -> str:
    """Why a number that equals the gold may still not mean it: `more than 5%`; "fell by 5%" for 5%. Empty: no doubt."""
    for number, match in zip(numbers, matches, strict=True):
        before = part[max(number.start - 24, 0) : number.start] if match and number.start > 0 else ""
        if not before:
            continue
        if _BOUND.search(before):
            return "a bound, not a number"
        if len(numbers) == 1 and _is_in_brackets(number, part):
            return "brackets that may mean a minus"
        if number.value > 0 and _DECREASED_BY.search(before) and not _DECREASE.search(_end_of_question(question)):
            return "the sign depends on the words around it"
    return ""


def _is_in_brackets(number: Number, text: str) -> bool:
    """`growth (20%)`: accountants' minus or a side remark; where it can only be a minus it was read as one."""
    return number.value > 0 and text[: number.start].endswith("(") and text[number.end :].lstrip().startswith(")")


def _end_of_question(question: Question) -> str:
    """The last 200 characters of the prompt, where the question itself usually is."""
    return question.prompt[-1]["content"][-200:] if question.prompt else ""


def _grade_range(part: str, numbers: Sequence[Number], gold: _Gold) -> tuple[Verdict, Verdict]:
    low, high = gold.numbers
    if len(numbers) == 2 and _is_range(numbers, part):
        ends = [
            _matches(number, gold._replace(numbers=(end,))) for number, end in zip(numbers, (low, high), strict=True)
        ]
        strict, scaled = all(strict for strict, _ in ends), all(scaled for _, scaled in ends)
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
        return "from" not in text.lower() and not _EXPRESSION.search(text)
    joints = [text[left.end : right.start] for left, right in pairwise(numbers)]
    is_or = [_HEDGE_JOINT.fullmatch(joint) is not None for joint in joints]
    return any(is_or) and all(o or _LIST_JOINT.fullmatch(joint) for o, joint in zip(is_or, joints, strict=True))


def candidates(text: str) -> tuple[str, list[Number]]:
    """The part of an answer that counts, and the numbers in it that may be meant (at most `MAX_NUMBERS` + 1).

    The part is what follows the last "answer is" or `答案是`, and within it what follows the last `=`, if that holds a
    number. Beside other numbers, years, dates, ordinals and numbers in names (S&P 500) do not count.

    >>> part, numbers = candidates("Margin rose in 2019. The answer is 60 / 240 = 25%.")
    >>> part, [number.value for number in numbers]
    ('25%', [0.25])
    """
    part, numbers = _candidates(text)
    return part, list(numbers)


@lru_cache(maxsize=4096)  # the filter grades every correct answer again
def _candidates(text: str) -> tuple[str, Sequence[Number]]:
    text = clean(text).strip()
    for part in _likeliest_parts(text):
        numbers = _numbers_of_part(part)
        if numbers:
            return part, numbers
    if _DASH.fullmatch(text):
        return text, [Number(0.0, 0.5, 1.0, 0, len(text))]
    if "FY" in text:
        return text, read_numbers(text.replace("FY", " "), cleaned=True, most=MAX_NUMBERS + 1)
    return text, []


def _likeliest_parts(text: str) -> list[str]:
    """The parts of a text that may hold the answer, likeliest first."""
    parts = [text]
    mark = last_match(ANSWER_IS, text)
    if mark:
        rest = text[mark.end() :].strip()
        end = _CLAUSE_END.search(rest, 1)
        parts.append(rest)
        if end:
            parts.append(rest[: end.start()].strip())
    equals = last_match(_EQUALS, parts[-1])
    if equals:
        tail = parts[-1][equals.end() :].strip()
        if not _EXPRESSION.search(tail):  # `60 (= 12 × 5)`
            parts.append(tail)
    return parts[::-1]


def _numbers_of_part(part: str) -> list[Number]:
    numbers = read_numbers(part, cleaned=True, most=MAX_NUMBERS + 1)
    if len(numbers) == 1 and numbers[0].start == 0 and numbers[0].end >= len(part) - 1 and part[:2] != "0,":
        return numbers
    outside = part[: numbers[0].start] + part[numbers[0].end :] if len(numbers) == 1 else part
    if len(numbers) != 1 or part[:2] == "0," or _DIGIT.search(outside):
        single = single_number(part)
        if single:
            return [single]
    han = not part.isascii() and number_words.HAN.search(part) is not None
    if (len(numbers) == 1 and not han) or len(numbers) > MAX_NUMBERS or len(part) > LONGEST_SENTENCE:
        return numbers
    dates = date_spans(part)
    meant = [number for number in numbers if not _is_incidental(number, part, dates)]
    if not meant and han:  # 2019年为五千: digits hid the Chinese number
        chinese = number_words.chinese_numbers(part, True, MAX_NUMBERS)
        meant = [number for number in chinese if not _is_incidental(number, part, dates)]
    if all(map(_looks_like_year, meant)) and len(numbers) > 1:
        meant = [number for number in numbers if _looks_like_year(number)]  # "2019 and 2018": the answer is years
    return meant or numbers


def _looks_like_year(number: Number) -> bool:
    return number.factor == 1.0 and 1900 <= number.value <= 2100 and number.half_unit == 0.5


def _is_incidental(number: Number, text: str, dates: Sequence[tuple[int, int]]) -> bool:
    """Whether a number is a year, part of a date, an ordinal, or part of a name."""
    before = text[max(number.start - 12, 0) : number.start]
    if _NAME_WITH_NUMBER.search(before) or _ORDINAL.match(text, number.end):
        return True
    if any(start <= number.start + 1 < end for start, end in dates):
        return True
    if not _looks_like_year(number) or number.end - number.start > 5:
        return False
    return text[number.end : number.end + 1] == "年" or _BEFORE_YEAR.search(before) is not None


def _currency(text: str) -> str | None:
    """The only currency in a text; None for none or several. A bare `$` is not counted: it may be LaTeX."""
    currencies = {_CURRENCY_OF[word] for word in _CURRENCY.findall(text)}
    return currencies.pop() if len(currencies) == 1 else None
