"""Numbers in words.

>>> for text in ("一百二十三", "三点五亿", "百分之二十", "三成半", "五分之一", "负三分之二"):
...     print(text, [round(number.value, 4) for number in chinese_numbers(text, True)])
一百二十三 [123.0]
三点五亿 [350000000.0]
百分之二十 [0.2]
三成半 [0.35]
五分之一 [0.2]
负三分之二 [-0.6667]
>>> [english_number(text).value for text in ("twenty-five percent", "two and a half million", "minus three quarters")]
[0.25, 2500000.0, -0.75]
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import islice

from finr1.answer.units import DENOMINATORS, PERCENT, Number, fraction_half_unit

_DIGIT = dict(
    zip(
        "零〇一二两兩倆三四五六七八九壹贰貳叁叄肆伍陆陸柒捌玖",
        (0, 0, 1, 2, 2, 2, 2, *range(3, 10), 1, 2, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9),
        strict=True,
    )
)
_POWERS = {"十": 10, "拾": 10, "百": 100, "佰": 100, "千": 1000, "仟": 1000}
_MYRIADS = {"万": 10**4, "萬": 10**4, "亿": 10**8, "億": 10**8, "兆": 10**12}
_MULTIPLIER = _POWERS | _MYRIADS
_DIGITS, _NUMERALS = "".join(_DIGIT), "".join((*_DIGIT, *_POWERS, *_MYRIADS))
HAN = re.compile(f"[{_NUMERALS}]|半")
_NOT_OTHER_WORD = r"(?![本功立为為长長员員交都熟分果效就旧舊扣算现現合])"  # 成本, 成立, 折旧 … are words of their own


# possessive: a run of numerals is read once, whatever follows
_CHINESE_NUMBER = re.compile(
    rf"(?P<minus>[负負]|(?<![\w)%])-)?(?:(?P<whole>(?<!\d)\d++|[{_NUMERALS}]++)又)?"
    rf"(?:(?P<under>(?<!\d)\d++|[{_NUMERALS}]++)分之(?P<minus2>[负負])?)?"
    rf"(?P<body>[{_NUMERALS}]++)(?:[点點](?P<tail>[{_DIGITS}]++))?(?P<some>[余多几幾來来])?(?P<big>[万萬亿億兆]{{1,2}})?"
    rf"(?:(?P<unit>个百分点|個百分點|百分点|个基点|个千分点|%|‰)|(?P<tenth>[成折]){_NOT_OTHER_WORD}(?P<more>半"
    rf"|[{_DIGITS}])?)?"
)
FRACTION_OF = re.compile(  # 百分之20, 16分之5: the denominator of digits that follow
    rf"(?<![\d{_NUMERALS}])(?P<minus>[-负負])?(?:(?P<whole>\d++|[{_NUMERALS}]++)又)?(?P<under>\d++"
    rf"|[{_NUMERALS}]++)\s?分之\s?[-负負]?(?=\d|\.\d)"
)
# what may stand before a single numeral that counts something: not 第一
_BEFORE_SINGLE = re.compile(r"[约為为是共计達达有：:=\s,、(]")
_AFTER_SINGLE = "元块圆角毛个個倍年月日天次家只股份人名位项項条笔张万亿%点號号岁季周期辆台套件亩吨斤克米美港欧英"
_RANGE, _MULTIPLE = tuple("到至-~"), (*_DIGIT, *_POWERS)  # 三到五年
_HALF = re.compile(  # 一半, 半年, 半个百分点; not 上半年
    r"(?:^|[约為为是共計计达達\s,:(])一?半(?:个?(?P<unit>百分点|[万亿成])|(?=个[月小]|[年天月小数]|[。.,)\s]|$))"
)
_AND_A_HALF = re.compile(r"个?[年月天周倍]?半(?!年|导|数)(?P<points>个?百分点)?")


def chinese_numbers(text: str, all_kinds: bool, most: int | None = None) -> Iterator[Number]:
    """The numbers in Chinese numerals of a cleaned text.

    Args:
        text: cleaned text.
        all_kinds: False reads only fractions (百分之二十, 五分之一).
        most: look at most at this many runs of numerals.
    """
    for match in islice(_CHINESE_NUMBER.finditer(text), most):
        if all_kinds or match["under"]:
            number = _number_from_match(match, text)
            if number:
                yield number
    half = _HALF.search(text) if all_kinds and "半" in text else None
    if half:
        factor = {"百分点": 0.01, "成": 0.1, **_MYRIADS}.get(half["unit"], 1.0)
        yield Number(0.5, fraction_half_unit(0.5), 1.0, half.start(), half.end()).times(factor)
    if text.strip() in _MULTIPLIER and all_kinds:
        yield Number(float(_MULTIPLIER[text.strip()]), 0.5, 1.0, 0, len(text))


def and_a_half(number: Number, text: str) -> Number:
    """The number with the half after its counter: 两年半 is 2.5; any other as it is."""
    half = _AND_A_HALF.match(text, number.end)
    if half is None or number.value % 1:
        return number
    value = number.value + math.copysign(0.5 * number.factor, number.value)
    number = number._replace(value=value, half_unit=0.1 * number.half_unit, end=half.end())
    return number.times(0.01) if half["points"] else number


def denominator_factor(under: str) -> float | None:
    """What `<under>分之` multiplies by; None for what is not a denominator.

    >>> denominator_factor("百"), denominator_factor("五"), denominator_factor("16")
    (0.01, 0.2, 0.0625)
    """
    if under in DENOMINATORS:
        return DENOMINATORS[under]
    value = float(under) if under.isdecimal() and len(under) < 300 else chinese_integer(under)
    return 1 / value if value else None


def _number_from_match(match: re.Match[str], text: str) -> Number | None:
    """The number of a match of `_CHINESE_NUMBER`; None for numerals that are not one (一切, 二三十)."""
    body, tail, tenth = match["body"], (match["tail"] or "")[:15], match["tenth"]
    marked = match["under"] or match["unit"] or tenth or tail or match["whole"]
    if len(body) == 1 and not marked and not _counts_something(match, text):
        return None
    whole = float(_MULTIPLIER[body]) if match["under"] and body in _MULTIPLIER else chinese_integer(body)
    if whole is None or (match["big"] and not (tail or match["some"])):
        return None
    value = whole + sum(_DIGIT[c] * 10.0 ** -(i + 1) for i, c in enumerate(tail))
    factor, half_unit = 1.0, 0.5 * 10.0 ** -len(tail)
    for char in match["big"] or "":
        factor *= _MYRIADS[char]
    if match["unit"]:
        factor *= PERCENT[match["unit"]]
    if tenth:
        more = match["more"]
        value += 0.5 if more == "半" else _DIGIT[more] / 10 if more else 0.0
        half_unit = 0.05 if more else half_unit
        factor = 0.1 if value <= 10 or tenth == "成" else 0.01
    if match["under"]:
        fraction = denominator_factor(match["under"])
        if fraction is None:
            return None
        if match["under"] in DENOMINATORS:  # a unit like %
            factor *= fraction
        else:
            value *= fraction
            half_unit = fraction_half_unit(value)
    if match["whole"]:
        added = float(match["whole"]) if match["whole"].isdecimal() else chinese_integer(match["whole"])
        if added is None:
            return None
        value += added
    if not math.isfinite(value):
        return None
    negative = bool(match["minus"]) != bool(match["minus2"])
    return Number(-value if negative else value, half_unit, 1.0, match.start(), match.end()).times(factor)


def _counts_something(match: re.Match[str], text: str) -> bool:
    """Whether a single numeral is a number, not part of a word (一切, 第一, 十分)."""
    before, after = text[max(match.start() - 8, 0) : match.start()].strip(), text[match.end() : match.end() + 1]
    if match["body"] not in _DIGIT and match["body"] not in "十拾":
        return False
    if after in ("角", "毛", "分") and before[-1:] in ("元", "块", "圆", "角", "毛"):
        return True  # 七元八角
    if before[-1:] == "块" and before[-2:-1] in _DIGIT and not after.isalnum():
        return True  # 三块五
    if after in _RANGE and text[match.end() + 1 : match.end() + 2] in _MULTIPLE:
        after = ""
    if after.isalnum() and after not in _AFTER_SINGLE:
        return False
    if before[-1:] in _RANGE and before[-2:-1] in _MULTIPLE:
        return True
    return not before or match["minus"] is not None or _BEFORE_SINGLE.match(text[match.start() - 1]) is not None


def chinese_integer(body: str) -> int | None:
    """The integer of a run of Chinese numerals; None where it is not one, or longer than 30 characters.

    Two digits side by side among powers of ten (二三十, "twenty or thirty") are an estimate, not a number.

    >>> [chinese_integer(text) for text in ("一百二十三", "二〇二四", "三万五千", "一万三", "二三十")]
    [123, 2024, 35000, 13000, None]
    """
    if not body or len(body) > 30:
        return None
    if all(c in _DIGIT for c in body):
        return int("".join(str(_DIGIT[c]) for c in body))
    if body[0] in _MULTIPLIER and body[0] not in "十拾":
        return None
    total = section = digit = 0
    unit, before = 1, ""  # the power of ten and the character last read
    for char in body:
        if char in _DIGIT:
            if _DIGIT.get(before):
                return None
            digit = _DIGIT[char]
            unit = unit if digit else 1  # 一千零五: a digit after a zero counts ones
        elif char in _POWERS:
            section += (digit or (1 if char in "十拾" else 0)) * _POWERS[char]
            digit, unit = 0, _POWERS[char]
        elif char not in _MYRIADS:
            return None
        else:
            unit, section = _MYRIADS[char], section + digit
            multiplies_all = total < unit or not section  # 一万亿, 四万万
            total = (total + section) * unit if multiplies_all else total + section * unit
            section = digit = 0
        before = char
    return total + section + digit * (unit // 10 if unit >= 100 and before in _DIGIT else 1)


_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SMALL = {word: float(n) for n, word in enumerate(_ONES)} | {word: 10.0 * n for n, word in enumerate(_TENS, 2)}
_THOUSANDS = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12, "dozen": 12.0}
_FRACTIONS = {"half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fifth": 5, "fifths": 5}
_FRACTIONS |= {"fourth": 4, "fourths": 4, "sixth": 6, "sixths": 6, "eighth": 8, "eighths": 8}

_FRACTIONS |= {"tenth": 10, "tenths": 10}

_ENGLISH_UNITS = {
    "percent": 1e-2,
    "per cent": 1e-2,
    "percentage points": 1e-2,
    "percentage point": 1e-2,
    "basis points": 1e-4,
    "percentage": 1e-2,
}
_BEFORE_NUMBER = re.compile(
    r"(?:about|approximately|around|roughly|exactly|only|nearly|a total of|it is|is|usd|the)\s+"
)
_AFTER_NUMBER = re.compile(
    r"\s+(?:(?:us |u\.s\. )?dollars?|usd|euros?|pounds?|yuan|rmb|yen|years?|months?|days?|shares?|times|people"
    r"|units)$"
)
_HALF_OF = {("half", "a"): 0.5, ("half", "of", "a"): 0.5, ("quarter", "of", "a"): 0.25}
_ANY_NUMBER_WORD = re.compile(
    r"\b(?:" + "|".join((*_SMALL, *_THOUSANDS, "hundred", "half", "quarter", "third")) + r")", re.I
)
_MAX_ENGLISH_CHARS = 200


def english_number(text: str) -> Number | None:
    """The number that a whole English text is, unit words included; None for any other text.

    >>> english_number("two and a half million dollars").value, english_number("five or six")
    (2500000.0, None)
    """
    if len(text) > _MAX_ENGLISH_CHARS or not _ANY_NUMBER_WORD.search(text):
        return None
    plain = text.casefold().strip(" .!$")
    plain = _AFTER_NUMBER.sub("", _BEFORE_NUMBER.sub("", plain))
    sign = 1.0
    for word in ("minus ", "negative "):
        if plain.startswith(word):
            plain, sign = plain.removeprefix(word), -1.0
    factor = 1.0
    for unit, size in _ENGLISH_UNITS.items():
        if plain.endswith(f" {unit}"):
            plain, factor = plain.removesuffix(f" {unit}"), size
            break
    tokens = re.findall(r"[a-z]+|[^a-z\s-]", plain)
    while tokens and tokens[-1] in _THOUSANDS:
        size = _THOUSANDS[tokens[-1]]
        if any(_THOUSANDS.get(word, 0.0) > size for word in tokens):
            break  # two million five thousand: added, not multiplied
        factor *= size
        tokens.pop()
    tokens = ["one"] if tokens in (["a"], ["an"]) and factor > 1 else tokens  # a million
    value_and_half_unit = _english_value(tokens)
    if value_and_half_unit is None:
        return None
    value, half_unit = value_and_half_unit
    return Number(sign * value, half_unit, 1.0, 0, len(text)).times(factor)


_RUN = re.compile(
    rf"\b(?:a\s)?(?:{'|'.join((*_SMALL, *_THOUSANDS, *_FRACTIONS, 'hundred'))})"
    rf"(?:(?:[\s-]|\sand\s|\sand\sa\s)(?:{'|'.join((*_SMALL, *_THOUSANDS, *_FRACTIONS, 'hundred'))})\b){{0,9}}"
    r"(?:\s(?:percent(?:age points)?|per cent|basis points))?(?![\w-])",
    re.IGNORECASE,
)
_SHARE = re.compile(rf"\b({'|'.join(_SMALL)})\s(?:in|out\sof)\s(?:every\s)?({'|'.join(_SMALL)})\b", re.IGNORECASE)
_NOT_COUNTED = re.compile(
    r"(?:one|half|thirds?|fourths?|quarters?|fifths?|sixths?|eighths?|tenths?|halves"
    r"|a third|a quarter|a fifth|a tenth|a half)",
    re.I,
)
_OF = re.compile(r"\s(?:of|dozen|couple|half|another|day|should|can|could|may|might|must|or|in)\b")


def english_numbers(text: str) -> list[Number]:
    """The numbers in words among other English words: "three segments"; not "one of them", "the third quarter"."""
    if len(text) > _MAX_ENGLISH_CHARS or not text.isascii():
        return []
    found: list[Number] = []
    share = _SHARE.search(text)
    if share:
        value = _SMALL[share[1].lower()] / max(_SMALL[share[2].lower()], 1.0)
        return [Number(value, fraction_half_unit(value), 1.0, share.start(), share.end())]
    for run in _RUN.finditer(text):
        number = english_number(run.group())
        vague = _NOT_COUNTED.fullmatch(run.group()) is not None
        is_of = _OF.match(text, run.end()) is not None
        if number and (not vague or is_of != (run.group().lower() == "one")):
            found.append(number._replace(start=run.start(), end=run.end()))
    return found


_VAGUE = (  # words that may stand for a number
    (0.0, r"\b(?:none|nil|no|nothing|unchanged|flat|break-?even)\b|没有|无|不变|持平|零增长|未变|没变"),
    (0.5, r"\b(?:half|halved|one half)\b|减半|折半|对[半折]"),
    (1.0, r"\b(?:doubl(?:ed?|es|ing)|single|once)\b|翻一?番|翻倍|翻了一番|增长一倍"),
    (2.0, r"\b(?:twice|doubl(?:ed?|es|ing)|two-?fold|couple|pair|both)\b|翻一?番|翻倍|翻了一番|双倍|加倍|两倍"),
    (3.0, r"\b(?:thrice|tripl(?:ed?|es|ing)|three-?fold)\b"),
    (4.0, r"\b(?:quadrupl(?:ed?|es|ing)|four-?fold)\b|翻两番|翻了两番"),
    (10.0, r"\bten-?fold\b"),
    (12.0, r"\bdozen\b|一打"),
)
_VAGUE_WORDS = tuple((value, re.compile(pattern, re.IGNORECASE)) for value, pattern in _VAGUE)


def vague_numbers(text: str) -> list[Number]:
    """The numbers that words of a short text may stand for: twice, none, 翻番, 持平."""
    if len(text) > _MAX_ENGLISH_CHARS:
        return []
    return [
        Number(value, fraction_half_unit(value), 1.0, 0, len(text)) for value, word in _VAGUE_WORDS if word.search(text)
    ]


def _english_value(tokens: list[str]) -> tuple[float, float] | None:
    """The value of number words and half of its last digit; None if any other word is among them."""
    if tuple(tokens) in _HALF_OF:  # half of a million: the caller multiplies by the million
        return _HALF_OF[tuple(tokens)], fraction_half_unit(0.25)
    total = section = 0.0
    last = ""
    if "point" in tokens:
        at = tokens.index("point")
        whole, decimals = _english_value(tokens[:at] or ["zero"]), [_SMALL.get(word, 99.0) for word in tokens[at + 1 :]]
        if whole is None or not decimals or max(decimals) > 9:
            return None
        places = enumerate(decimals, 1)
        return whole[0] + sum(digit * 10.0**-i for i, digit in places), 0.5 * 10.0 ** -len(decimals)
    if tokens[-3:-1] == ["and", "one"] and tokens[-1] in _FRACTIONS:  # two and one half
        tokens = [*tokens[:-2], "a", tokens[-1]]
    for i, word in enumerate(tokens):
        if word in _SMALL:
            if last in _SMALL and not (_SMALL[last] >= 20 and 0 < _SMALL[word] < 10):
                return None  # "five six", "twenty thirty"
            section += _SMALL[word]
        elif word == "hundred" and last != "hundred":
            section = (section or 1.0) * 100
        elif word in _THOUSANDS:
            total, section = total + (section or 1.0) * _THOUSANDS[word], 0.0
        elif word in _FRACTIONS and i == len(tokens) - 1:
            if section == 0 or last in ("a", "an"):
                value = total + section + 1 / _FRACTIONS[word]
                return value, fraction_half_unit(value)
            if total == 0 and word.endswith("s") == (section > 1):
                return section / _FRACTIONS[word], fraction_half_unit(section / _FRACTIONS[word])  # three quarters
            return None
        elif word in ("a", "an"):
            if i + 1 == len(tokens) or tokens[i + 1] in _SMALL:
                return None
        elif word != "and" or i == 0 or i + 1 == len(tokens):
            return None
        last = word
    return (total + section, 0.5 * _THOUSANDS.get(last, 1.0)) if tokens else None
