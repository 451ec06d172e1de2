r"""The answer in `\boxed{}`, with what stands directly beside the box.

    >>> final_answer(r"so $-\boxed{5}$ million"), final_answer(r"\boxed{25}\%"), final_answer(r"\boxed{A}, \boxed{C}")
    ('-5 million', '25%', 'A, C')
    >>> read_boxes(r"\boxed{24\%} or \boxed{25\%}").either
    ('24\\%', '25\\%')

The last box counts, with those that are listed beside it on its line. All functions take time linear in the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from finr1.answer.clean import clean
from finr1.answer.doubt import FALL, FALL_HAN
from finr1.answer.units import CURRENCY, UNITS, one_of

_BRACES = re.compile(r"\\boxed\s*\{|\\[{}]|[{}]")
_DELIMITER = re.compile(r"(?<![\\A-Z])\$|\\[()\[\]]|\*\*")  # of mathematics, or bold
_REACH = 40  # characters beside a box that may belong to the answer
_NOUNS = (
    *("dollar", "dollars", "cent", "cents", "euro", "euros", "pounds", "yuan", "yen", "share", "shares", "times", "x"),
    *("year", "years", "month", "months", "week", "weeks", "day", "days", "元", "股", "倍", "年", "个月", "天", "日"),
)
_BEFORE = re.compile(  # a sign, a decrease, a negation or a bound; a currency
    r"(?:(?<![A-Za-z0-9)}%])(?<!\d\s)[-−–]|[负負]?[百千]分之|[负負]|(?<![A-Za-z])(?:minus|negative)\s"
    r"|(?<![A-Za-z])(?:not|isn't|never|more than|less than|over|under|above|below|at least|at most|up to)\s"
    rf"|(?<![A-Za-z])(?:{FALL})\s(?:by\s)?|(?:{FALL_HAN})[了至到为达]?"
    r"|(?<=[A-Za-z]\s)[<>]\s?|[≤≥≠]\s?|不是|并非|[不非]|超过|不足|[大小高低多少]于|至少|至多)?+"
    rf"(?:(?:{CURRENCY})\s?[-−–]?)?+\Z"
)
_AFTER = re.compile(  # a power of ten; units; a currency; what limits, turns or denies it
    r"(?:[kmbt](?![A-Za-z]))?(?:\s?[×*]\s?10\s?\^\s?\{?[-+]?\d+\}?)?+"
    rf"(?:\s{{0,3}}(?:{one_of((*UNITS, *_NOUNS))}|(?:{CURRENCY})(?![A-Za-z]))){{0,3}}"
    r"(?:\s?(?:(?:or|and)\s(?:more|less|above|below|higher|lower|over)\b|at\s(?:least|most)\b|[及或]?以[上下]"
    rf"|\((?:[^()\d]{{0,20}}[^()\dA-Za-z])?(?:{one_of(UNITS)})[^()\d]{{0,6}}\)|的?(?:{FALL_HAN})|(?:{FALL})\b"
    r"|(?:is\s)?(?:wrong|incorrect|not\s(?:correct|right))\b|不对|不正确|错误|\+(?=[\s.,。]*$)))?",
    re.IGNORECASE,
)
_JOINT = re.compile(
    r"\s*(?:(?:[,、;&，；]|\band\b|和|与|及|以及)\s*)*+(?:(?P<either>(?:(?:\bor\b|或者?|还是|/|\b(?:maybe|perhaps|possibly)\b|也?可能是?)\s*){1,2})|(?P<range>[-–~至到]\s*))?",
    re.IGNORECASE,
)
_MOST = 40  # boxes of one answer


class Boxes(NamedTuple):
    """The boxes that give an answer.

    Attributes:
        text: their contents with what stands directly beside them, joined.
        either: the contents one by one where the answer leaves open which one it is (`or`, 或); else empty.
    """

    text: str
    either: tuple[str, ...] = ()


def final_answer(answer_text: str) -> str:
    r"""The content of the last closed `\boxed{}` with what stands directly beside it, else the whole text; stripped."""
    boxes = read_boxes(answer_text)
    return answer_text.strip() if boxes is None else boxes.text


def read_boxes(text: str) -> Boxes | None:
    """The last closed box, and those listed before it on its line; None without any."""
    text = text.strip()
    first = text.find("\\boxed")
    if first < 0:
        return None
    if first == 0 and text[6:7] == "{" and text.count("{") == text.count("}") == 1 and text[-1] == "}":
        return Boxes(text[7:-1].strip()) if text[-2] != "\\" else None  # fast path, by far the most frequent
    spans = _closed_boxes(text, first)
    if not spans:
        return None
    start, inner, inner_end, end = spans[-1]
    before, after = _before(text[max(start - _REACH, 0) : start]), _after(text[end : end + _REACH])
    answers = [(text[inner:inner_end].strip(), after)]
    joints: list[str] = []
    for left, right in zip(spans[-2 : -_MOST - 1 : -1], spans[: -_MOST - 1 : -1], strict=False):
        gap = text[left[3] : right[0]]
        joint = _joint(gap) if len(gap) <= 2 * _REACH and "\n" not in gap else None
        content = text[left[1] : left[2]].strip()
        if joint is None or (joint[1] == "" and not (_is_letter(content) and _is_letter(answers[-1][0]))):
            break
        unit, how, sign = joint
        answers[-1] = (sign + answers[-1][0], answers[-1][1])
        answers.append((content, unit))
        joints.append(how)
        before = _before(text[max(left[0] - _REACH, 0) : left[0]])
    answers[-1] = (before + answers[-1][0] if answers[-1][0] else "", answers[-1][1])
    return _joined([content + unit if content else "" for content, unit in reversed(answers)], joints)


def _joined(answers: Sequence[str], joints: Sequence[str]) -> Boxes:
    distinct = tuple(dict.fromkeys(answers))
    if len(distinct) == 1:
        return Boxes(distinct[0])
    if joints == ["-"]:
        return Boxes("-".join(answers))
    return Boxes(" or ".join(distinct), distinct) if "or" in joints else Boxes(", ".join(distinct))


def _closed_boxes(text: str, first: int) -> list[tuple[int, int, int, int]]:
    r"""Start, start of the content, its end, and end of each closed box that holds no other, by where it opens."""
    open_braces: list[tuple[int, int]] = []  # start of a box and of its content; -1 for other braces
    spans: list[tuple[int, int, int, int]] = []
    last = -1  # content start of the box closed last
    for match in _BRACES.finditer(text, first):
        token = match.group()
        if token == "}":
            start, inner = open_braces.pop() if open_braces else (-1, -1)
            if inner > last:
                spans.append((start, inner, match.start(), match.end()))
                last = inner
        elif token == "{":
            open_braces.append((-1, -1))
        elif token.startswith("\\boxed"):
            open_braces.append((match.start(), match.end()))
    return spans


def _before(text: str) -> str:
    """The end of a text that belongs to a box directly after it."""
    text = _DELIMITER.sub("", text.rpartition("\n")[2]).replace("\\$", "$")[-16:]
    match = _BEFORE.search(text)
    return "" if match is None else match.group()


def _after(text: str) -> str:
    """The beginning of a text that belongs to a box directly before it."""
    text = text.partition("\n")[0]
    if not text.strip(" .。，,;$*"):
        return ""
    match = _AFTER.match(clean(_DELIMITER.sub("", text)))
    return match.group().rstrip() if match else ""


def _joint(gap: str) -> tuple[str, str, str] | None:
    """Unit of the box before a gap, how it joins (or, and, - for a range, nothing), and sign of the box after it."""
    gap = clean(_DELIMITER.sub("", gap))
    unit = _AFTER.match(gap)
    rest = gap[unit.end() :] if unit else gap
    before = None if rest.strip() == "-" else _BEFORE.search(rest)
    sign = before.group() if before else ""
    joint = _JOINT.fullmatch(rest[: len(rest) - len(sign)])
    if joint is None:
        return None
    how = "or" if joint["either"] else "-" if joint["range"] else "and" if joint.group().strip() else ""
    return (unit.group().rstrip() if unit else ""), how, sign


def _is_letter(content: str) -> bool:
    return len(content) == 1 and content.isalpha() and content.isascii()
