"""Why a number that equals the gold may not be the answer, and why one that does not may be: the words beside it.

>>> texts = ("more than 5%", "5% or less", "5% is wrong", "a decline of 5%", "e^5%", "page 5")
>>> for text in texts:
...     print(why_doubtful(read_numbers(text)[0], text, facts_of("5%")))
a bound, not a number
a bound, not a number
denied, or not certain
the sign depends on the words around it
the argument of a function
part of a name or a date
>>> [number.value for number in other_readings(read_numbers("3.4 m")[0], "3.4 m", facts_of("5"))]
[3400000.0]
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from finr1.answer.asked import END
from finr1.answer.candidates import ORDINAL, ends_in_name
from finr1.answer.clean import clean
from finr1.answer.date import date_spans
from finr1.answer.number import read_numbers
from finr1.answer.units import LETTER, UNITS, Number, one_of
from finr1.answer.words import any_of, last_match
from finr1.core.types import Question

NEAR = 60  # characters beside a number that are read
WORDS_BEFORE = 24  # of them, those that may hold a bound, a denial or a function that ends at the number

FALL = any_of("""
    decreas* declin* fell fall falls fallen falling drop* reduc* lower* loss losses lost lose loses losing down downward
    downturn negative contracted contraction contracting shrink* shrank shrunk slip* slid slides sliding plung* plummet*
    tumbl* worsen* deteriorat* dip dips dipped sink* sank sunk retreat* weaken* slump* diminish* dwindl* collaps* crash*
    shed deficit outflow outflows depreciat* eased reced* erod* narrows narrowed narrowing pullback cut cuts cutting
    trimmed slash* devalu* compress* soften* setback* nosediv* crater* drawdown* underperform* shortfall
    overdrawn overdraft
    """)
FALL_HAN = (
    any_of("""
    下降 减少 降低 下跌 亏损 亏 缩减 负增长 下滑 回落 跌幅 降幅 减幅 萎缩 收缩 缩水 缩小 走低 走弱 下挫 下行 下调 调低
    削减 滑落 滑坡 恶化 贬值 净流出 赤字 逆差 损失 收窄 减亏 少了 减了 衰退 重挫 锐减 骤减 剧减 递减 倒退 短缺 透支 缺口
    """)
    + "|负(?![债担责荷])|降(?![准级息本])|(?<!涨)跌(?!停)"
)
_FALL_DIRECTLY = r"(?<![多至不最增])[少低减](?=\s?(?:\d|$))"  # 比上年低5%
_FALLING = re.compile(rf"\b(?:{FALL}|below)\b|{FALL_HAN}|{_FALL_DIRECTLY}|[↓▼⬇🔻📉⇩↘▽△▲]", re.IGNORECASE)
_RISING = r"increas|rise|rose|rising|grew|grow|gain|climb|improv|up\b|profit of|增|升|涨|提高|盈利"
_LEVEL = (
    r"\b(?:to|from|but|and|despite|after|before|due|because|than|offset|while|with|excluding)\b|[至到自]|由于|因为|但"
)
# a word of growth between such a word and the number undoes it, as does "to", which gives a level
_FALLING_BEFORE = re.compile(
    rf"(?:\b(?:negative growth|{FALL})\b|{FALL_HAN}|{_FALL_DIRECTLY})"
    rf"(?:(?!{_RISING}|{_LEVEL})[^\d,.;:!?。、\n]){{0,40}}[:\s]?$"
    r"|[↓▼⬇🔻📉⇩↘▽△▲]\s?[$€£¥]?$",
    re.IGNORECASE,
)
_RISING_BEFORE = re.compile(rf"(?:{_RISING})[^\d,.;:!?。、\n]{{0,30}}$|[↑⬆]\s?$", re.IGNORECASE)
_FALLING_AFTER = re.compile(
    rf"[\s(]*(?:元|美元|dollars|usd)?(?:的|个点的?)?(?:(?!{_LEVEL})[a-z-]{{1,14}}\s){{0,3}}"
    rf"(?:(?:{FALL}|less|below|worse)\b|(?:净|同比|环比|年度?)?(?:{FALL_HAN})|[↓▼⬇🔻⇩↘▽])",
    re.IGNORECASE,
)
_TRAILING_MINUS = re.compile(r"\s?-\s*$")

_MORE = any_of("""
    more_than greater_than higher_than over above at_least exceed exceeds exceeded exceeding in_excess_of upward_of
    upwards_of north_of beyond no_less_than not_less_than no_fewer_than a_minimum_of minimum min min. at_the_least
    as_few_as a_floor_of minimum_of 超过 超出 超 大于 高于 多于 至少 最少 起码 不低于 不少于 不小于 逾 突破 ≥ ≧ ⩾ ≮
    """)
_LESS = any_of("""
    less_than fewer_than lower_than under below at_most up_to no_more_than not_more_than a_maximum_of maximum max max.
    south_of within 不到 小于 低于 少于 至多 最多 不足 不超过 不超 不高于 不大于 不多于 顶多 未达 <= < ≤
    at_the_most as_many_as not_exceeding capped_at a_ceiling_of maximum_of ≦ ⩽ ≯
    """)
_MORE_AFTER = any_of("more higher above greater over up upward upwards at_least at_a_minimum minimum later longer plus")
_LESS_AFTER = any_of("less lower below under fewer at_most at_a_maximum maximum tops max down earlier shorter")
_BOUND_BEFORE = re.compile(rf"(?:(?P<less>{_LESS})|(?P<more>{_MORE}|(?<![-=])>=?)|±):?[\s$€£¥~]*$", re.IGNORECASE)
_BOUND_AFTER = re.compile(
    r"\s?(?:元|美元|dollars|years|个|年|天|日)?\s?\(?(?:(?:or|and) )?"
    rf"(?:(?P<more>(?:{_MORE_AFTER})\b(?!\sthan)|\+(?!\s?[\d(])|[及或]?以上|之上|往上|起(?!点)|[多余](?![\d万萬亿億])|来[个家人名]|[>≥])"
    rf"|(?P<less>(?:{_LESS_AFTER})\b(?!\sthan)|[及或]?以[下内]|之下|之内|[<≤]))",
    re.IGNORECASE,
)
# what a bound after a number begins with; "5% higher" alone is a change
_BEGINS_BOUND = re.compile(
    r"\s?(?:元|美元|年|天)?\(?(?:(?:or|and) |\+|[及或]?以|之|往|起|[多余来]|at |[<>≤≥]|max|min|tops|plus)",
    re.IGNORECASE,
)

_DENIED_BEFORE = re.compile(
    r"(?:\bnot(?:\s(?:equal\sto|equals?|exactly|quite))?"
    r"|\b(?:never|anything\sbut|other\sthan|rather\sthan|instead\sof|except)"
    r"|n't(?: be)?|\bcannot be|不是|不等于|并非|非|(?<![\d!])!|[❌✗✘]"
    r"|≠|!=|=/=)[\s$€£¥]*$",
    re.IGNORECASE,
)
UNEQUAL = "said not to be the gold"
_UNEQUAL = re.compile(r"(?:≠|!=|=/=)\s?$")
_DENIED_AFTER = re.compile(
    r"\s?\?\s?no\b|吗|除外|偏[高低大小]|\s?(?:[❌✗✘]|\((?:wrong|incorrect|false)\b)"
    r"|[\s?,]*(?:is|are|was|would be|seems|是|为)?\s?(?:wrong|incorrect|false|not\b|n't\b|isn't"
    r"|impossible|too\s(?:high|low|large|small)\b|不正确|不对|错误?|不是|有误|不可能|不成立)",
    re.IGNORECASE,
)
_FUNCTION_BEFORE = re.compile(
    r"(?:√|\b(?:sqrt|lg|ln|exp|sin|cos|tan|max|min|floor|ceil)|\blog(?:_?\{?\d{1,2}\}?)?|(?<![A-Za-z])[A-Za-z]\("
    r"|[A-Za-zπ)\]}]\s?\^|_\{?$|[ΦφΓΣ∑∫π]|\\(?:int|sum|prod|lceil|lfloor|arctan|arcsin|arccos)"
    r"|(?<![A-Za-z])[A-Za-z]\s?[+×*/])[\s({\[\\]*-?$"
)
_FUNCTION_AFTER = re.compile(  # a symbol or a letter that is no unit: 5π, 5^x, 5i, 5G
    r"\s?(?:[\u0370-\u03ff]|\bpi\b|√|\^[\s{(]*(?:[A-Za-z]|-?\d*\.\d|-?\d{1,3}/)"
    r"|\\(?:alpha|beta|gamma|delta|theta|lambda|mu|rho|tau|phi|psi|omega|epsilon|log|ln|sqrt|sin|cos|exp)\b)"
    r"|[A-JLN-SU-WYZaefijlnoqruvwz](?![A-Za-z])|\s?[+×*·-]\s?[b-hj-z](?![A-Za-z])"
)
_MOST_FACTORIAL = 20  # a larger figure before `!` is a cry
_AROUND_YEAR = re.compile(  # before 2020, mid-2020, 2020s, 2020年以后
    r"\b(?:before|after|mid|late|early|pre|post|until|prior\sto)[\s-](?:19|20)\d\d$|\b(?:19|20)\d\d(?:'?s\b|\sBC|年代|年?[以之]?[前后])",
    re.IGNORECASE,
)
_YEAR_ALONE = re.compile(r"(?:the|fiscal|year|fy|\s)*(?:19|20)\d\d\s?年?度?", re.IGNORECASE)

_MEASURES = {  # group, and size in the group's unit
    **dict.fromkeys(("year", "years", "yr", "yrs", "年"), ("months", 12.0)),
    **dict.fromkeys(("quarter", "quarters", "季度", "个季度"), ("months", 3.0)),
    **dict.fromkeys(("month", "months", "个月", "月"), ("months", 1.0)),
    **dict.fromkeys(("week", "weeks", "周", "个星期"), ("days", 7.0)),
    **dict.fromkeys(("day", "days", "天", "日"), ("days", 1.0)),
    **dict.fromkeys(("hour", "hours", "hr", "hrs", "小时", "个小时"), ("days", 1 / 24)),
    **dict.fromkeys(("minute", "minutes", "mins", "分钟"), ("days", 1 / 1440)),
    **dict.fromkeys(("second", "seconds", "秒"), ("days", 1 / 86400)),
    **dict.fromkeys(("kg", "kgs", "kilogram", "kilograms", "公斤", "千克"), ("grams", 1e3)),
    "斤": ("grams", 500.0),
    **dict.fromkeys(("gram", "grams", "g", "克"), ("grams", 1.0)),
    **dict.fromkeys(("ton", "tons", "tonne", "tonnes", "t", "吨"), ("grams", 1e6)),
    **dict.fromkeys(("ounce", "ounces", "oz", "盎司"), ("ounces", 1.0)),
    **dict.fromkeys(("lb", "lbs"), ("lb", 1.0)),
    **dict.fromkeys(("km", "kilometer", "kilometers", "kilometres", "公里", "千米"), ("metres", 1e3)),
    **dict.fromkeys(("meter", "meters", "metre", "metres", "米"), ("metres", 1.0)),
    **dict.fromkeys(("mile", "miles", "英里"), ("miles", 1.0)),
    **dict.fromkeys(("barrel", "barrels", "bbl", "桶"), ("barrels", 1.0)),
    **dict.fromkeys(("gallon", "gallons", "加仑"), ("gallons", 1.0)),
    **dict.fromkeys(("kwh", "千瓦时", "度"), ("watt hours", 1e3)),
    **dict.fromkeys(("mwh", "兆瓦时"), ("watt hours", 1e6)),
    **dict.fromkeys(("kw", "千瓦"), ("watts", 1e3)),
    **dict.fromkeys(("mw", "兆瓦"), ("watts", 1e6)),
    **dict.fromkeys(("share", "shares", "股"), ("shares", 1.0)),
    **dict.fromkeys(("employee", "employees", "people", "person", "persons", "人", "名"), ("people", 1.0)),
}
_DAYS_A_MONTH = (30.0, 365 / 12)
_RATIOS = {(group, group): (1.0,) for group, _ in _MEASURES.values()} | {
    ("months", "days"): _DAYS_A_MONTH,
    ("days", "months"): tuple(1 / days for days in _DAYS_A_MONTH),
}
_MEASURE = re.compile(rf"\s?-?(?:{one_of(_MEASURES)})", re.IGNORECASE)
_TIME = ("months", "days")
_TIMES = one_of(word for word, (group, _) in _MEASURES.items() if group in _TIME)
_ASKS_TIME = re.compile(rf"\bhow\smany\s({_TIMES})|(?:多少|几)({_TIMES})", re.IGNORECASE)
_NOTED = re.compile(
    rf"\b(?:in|amounts in)\s(?:us\s?)?(?:[$€£]|dollars|usd|rmb)?\s?({one_of(UNITS)})|[\s($]000'?(s)\b"
    rf"|单位[:为是]?\s?(?:人民币)?({one_of(UNITS)})|\((?:us)?[$€£¥]\s?([kmb])n?\)",
    re.I,
)
_LOOSE_LETTER = re.compile(r"\s{1,3}([kmbtKMBT])(?![A-Za-z\d^&'])")
_CENTS = re.compile(r"\s?(?:cents?\b|¢|c\b|p\b|pence\b)")


class Facts(NamedTuple):
    """What the words of a gold say beside its number."""

    falls: bool
    bound: str
    measure: tuple[str, float] | None


def _around(number: Number, part: str) -> tuple[str, str]:
    return part[max(number.start - NEAR, 0) : number.start], part[number.end : number.end + NEAR]


_NO_FACTS = Facts(False, "", None)
_BARE = re.compile(r"-?[\d.,]+\s?%?")


@lru_cache(maxsize=8192)
def facts_of(gold_text: str) -> Facts:
    """The facts of a gold of one number."""
    plain = clean(gold_text).strip()
    numbers = [] if _BARE.fullmatch(plain) else read_numbers(plain, cleaned=True, most=1)
    if not numbers:
        return _NO_FACTS
    before, after = _around(numbers[0], plain)
    return Facts(numbers[0].value > 0 and _falls(before, after), _bound(before, after), measure_of(after))


def _falls(before: str, after: str) -> bool:
    return _FALLING_BEFORE.search(before) is not None or _FALLING_AFTER.match(after) is not None


def _bound(before: str, after: str) -> str:
    match = _BOUND_BEFORE.search(before[-WORDS_BEFORE:]) or (
        _BOUND_AFTER.match(after) if _BEGINS_BOUND.match(after) else None
    )
    return "" if match is None else match.lastgroup or "either"


def measure_of(after: str) -> tuple[str, float] | None:
    """The measure that begins the text after a number (`5 years`): its group, and its size in that group."""
    match = _MEASURE.match(after)
    return _MEASURES[match.group().strip(" -").lower()] if match else None


def why_doubtful(number: Number, part: str, gold: Facts, question: Question | None = None) -> str:
    """Why a number that equals the gold may still not mean it; empty: no doubt."""
    before, after = _around(number, part)
    if not before and (not after or after.isspace()) and not gold.falls:
        return ""
    last = before[-WORDS_BEFORE:]
    if _UNEQUAL.search(last):
        return UNEQUAL
    bound = _bound(before, after)
    if bound and bound != gold.bound:
        return "a bound, not a number"
    if _DENIED_BEFORE.search(last) or _DENIED_AFTER.match(after):
        return "denied, or not certain"
    if is_argument(number, part):
        return "the argument of a function"
    if number.value > 0:
        falls = _falls(before, after) or _TRAILING_MINUS.fullmatch(after) is not None
        rises = gold.falls and _RISING_BEFORE.search(before) is not None
        if rises or (falls != gold.falls and not _asks_for_fall(question)):
            return "the sign depends on the words around it"
    if is_named(number, part):
        return "part of a name or a date"
    return in_other_measure(after, gold.measure) if gold.measure else ""


def time_asked(question: Question, part: str, numbers: Sequence[Number]) -> tuple[str, float] | None:
    """The measure of time that a question asks for ("how many years"), where an answer gives a time."""
    asked = _time_asked(question.prompt[-1]["content"][-END:]) if question.prompt else None
    given = (measure_of(part[number.end : number.end + NEAR]) for number in numbers) if asked else ()
    return asked if any(measure and measure[0] in _TIME for measure in given) else None


@lru_cache(maxsize=4096)
def _time_asked(text: str) -> tuple[str, float] | None:
    match = last_match(_ASKS_TIME, text)
    return _MEASURES[(match[1] or match[2]).lower()] if match else None


def in_other_measure(after: str, gold: tuple[str, float] | None) -> str:
    """Why the text after a number gives it another measure than its gold has; empty: it does not."""
    measure = measure_of(after) if gold else None
    return "in another measure" if measure and measure != gold else ""


def _asks_for_fall(question: Question | None) -> bool:
    """Whether the end of a prompt, where the question itself usually is, names a decrease."""
    return (
        question is not None and bool(question.prompt) and bool(_FALLING.search(question.prompt[-1]["content"][-END:]))
    )


def may_be_negative(number: Number, part: str, gold: Facts) -> bool:
    """Whether words beside a number, or in its gold, may turn its sign."""
    if gold.falls or _FALLING.search(part if number.value > 0 else part[: number.start]):
        return True
    return number.value > 0 and _TRAILING_MINUS.fullmatch(part, number.end) is not None


def is_argument(number: Number, part: str) -> bool:
    """Whether a number is only the argument of a function or a factor of a symbol: √252, e^0.05, 42π, 10!."""
    before, after = _around(number, part)
    if (
        after.startswith("!")
        and not after.startswith("!=")
        and number.value <= _MOST_FACTORIAL
        and number.value % 1 == 0
    ):
        return True
    return _FUNCTION_BEFORE.search(before[-WORDS_BEFORE:]) is not None or _FUNCTION_AFTER.match(after) is not None


def is_named(number: Number, part: str) -> bool:
    """Whether a number is an ordinal, part of a name, part of a date or beside a year; a year alone is none."""
    before, _ = _around(number, part)
    if ends_in_name(before) or ORDINAL.match(part, number.end):
        return True
    if any(match.start() < number.end <= match.end() for match in _AROUND_YEAR.finditer(part)):
        return True
    return any(
        start < number.end <= end and not _YEAR_ALONE.fullmatch(part, start, end) for start, end in date_spans(part)
    )


def other_readings(number: Number, part: str, gold: Facts) -> Iterator[Number]:
    """Other values that a number may have: `3.4 m`, `60 cents`, `in millions: 5`, 18个月 for years."""
    if not number.bare:
        return
    letter = _LOOSE_LETTER.match(part, number.end)
    if letter:
        yield number.times(LETTER[letter[1].lower()])
    elif _CENTS.match(part, number.end):
        yield number.times(0.01)
    noted = _NOTED.search(part)
    if noted:
        word = (noted[1] or noted[3] or noted[4] or "thousand").lower()
        yield number.times(LETTER.get(word) or UNITS[word])
    end = number.end - 2 if part.startswith("半", number.end - 1) else number.end  # 一年半
    measure = measure_of(part[end : end + NEAR]) if gold.measure else None
    if measure and gold.measure and measure != gold.measure:
        for ratio in _RATIOS.get((measure[0], gold.measure[0]), ()):
            yield number._replace(value=number.value * ratio * measure[1] / gold.measure[1])
