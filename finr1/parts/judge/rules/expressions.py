"""Tokens of one line, and the value of an arithmetic expression (`(120 - 100) / 100` is 0.2), in linear time."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from finr1.answer.units import CURRENCY, DIGITS, LETTER, UNITS, one_of

_HEAD = re.compile(
    r"^\s*(?:[-*•>#]+\s+)?(?:\(?\d{1,2}[.)、:]\s|step\s?\d+\s?[-:.),]?|第[一二三四五六七八九十\d]+步\s?[:,、.]?|[①-⑳])?\s*",
    re.I,
)
_AHEAD = r"(?=\s?[\d.($¥€£(])"
_TOKEN = re.compile(
    rf"(?P<number>(?:{CURRENCY})?\s?(?P<digits>{DIGITS})(?P<power>[eE][-+]?\d{{1,3}}(?!\w))?"
    rf"(?:\s?(?P<unit>{one_of(UNITS)})|(?P<letter>[kmbKMB])(?![A-Za-z]))?)"
    r"|(?P<equals>[=≈]+|\bequals?\b|等于)"
    r"|(?P<alias>(?:,\s?)?(?:\bor\b|\bi\.e\.|\bthat is\b|即|也就是)(?=[\s,:]{0,2}[-\d.,]+\s?%))"
    r"|(?P<says>(?:\b(?:is|gives|makes|comes to|yields)\b(?:\s(?:about|approximately|roughly))?|得到|得出|约为|得|为))"
    r"|(?P<op>"
    rf"(?:\*\*|[-+*^×·÷]|/(?![A-Za-z\u3400-\u9fff])|\b(?:plus|minus|times|divided by|multiplied by|over)\b{_AHEAD}"
    rf"|(?:加上|加|减去|减|乘以|乘|除以){_AHEAD}|(?<=[\d)%\s])[xX](?=\s?[\d($])|(?<=%)\s?of\b{_AHEAD}|的(?=\s?[\d.]+\s?%)))"
    r"|(?P<root>sqrt|√)|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<percent>%)"
    r"|(?P<word>/?[A-Za-z_][A-Za-z_0-9'’&-]*|/?[\u3400-\u9fff])|(?P<stop>[^\s&$\\])",
    re.IGNORECASE,
)
_OPS = {
    "**": "^", "×": "*", "·": "*", "x": "*", "÷": "/", "plus": "+", "minus": "-", "times": "*", "multiplied by": "*",
    "divided by": "/", "over": "/", "of": "*", "的": "*", "加上": "+", "加": "+", "减去": "-", "减": "-", "乘以": "*",
    "乘": "*", "除以": "/",
}  # fmt: skip
_ARITHMETIC = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
_RANK = {"+": 1, "-": 1, "*": 2, "/": 2, "neg": 3, "^": 4, "root": 5}


class Token(NamedTuple):
    """`kind` is the group of the pattern; a number has its value, half its last shown digit, and its unit's factor."""

    kind: str
    text: str
    value: float = 0.0
    half_unit: float = 0.0
    factor: float = 1.0


@lru_cache(1 << 12)  # a question's samples share many lines
def tokens_of(line: str) -> Sequence[Token]:
    """The tokens of a line without its bullet or number, and without names and units inside expressions."""
    head = _HEAD.match(line)
    return _without_names(tokenise(line[head.end() :] if head else line))


def tokenise(line: str) -> list[Token]:
    """Every token of a line, in order."""
    tokens = []
    for match in _TOKEN.finditer(line):
        kind = match.lastgroup or ""
        if kind == "number":
            tokens.append(_number(*match.group("number", "digits", "power", "unit", "letter")))
        else:
            tokens.append(_mark(kind, match.group()))
    return tokens


@lru_cache(1 << 12)
def _mark(kind: str, text: str) -> Token:
    """A token other than a number."""
    text = text.strip()
    return Token(kind, _OPS.get(text.lower(), text) if kind == "op" else text)


@lru_cache(1 << 14)
def _number(text: str, digits: str, exponent: str | None, unit: str | None, letter: str | None) -> Token:
    digits, power = digits.replace(",", ""), float(f"1{exponent}") if exponent else 1.0
    factor = UNITS[unit.lower()] if unit else LETTER[letter.lower()] if letter else 1.0
    half_unit = 0.5 * 10.0 ** -len(digits.partition(".")[2])
    return Token("number", text.strip(), float(digits) * power * factor, half_unit * power * factor, factor)


def _without_names(tokens: Sequence[Token]) -> list[Token]:
    """Drop words inside an expression that are a unit (`20 shares -`) or name a quantity (`- cost 100`)."""
    if "word" not in [token.kind for token in tokens]:
        return list(tokens)
    kept: list[Token] = []
    i, n = 0, len(tokens)
    while i < n:
        if tokens[i].kind != "word":
            kept.append(tokens[i])
            i += 1
            continue
        j = i + 1
        while j < n and tokens[j].kind == "word":
            j += 1
        before = kept[-1].kind if kept else ""
        after = tokens[j].kind if j < n else ""
        unit = before in ("number", "close") and after in ("op", "close", "equals")
        name = before in ("op", "open") and after in ("number", "open")
        if not (j - i <= 6 and (unit or name)):
            kept.extend(tokens[i:j])
        i = j
    return kept


def evaluate(tokens: Sequence[Token]) -> float | None:
    """The value of an expression, computed on two stacks; None if it is incomplete or not finite."""
    values: list[float] = []
    pending: list[str] = []
    operand_next = True

    def reduce(rank: int) -> bool:
        while pending and pending[-1] != "(" and _RANK[pending[-1]] >= rank:
            if not _apply(pending.pop(), values):
                return False
        return True

    for token in tokens:
        if token.kind == "number":
            if not operand_next:
                return None
            values.append(token.value)
            operand_next = False
        elif token.kind in ("open", "root"):
            if not operand_next:  # 2(3 + 4), (100)(1.05)
                if not reduce(2):
                    return None
                pending.append("*")
            pending.append("(" if token.kind == "open" else "root")
            operand_next = True
        elif token.kind == "close":
            if operand_next or not reduce(0) or not pending:
                return None
            pending.pop()
        elif token.kind == "percent":
            if operand_next:
                return None
            values[-1] *= 0.01
        elif operand_next:
            if token.text not in "+-":
                return None
            if token.text == "-":
                pending.append("neg")
        else:
            # powers are right-associative: in 2^3^2 the first one stays pending
            if not reduce(_RANK[token.text] + (token.text == "^")):
                return None
            pending.append(token.text)
            operand_next = True
    if operand_next or not reduce(0) or pending or len(values) != 1:
        return None
    return values[0] if math.isfinite(values[0]) else None


def _apply(op: str, values: list[float]) -> bool:
    try:
        right = values.pop()
        if op in ("neg", "root"):
            values.append(-right if op == "neg" else math.sqrt(right))
            return True
        left = values.pop()
        if op == "^":
            if abs(right) > 1000:
                return False
            power = left**right
            if isinstance(power, complex):
                return False
            values.append(power)
        else:
            values.append(_ARITHMETIC[op](left, right))
        return True
    except (IndexError, OverflowError, ValueError, ZeroDivisionError):
        return False
