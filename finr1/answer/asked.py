"""The unit and the digits that a question asks its answer in.

>>> read_asked("Revenue (in thousands) was 5. What is the margin? Answer as a percentage to two decimal places.")
Asked(unit='%', step=0.01)
>>> read_asked("What was the net loss in millions of dollars, to the nearest integer?")
Asked(unit='million', step=1.0)
>>> read_asked("净利润是多少？（单位：亿元，保留两位小数）")
Asked(unit='亿', step=0.01)
>>> read_asked("Sales were $ 5 million, rounded to the nearest thousand. Who wrote the report?")
Asked(unit='', step=0.0)
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from finr1.answer.clean import clean
from finr1.answer.units import SCALE, one_of
from finr1.answer.words import last_match
from finr1.core.types import Question

NEAR = 1_000  # characters at the start and at the end of a prompt that are read
END = 200  # at the end, where the question itself usually is


class Asked(NamedTuple):
    """What a question asks for.

    Attributes:
        unit: a percent sign or scale word, such as `%`, `million`, `亿`; empty: none.
        step: what the answer is rounded to, in that unit: 0.01 for two decimal places; 0.0: not said.
    """

    unit: str = ""
    step: float = 0.0


NOTHING = Asked()
_MAY_ASK = re.compile(
    r"[%％位万亿百千整]|percent|basis p|bps|housand|illion|000s|decimal|digits|nearest|closest|integer|whole num|精确"
)
_CELL_ENDS = ("|", "\t", "</td>")
_SENTENCE = re.compile(r"(?<=[.?!])\s+|(?<=[?!。;])|\\n|\n")
# a context states figures; a question asks, or says how to answer
_ASKS = re.compile(
    r"\?|\b(?:what|how (?:much|many)|answer)\b|^\W*(?:(?:please|kindly|and|then|also)\W+)*(?:calculate|compute"
    r"|determine|find|estimate|express|provide|report|round|give|state|output)\b"
    r"|多少|几(?!乎)|(?<!任)何|(?<!要)求|计算|请|回答|答案|结果|单位|保留|精确|四舍五入|表示"
)
_SCALE_WORDS = one_of(word for word in SCALE if not word.isascii() or len(word) > 3)
_PERCENT_WORDS = r"percent(?:ages?|ual|s)?\b|per\scent\b|%"
_BASIS_POINTS = r"basis\spoints|bps\b"
_UNIT = re.compile(
    rf"(?:\b(?:as|in|into|how\smany)\s?|\()(?:(?:an?|the|annual|annualized|positive|units?|of)\s)*"
    rf"(?:(?P<percent>{_PERCENT_WORDS})|(?P<basis>{_BASIS_POINTS}))"
    rf"|\b(?:what|how\s(?:many|much))\s(?:[a-z]+\s){{0,3}}(?P<what>{_PERCENT_WORDS})(?!\srate)"
    r"|(?:\b(?:as|in|how many)\s|\(\s?)(?:(?:the|units?|of|u\.?s\.?|dollars?|usd|eur|rmb|cny|us\$|[$€£¥])\s?)*"
    rf"(?:'?(?P<thousands>000s?)\b|(?P<scale>{_SCALE_WORDS}))"
    rf"|(?:单位[:为是]?\s?|以|多少|\()(?:人民币|美元|港元)?(?P<han>{_SCALE_WORDS}|%)(?=[元美港股份个人吨,)。?;:为计\s表]|$)"
    r"|(?P<hundredths>百分(?:之几|之多少|比(?=[形的表来是为。,?)]|$)|数)|(?:多少|几)个百分点)"
)
_COUNTS = {
    **{word: n for n, word in enumerate(("zero", "one", "two", "three", "four", "five", "six"))},
    **{word: n for n, word in enumerate(("first", "second", "third", "fourth", "fifth", "sixth"), 1)},
    **{word: n for n, word in enumerate("零一二三四五六")}, "两": 2, "single": 1,
}  # fmt: skip
_COUNT = rf"\d|{'|'.join(_COUNTS)}"
_PLACES = {"cent": 0.01, "penny": 0.01, "tenth": 0.1, "hundredth": 0.01, "thousandth": 1e-3, "ten": 10.0}
_STEP = re.compile(
    rf"\b(?P<decimals>{_COUNT})\s?-?\s?(?:decimals?|digits? after the decimal|d\.?p\b)"
    r"|\b(?:nearest|closest)\s(?:(?:whole|full)\s)*(?:(?P<size>\d*\.?\d+)|(?P<place>[a-z]+))"
    r"|(?P<whole>\b(?:whole|round)\snumber|\bas\san?\sinteger|\binteger\svalue|(?:保留|取)整数|取整|四舍五入[到至为]?整数"
    r"|精确[到至]?(?:个位|整数|[1一]?元))"
    rf"|(?:保留|精确|小数点?后)(?:[到至为]|小数点?后|小数)*(?P<digits>{_COUNT})位(?!有效)|(?P<places>{_COUNT})位小数"
    r"|精确[到至](?P<exact>0\.0*1)|精确[到至](?P<coin>[角分])"
)


def asked_of(question: Question) -> Asked:
    """What a question asks for: what its source states (`meta["unit"]`), else what its last message says."""
    meta = question.meta
    if "unit" in meta and meta.get("tolerance", "shown") != "shown":
        return Asked(str(meta["unit"]))
    content = question.prompt[-1]["content"] if question.prompt else ""
    for start, end in reversed(question.context):
        content = f"{content[:start]}\n{content[end:]}"
    # the question stands at the end or, before a context, at the start
    asked = read_asked(content if len(content) <= 2 * NEAR else f"{content[:NEAR]}\n{content[-NEAR:]}")
    return asked._replace(unit=str(meta["unit"])) if "unit" in meta else asked


@lru_cache(maxsize=4096)  # once per question, not per answer
def read_asked(text: str) -> Asked:
    """The last unit and the last rounding in those sentences of a text that ask; lines of tables are left out."""
    if _MAY_ASK.search(text) is None:
        return NOTHING
    prose = "\n".join(line for line in text.split("\n") if not any(end in line for end in _CELL_ENDS))
    asking = "\n".join(part for part in _SENTENCE.split(clean(prose).lower()) if part and _ASKS.search(part))
    unit, step = last_match(_UNIT, asking), last_match(_STEP, asking)
    return Asked(_unit(unit) if unit else "", _step(step) if step else 0.0)


def _unit(match: re.Match[str]) -> str:
    if match.lastgroup in ("percent", "what", "hundredths"):
        return "%"
    if match.lastgroup == "basis":
        return "bps"
    return "thousand" if match.lastgroup == "thousands" else match[match.lastgroup or 0].rstrip("s")


def _step(match: re.Match[str]) -> float:
    kind, shown = match.lastgroup, match[match.lastgroup or 0]
    if kind in ("decimals", "digits", "places"):
        return 10.0 ** -(int(shown) if shown.isdigit() else _COUNTS[shown])
    if kind in ("size", "exact"):
        return float(shown)
    if kind == "place":
        return _PLACES.get(shown.rstrip("s"), SCALE.get(shown, 1.0))
    return {"角": 0.1, "分": 0.01}.get(shown, 1.0)
