r"""Whether a number that an answer gives is the gold's, by the rules at the head of `finr1.answer.grade.grade`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from finr1.answer import number_words
from finr1.answer.choices import MARK, last_match
from finr1.answer.clean import clean
from finr1.answer.date import date_spans, read_date
from finr1.answer.number import single_number, read_numbers, unit_factor
from finr1.answer.units import Number
from finr1.core.types import Question, Verdict

SCALES = (1e3, 1e4, 1e6, 1e8, 1e9, 1e12)
MAX_NUMBERS = 40  # numbers read of an answer
TOO_MANY = f"more than {MAX_NUMBERS} numbers"  # why such an answer is undecided
LONGEST_SENTENCE = 1000  # characters in which asides are told from what is said
_RELATIVE = 1e-14  # of floating point, not of rounding
_SCALED_RELATIVE = 0.005
_DIGIT = re.compile(r"\d")
_EQUALS = re.compile(r"[=≈]")
_CLAUSE_END = re.compile(
    r"[。;!?\n]|\.(?=\s|$)|\(?\b(?:because|since|as|not|rather than|instead of)\b|因为|由于|而不是|而非", re.IGNORECASE
)
_DECREASE = re.compile(
    r"decreas|declin|fell|fall|drop|reduc|lower|loss|down|negative|下降|减少|降低|下跌|亏损|缩减|负", re.I
)
_DECREASED = re.compile(
    r"(?:decreas\w*|declin\w*|fell|fallen|drop\w*|reduc\w*|down|下降|减少|降低|下跌|缩减)(?:\s(?:of|by|about|approximately)){0,2}"
    r"[了约\s$]*$",
    re.I,
)
_NOT_EQUAL = re.compile(
    r"(?:more than|less than|greater than|fewer than|higher than|lower than|over|under|above|below|at least|at most"
    r"|up to|exceed(?:s|ed|ing)?|not|n't|超过|不到|大于|小于|高于|低于|多于|少于|至少|至多|不足|不是|不等于"
    r"|[<>≤≥±≠])[\s$]*$",
    re.I,
)
_YEAR = re.compile(
    r"(?:\b(?:in|for|of|by|to|from|since|during|at|fiscal|year|fy|and|than|vs\.?|ended)|[年至到在较比])\s?$",
    re.IGNORECASE,
)
_NAME = re.compile(
    r"(?:S&P|Russell|CSI|FTSE|Nasdaq|Nikkei|Euro Stoxx|DAX|ISO|form|note|table|page|step|item|section|level|option|sfas"
    r"|沪深|中证|上证|标普|第)\s?$",
    re.IGNORECASE,
)
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b")
_EXPRESSION = re.compile(
    r"[\d)%]\s?(?:[*+÷]|[×x](?!\s?10\s?\^))\s?[(\d$]|\)\s?[\^/]|/\s?\(|\d\s-\s\d|\)\s?-|-\s?\(|√|sqrt"
)
_NO_AMOUNT = re.compile(r"[$€£¥(\s]*-[)\s]*")  # accountants' dash
_RANGE = re.compile(r"\s?(?:[-~至到]|to\b|and\b)\s?", re.I)
_RANGE_LEAD = re.compile(r"(?:between|from|about|约|在|[\s$€£¥(])*", re.I)
_HEDGE = re.compile(r"[\s$€£¥(),]*(?:\bor\b(?:\s(?:maybe|perhaps|possibly|even|about))?|或者?|还是)[\s$€£¥(约]*", re.I)
_HEDGE_LIST = re.compile(r"[\s$€£¥]*[,、][\s$€£¥]*")
_HEDGE_TAIL = re.compile(r"\W*+\w{0,20}+\W*+")  # a unit at most: "12 or 13, the former" is no hedge
_CURRENCIES = (
    ("USD", "US$", "美元", "美金"), ("HKD", "HK$", "港元", "港币"), ("EUR", "€", "欧元"), ("GBP", "£", "英镑"),
    ("JPY", "日元", "円"), ("CNY", "RMB", "人民币", "元"),
)  # fmt: skip
_CURRENCY_OF = {word: names[0] for names in _CURRENCIES for word in names}
_CURRENCY = re.compile("|".join(sorted(map(re.escape, _CURRENCY_OF), key=len, reverse=True)))


def same_number(answer: Number, gold: Number, unit: float = 1.0, tolerance: float = 0.0) -> tuple[bool, bool]:
    """Whether two numbers are the same, (strictly, up to scale).

    `unit` is the factor of the unit that the question names (1.0: none); `tolerance` a relative difference allowed.
    """
    if unit != 1.0 and gold.bare:
        gold = gold.times(unit)
    value, wanted = answer.value, gold.value
    size = abs(wanted)
    slack = _RELATIVE * size
    room = max(gold.half_unit, tolerance * size)
    bare = answer.factor == 1.0
    if abs(value - wanted) <= room + slack or (bare and unit != 1.0 and abs(value * unit - wanted) <= room + slack):
        return True, True
    if wanted == 0 or value == 0 or (value < 0) != (wanted < 0):
        return False, False
    if bare and abs(value * gold.factor - wanted) <= room + slack:  # figure against figure: the gold's unit left out
        return False, True
    limit = min(room, max(_SCALED_RELATIVE, tolerance) * size) + slack
    if abs(value * 100.0 - wanted) <= limit or abs(value / 100.0 - wanted) <= limit:
        return False, True
    if bare and gold.bare and unit == 1.0:
        return False, False
    return False, any(abs(value * f - wanted) <= limit or abs(value / f - wanted) <= limit for f in SCALES)


class _Gold(NamedTuple):
    """A gold as it was read: one number, or the two ends of a range; and the currency it names."""

    numbers: tuple[Number, ...]
    currency: str | None


@lru_cache(maxsize=8192)
def _read_gold(text: str) -> _Gold:
    plain = clean(text).strip()
    numbers = read_numbers(plain, cleaned=True, most=3)
    lone = single_number(plain) if len(numbers) != 1 or plain.startswith("0,") else None
    numbers = [lone] if lone else numbers
    if len(numbers) == 2 and not _is_range(numbers, plain):
        numbers = []
    if any(any(date[1:]) for date in read_date(plain)):  # more than a year
        numbers = []
    return _Gold(tuple(numbers), _currency(plain))


def is_number(gold: str) -> bool:
    """Whether a gold can be graded as one number or one range."""
    return len(_read_gold(gold.strip()).numbers) in (1, 2)


def grade_number(text: str, question: Question) -> tuple[Verdict, Verdict]:
    """The strict verdict and the one up to scale, for a question whose gold is one number or one range."""
    shown = (question.gold or "").strip()
    gold = _read_gold(shown)
    read, numbers = candidates(text)
    if not numbers:
        wrong = Verdict(0.0, text, "no number")
        return wrong, wrong
    unit = unit_factor(str(question.meta["unit"])) if "unit" in question.meta else 1.0
    tolerance = float(question.meta.get("tolerance", 0.0))
    if len(gold.numbers) == 2:
        return _grade_range(read, numbers, gold.numbers, unit, tolerance)
    if len(numbers) > MAX_NUMBERS:
        many = Verdict(None, read, TOO_MANY)
        return many, many
    wanted = gold.numbers[0]
    pairs = [same_number(number, wanted, unit, tolerance) for number in numbers]
    if not any(scaled for _, scaled in pairs):
        missed = _missed(read, numbers, wanted, shown, unit, tolerance)
        return missed, missed
    if not all(scaled for _, scaled in pairs) and _is_hedge(numbers, read):
        hedge = Verdict(0.0, read, f"a hedge, not {shown}")
        return hedge, hedge
    doubt = _doubt(read, numbers, pairs, question)
    if doubt:
        undecided = Verdict(None, read, doubt)
        return (undecided if any(strict for strict, _ in pairs) else Verdict(0.0, read, f"not {shown}")), undecided
    if gold.currency and (other := _currency(read)) and other != gold.currency:
        wrong = Verdict(0.0, read, f"in {other}, not in {gold.currency}")
        return wrong, wrong
    return (
        _verdict([strict for strict, _ in pairs], read, shown, "by value"),
        _verdict([scaled for _, scaled in pairs], read, shown, "up to scale"),
    )


def _verdict(hits: Sequence[bool], read: str, shown: str, how: str) -> Verdict:
    if all(hits):
        return Verdict(1.0, read, f"equals {shown} {how}")
    if any(hits):
        return Verdict(None, read, f"several numbers, one of them equals {shown}")
    return Verdict(0.0, read, f"{'none equals' if len(hits) > 1 else 'not'} {shown}")


def _missed(read: str, numbers: Sequence[Number], gold: Number, shown: str, unit: float, tolerance: float) -> Verdict:
    """No number equals the gold: wrong, but for the sign that words may give, and for what was not computed."""
    if gold.value != 0:
        said = (
            number
            for number in numbers
            if _in_brackets(number, read) or _DECREASE.search(read if number.value > 0 else read[: number.start])
        )
        opposite = (number._replace(value=-number.value) for number in said)
        if any(same_number(number, gold, unit, tolerance)[1] for number in opposite):
            return Verdict(None, read, "the sign depends on the words around it")
    if len(numbers) > 1 and _EXPRESSION.search(read):
        return Verdict(None, read, "an expression, not computed")
    return Verdict(0.0, read, f"{'none equals' if len(numbers) > 1 else 'not'} {shown}")


def _doubt(read: str, numbers: Sequence[Number], pairs: Sequence[tuple[bool, bool]], question: Question) -> str:
    """Why a number that equals the gold may still not be it: `more than 5%`; "fell by 5%" for a gold of 5%."""
    for number, (_, scaled) in zip(numbers, pairs, strict=True):
        before = read[max(number.start - 24, 0) : number.start] if scaled and number.start > 0 else ""
        if not before:
            continue
        if _NOT_EQUAL.search(before):
            return "a bound, not a number"
        if len(numbers) == 1 and _in_brackets(number, read):
            return "brackets that may mean a minus"
        if number.value > 0 and _DECREASED.search(before) and not _DECREASE.search(_asked(question)):
            return "the sign depends on the words around it"
    return ""


def _in_brackets(number: Number, text: str) -> bool:
    """`growth (20%)`: whether accountants' brackets or an aside is open; those that say minus are read so."""
    return number.value > 0 and text[: number.start].endswith("(") and text[number.end :].lstrip().startswith(")")


def _asked(question: Question) -> str:
    """The end of the question, where it asks."""
    return question.prompt[-1]["content"][-200:] if question.prompt else ""


def _grade_range(
    read: str, numbers: Sequence[Number], gold: Sequence[Number], unit: float, tolerance: float
) -> tuple[Verdict, Verdict]:
    if len(numbers) == 2 and _is_range(numbers, read):
        ends = [same_number(number, end, unit, tolerance) for number, end in zip(numbers, gold, strict=True)]
        strict, scaled = all(strict for strict, _ in ends), all(scaled for _, scaled in ends)
        return (
            Verdict(float(strict), read, "the same range" if strict else "another range"),
            Verdict(float(scaled), read, "the same range up to scale" if scaled else "another range"),
        )
    inside = any(gold[0].value <= number.value <= gold[1].value for number in numbers)
    open_ = Verdict(None, read, TOO_MANY if len(numbers) > MAX_NUMBERS else "inside the range")
    verdict = open_ if inside else Verdict(0.0, read, "not the range")
    return verdict, verdict


def _is_range(numbers: Sequence[Number], text: str) -> bool:
    """Whether a text is `5%-7%`, `between 12 and 13`, `3至5亿`."""
    first, second = numbers
    between = text[first.end : second.start + 1].rstrip("0123456789.$€£¥")
    head = text[: first.start]
    joined = _RANGE.fullmatch(between) or _RANGE.fullmatch(text[first.end : second.start].strip("元 $"))
    lead = _RANGE_LEAD.fullmatch(head)
    if "and" in between and "between" not in head.lower():
        return False
    return bool(joined and lead) and first.value < second.value


def _is_hedge(numbers: Sequence[Number], text: str) -> bool:
    """Whether an answer leaves open which of several numbers it is: `24% or 25%`, `12, 13或14`, `5%-7%`.

    `$5 million or 25%` may say one thing twice, `from 20% to 25%` which of the two is meant: neither is a hedge.
    """
    if len({number.factor < 1 for number in numbers}) > 1 or not _HEDGE_TAIL.fullmatch(text, numbers[-1].end):
        return False
    if len(numbers) == 2 and _is_range(numbers, text):
        return "from" not in text.lower() and not _EXPRESSION.search(text)
    joints = [text[one.end : other.start] for one, other in pairwise(numbers)]
    ors = [_HEDGE.fullmatch(joint) is not None for joint in joints]
    return any(ors) and all(is_or or _HEDGE_LIST.fullmatch(j) for is_or, j in zip(ors, joints, strict=True))


def candidates(text: str) -> tuple[str, list[Number]]:
    """The numbers that an answer may mean, and the part of it they were read in; of very many the first `MAX_NUMBERS` + 1.

    What the last "answer is" or `答案是` says counts, and there what follows the last `=`, if it holds a number; years,
    dates, ordinals and the numbers of names (S&P 500) beside other numbers do not.
    """
    read, numbers = _candidates(text)
    return read, list(numbers)


@lru_cache(maxsize=4096)  # a filter asks for those of a right answer again
def _candidates(text: str) -> tuple[str, Sequence[Number]]:
    text = clean(text).strip()
    for part in _parts(text):
        numbers = _one_or_more(part)
        if numbers:
            return part, numbers
    if _NO_AMOUNT.fullmatch(text):
        return text, [Number(0.0, 0.5, 1.0, 0, len(text))]
    if "FY" in text:
        return text, read_numbers(text.replace("FY", " "), cleaned=True, most=MAX_NUMBERS + 1)
    return text, []


def _parts(text: str) -> list[str]:
    """The parts of a text in which to look for the answer, the likeliest first."""
    parts = [text]
    mark = last_match(MARK, text)
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


def _one_or_more(part: str) -> list[Number]:
    numbers = read_numbers(part, cleaned=True, most=MAX_NUMBERS + 1)
    if len(numbers) == 1 and numbers[0].start == 0 and numbers[0].end >= len(part) - 1 and part[:2] != "0,":
        return numbers
    outside = part[: numbers[0].start] + part[numbers[0].end :] if len(numbers) == 1 else part
    if len(numbers) != 1 or part[:2] == "0," or _DIGIT.search(outside):
        lone = single_number(part)
        if lone:
            return [lone]
    han = not part.isascii() and number_words.HAN.search(part) is not None
    if (len(numbers) == 1 and not han) or len(numbers) > MAX_NUMBERS or len(part) > LONGEST_SENTENCE:
        return numbers
    spans = date_spans(part)
    apart = [number for number in numbers if not _is_aside(number, part, spans)]
    if not apart and han:  # 2019年为五千
        apart = [n for n in number_words.chinese_numbers(part, True, MAX_NUMBERS) if not _is_aside(n, part, spans)]
    if all(map(_may_be_year, apart)) and len(numbers) > 1:
        apart = [number for number in numbers if _may_be_year(number)]  # "2019 and 2018": years are what is said
    return apart or numbers


def _may_be_year(number: Number) -> bool:
    return number.factor == 1.0 and 1900 <= number.value <= 2100 and number.half_unit == 0.5


def _is_aside(number: Number, text: str, dates: Sequence[tuple[int, int]]) -> bool:
    """Whether a number beside others is a year, part of a date, an ordinal, or part of a name."""
    before = text[max(number.start - 12, 0) : number.start]
    if _NAME.search(before) or _ORDINAL.match(text, number.end):
        return True
    if any(start <= number.start + 1 < end for start, end in dates):
        return True
    if not _may_be_year(number) or number.end - number.start > 5:
        return False
    return text[number.end : number.end + 1] == "年" or _YEAR.search(before) is not None


def _currency(text: str) -> str | None:
    """The one currency that a text names; None for none or several. A dollar sign alone may be LaTeX's."""
    found = {_CURRENCY_OF[word] for word in _CURRENCY.findall(text)}
    return found.pop() if len(found) == 1 else None
