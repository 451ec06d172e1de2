"""Dates and periods.

>>> texts = ("December 31, 2019", "2019年12月31日", "2019-12-31", "3Q19", "2019年第三季度", "FY2019")
>>> for text in texts:
...     print([tuple(date) for date in read_date(text)])  # year, month, day, quarter, half
[(2019, 12, 31, 0, 0)]
[(2019, 12, 31, 0, 0)]
[(2019, 12, 31, 0, 0)]
[(2019, 0, 0, 3, 0)]
[(2019, 0, 0, 3, 0)]
[(2019, 0, 0, 0, 0)]
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from finr1.answer import number_words

_MONTHS = {
    name: n
    for n, names in enumerate(
        (("jan", "january"), ("feb", "february"), ("mar", "march"), ("apr", "april"), ("may",), ("jun", "june"),
         ("jul", "july"), ("aug", "august"), ("sep", "sept", "september"), ("oct", "october"), ("nov", "november"),
         ("dec", "december")),
        1,
    )
    for name in names
}  # fmt: skip
_ORDINALS = {"first": 1, "second": 2, "third": 3, "fourth": 4, "1st": 1, "2nd": 2, "3rd": 3, "4th": 4}

_ORDINALS |= {"一": 1, "二": 2, "三": 3, "四": 4, "上": 1, "下": 2, "1": 1, "2": 2, "3": 3, "4": 4}

_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_ORDINAL_PATTERN = "|".join(sorted((o for o in _ORDINALS if o.isascii()), key=len, reverse=True))
_YEAR = r"(?:19|20)\d\d"
_HAN = "〇零一二三四五六七八九十"
_FORMATS = (
    rf"(?P<y1>{_YEAR})\s?[-/.]\s?(?P<m1>\d{{1,2}})\s?[-/.]\s?(?P<d1>\d{{1,2}})(?!\d)",
    rf"(?P<y2>{_YEAR})(?P<m2>0[1-9]|1[0-2])(?P<d2>[0-2]\d|3[01])(?!\d)",
    rf"(?P<a3>\d{{1,2}})[-/.](?P<b3>\d{{1,2}})[-/.](?P<y3>{_YEAR})(?!\d)",
    rf"(?P<M4>{_MONTH})\.?\s(?P<d4>\d{{1,2}})(?:st|nd|rd|th)?(?!\d)(?:\s?,?\s(?P<y4>{_YEAR}))?",
    rf"(?P<d5>\d{{1,2}})(?:st|nd|rd|th)?\s(?:of\s)?(?P<M5>{_MONTH})\.?(?![a-z])(?:\s?,?\s(?P<y5>{_YEAR}))?",
    rf"(?P<M6>{_MONTH})\.?\s?,?\s(?P<y6>{_YEAR})",
    rf"(?P<y7>\d{{4}}|[{_HAN}]{{4}})年(?:第?(?P<q7>[一二三四1-4])季度?|(?P<h7>[上下])半年|(?P<m7>\d{{1,2}}|[{_HAN}]{{1,3}})月"
    rf"(?:份|(?P<d7>\d{{1,2}}|[{_HAN}]{{1,3}})[日号])?)?度?",
    rf"(?P<m8>\d{{1,2}}|[{_HAN}]{{1,3}})月(?P<d8>\d{{1,2}}|[{_HAN}]{{1,3}})[日号]",
    rf"(?P<q9>[1-4])q\s?'?(?P<y9>{_YEAR}|\d\d)(?!\d)|q(?P<q10>[1-4])\s?(?:of\s|,\s?)?'?(?P<y10>{_YEAR}|\d\d)(?!\d)",
    rf"(?P<y11>{_YEAR})\s?-?\s?q(?P<q11>[1-4])",
    rf"(?:the\s)?(?P<q12>{_ORDINAL_PATTERN})[-\s]quarter\s(?:of\s)?(?:fiscal\s)?(?P<y12>{_YEAR})",
    rf"h(?P<h13>[12])\s?(?P<y13>{_YEAR})|(?:the\s)?(?P<h14>first|second)\shalf\s(?:of\s)?(?P<y14>{_YEAR})",
    rf"(?:fy\s?|fiscal\s(?:year\s)?|the\syear\s|year\s)?(?P<y15>{_YEAR})(?!\d)",
)
_WHOLE_DATE = re.compile("|".join(f"(?:{form})" for form in _FORMATS), re.IGNORECASE)
_DATE_IN_TEXT = re.compile(r"(?<![a-z\d.])(?:" + "|".join(f"(?:{form})" for form in _FORMATS[:-1]) + ")", re.IGNORECASE)
_BEFORE_DATE = re.compile(
    r"(?:as of|on|by|in|until|since|from|the year ended|year ended|ended|for|截至|截止|于|在|到)\s?", re.IGNORECASE
)
_MAX_CHARS = 60


class Date(NamedTuple):
    """A date or period; 0 for a part that is not given. `quarter` is 1 to 4, `half` 1 or 2."""

    year: int = 0
    month: int = 0
    day: int = 0
    quarter: int = 0
    half: int = 0


def read_date(text: str) -> frozenset[Date]:
    """The date that a whole cleaned text is: two readings for `03/04/2019`, none for a text that is not a date."""
    plain = text.strip(" .,;。:()[]\"'$\n")
    if len(plain) > _MAX_CHARS:
        return frozenset()
    lead = _BEFORE_DATE.match(plain)
    match = _WHOLE_DATE.fullmatch(plain, lead.end() if lead else 0)
    if not match:
        return frozenset()
    parts = {name: value for name, value in match.groupdict().items() if value is not None}
    values = {name.rstrip("0123456789"): _value(name, value) for name, value in parts.items()}
    month = values.get("m") or values.get("M") or 0
    if "a" in values:
        pairs = {(values["a"], values["b"]), (values["b"], values["a"])}
        return frozenset(Date(values["y"], m, d) for m, d in pairs if 1 <= m <= 12 and 1 <= d <= 31)
    date = Date(values.get("y", 0), month, values.get("d", 0), values.get("q", 0), values.get("h", 0))
    return frozenset((date,)) if date.month <= 12 and date.day <= 31 else frozenset()


def _value(name: str, text: str) -> int:
    plain = text.lower()
    if name[0] == "M":
        return _MONTHS[plain]
    if name[0] in "qh":
        return _ORDINALS[plain]
    value = int(plain) if plain.isdecimal() else number_words.chinese_integer(plain) or 0
    return 2000 + value if name[0] == "y" and value < 100 else value


def same_date(answer: frozenset[Date], gold: frozenset[Date]) -> bool | None:
    """Whether two dates are the same; None where one is less precise than the other, or ambiguous.

    >>> year, day, other = (read_date(text) for text in ("2019", "2019-12-31", "2018-12-31"))
    >>> same_date(day, day), same_date(year, day), same_date(other, day)
    (True, None, False)
    """
    if len(answer) == len(gold) == 1 and answer == gold:
        return True
    return None if any(_compatible(one, other) for one in answer for other in gold) else False


def _compatible(one: Date, other: Date) -> bool:
    """Whether two dates agree in all parts that both give."""
    return all(a == b or not a or not b for a, b in zip(one, other, strict=True))


@lru_cache(maxsize=256)  # read once to choose the numbers, once to doubt them
def date_spans(text: str) -> tuple[tuple[int, int], ...]:
    """Start and end of each date in a cleaned text, except for years alone."""
    return tuple(match.span() for match in _DATE_IN_TEXT.finditer(text))
