"""Finds the equations of a reasoning trace and recomputes them; no `eval`, time linear in the trace.

`growth = (120 - 100) / 100 = 0.2 = 20%` gives the links `(120 - 100) / 100 = 0.2` and `0.2 = 20%`; names are skipped. A
link that cannot be computed is no evidence either way and is left out. Where a reading is open (a leading dash may be a
bullet, a bracket after a number an aside), a link is wrong only if every reading fails.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from functools import lru_cache
from typing import NamedTuple

from finr1.answer.number import CURRENCY, DIGITS, LETTER, UNITS, clean, one_of

MAX_TOKENS = 200  # of one side
_RELATIVE = 1e-6
_HEAD = re.compile(
    r"^\s*(?:[-*•>#]+\s+)?(?:\(?\d{1,2}[.)、:]\s|step\s?\d+\s?[-:.),]?|第[一二三四五六七八九十\d]+步\s?[:,、.]?|[①-⑳])?\s*",
    re.I,
)
_AHEAD = r"(?=\s?[\d.($¥€£(])"
# The guards `(?=[…])` name what an alternative can begin with: most characters are none of it.
_TOKEN = re.compile(
    r"(?P<number>(?=[\s\d.$€£¥₹₩A-Z人美港欧英日])"
    rf"(?:{CURRENCY})?\s?(?P<digits>{DIGITS})(?P<power>[eE][-+]?\d{{1,3}}(?!\w))?"
    rf"(?:\s?(?P<unit>{one_of(UNITS)})|(?P<letter>[kmbKMB])(?![A-Za-z]))?)"
    r"|(?P<equals>[=≈]+|\bequals?\b|等于)"
    r"|(?P<alias>(?=[,oit即也])(?:,\s?)?(?:\bor\b|\bi\.e\.|\bthat is\b|即|也就是)(?=[\s,:]{0,2}[-\d.,]+\s?%))"
    r"|(?P<says>(?=[igmcy得约为])"
    r"(?:\b(?:is|gives|makes|comes to|yields)\b(?:\s(?:about|approximately|roughly))?|得到|得出|约为|得|为))"
    r"|(?P<op>(?=[-+*^×·÷/pmtdox加减乘除的\s])"
    rf"(?:\*\*|[-+*^×·÷]|/(?![A-Za-z\u3400-\u9fff])|\b(?:plus|minus|times|divided by|multiplied by|over)\b{_AHEAD}"
    rf"|(?:加上|加|减去|减|乘以|乘|除以){_AHEAD}|(?<=[\d)%\s])[xX](?=\s?[\d($])|(?<=%)\s?of\b{_AHEAD}|的(?=\s?[\d.]+\s?%)))"
    r"|(?P<root>sqrt|√)|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<percent>%)"
    r"|(?P<word>/?[A-Za-z_][A-Za-z_0-9'’&-]*|/?[\u3400-\u9fff])|(?P<stop>[^\s&$\\])",
    re.IGNORECASE,
)
# What can begin a link, and what it needs on both sides: a line without them is not taken apart.
_LINKING = re.compile(
    r"[=≈]|\b(?:equals?|or|i\.e|that is|is|gives|makes|comes to|yields)\b|等于|即|也就是|得|为", re.IGNORECASE
)
_DIGIT = re.compile(r"\d")
_OPS = {
    "**": "^", "×": "*", "·": "*", "x": "*", "÷": "/", "plus": "+", "minus": "-", "times": "*", "multiplied by": "*",
    "divided by": "/", "over": "/", "of": "*", "的": "*", "加上": "+", "加": "+", "减去": "-", "减": "-", "乘以": "*",
    "乘": "*", "除以": "/",
}  # fmt: skip
_ARITHMETIC = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
_RANK = {"+": 1, "-": 1, "*": 2, "/": 2, "neg": 3, "^": 4, "root": 5}


class Token(NamedTuple):
    """`kind` is the group of the pattern; numbers carry value, half of the last digit shown, and the unit's factor."""

    kind: str
    text: str
    value: float = 0.0
    half_unit: float = 0.0
    factor: float = 1.0


class Equation(NamedTuple):
    """One link `left = right` that could be computed.

    `inputs` are the numbers on the left, as shown, of kind "by" where one divides, multiplies or raises by it;
    `results` the numbers on the right, usually one; `line` counts the trace's lines from 0.
    """

    text: str
    left: float
    right: float
    holds: bool
    inputs: tuple[Token, ...]
    results: tuple[Token, ...]
    line: int


def equations(text: str, cleaned: bool = False) -> list[Equation]:
    """Every link of a trace that can be computed, in order."""
    found: list[Equation] = []
    exact: dict[float, float] = {}  # a rounded result as shown -> the value before rounding, which may be carried on
    for number, line in enumerate(lines(text, cleaned)):
        values, alone = _alone(line)
        known = alone if exact.keys().isdisjoint(values) else _walk(_tokens(line), exact)
        for equation in known:
            found.append(Equation(*equation[:-1], number))
            _note(equation, exact)
    return found


@lru_cache(1 << 13)  # the samples of a question calculate much the same
def _alone(line: str) -> tuple[Set[float], Sequence[Equation]]:
    """The numbers of a line that may hold a link, and its links where none of these was rounded before."""
    if not (_DIGIT.search(line) and ("=" in line or _LINKING.search(line))):
        return frozenset(), ()
    tokens = _tokens(line)
    return frozenset([token.value for token in tokens if token.kind == "number"]), tuple(_walk(tokens, {}))


def _walk(tokens: Sequence[Token], exact: Mapping[float, float]) -> Iterator[Equation]:
    """The links of one line; what one of them rounds, the next ones know before rounding."""
    known = dict(exact)
    for equation in _links(tokens, known):
        yield equation
        _note(equation, known)


def _note(equation: Equation, exact: dict[float, float]) -> None:
    if equation.holds and equation.left != equation.right:
        exact[equation.results[0].value] = equation.left


def _tokens(line: str) -> Sequence[Token]:
    head = _HEAD.match(line)
    return _without_names(_tokenise(line[head.end() :] if head else line))


def lines(text: str, cleaned: bool = False) -> list[str]:
    """The cleaned lines of a trace; a line that begins with `=` goes on with the one before."""
    joined: list[str] = []
    for line in (text if cleaned else clean(text)).splitlines():
        if joined and line.lstrip(" &").startswith(("=", "≈")):
            joined[-1] += " " + line.strip()
        elif line.strip():
            joined.append(line.strip())
    return joined


def _tokenise(line: str) -> list[Token]:
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
    """A token that is no number."""
    text = text.strip()
    return Token(kind, _OPS.get(text.lower(), text) if kind == "op" else text)


@lru_cache(1 << 14)
def _number(text: str, digits: str, exponent: str | None, unit: str | None, letter: str | None) -> Token:
    digits, power = digits.replace(",", ""), float(f"1{exponent}") if exponent else 1.0
    factor = UNITS[unit.lower()] if unit else LETTER[letter.lower()] if letter else 1.0
    half_unit = 0.5 * 10.0 ** -len(digits.partition(".")[2])
    return Token("number", text.strip(), float(digits) * power * factor, half_unit * power * factor, factor)


def _without_names(tokens: Sequence[Token]) -> list[Token]:
    """Drop the words that stand for a unit (`20 shares -`) or name a quantity (`- cost 100`) inside an expression."""
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


_EQUAL = frozenset(("equals", "alias", "says"))
_EXPRESSION = frozenset(("number", "op", "root", "open", "close", "percent"))


def _links(tokens: Sequence[Token], exact: Mapping[float, float]) -> Iterable[Equation]:
    marks = [i for i, token in enumerate(tokens) if token.kind in _EQUAL]
    for n, mark in enumerate(marks):
        floor = marks[n - 1] + 1 if n else 0
        ceiling = marks[n + 1] if n + 1 < len(marks) else len(tokens)
        start = mark
        while start > floor and tokens[start - 1].kind in _EXPRESSION:
            start -= 1
        end = mark + 1
        while end < ceiling and tokens[end].kind in _EXPRESSION:
            end += 1
        left, right = tokens[start:mark], tokens[mark + 1 : end]
        if len(left) > MAX_TOKENS or len(right) > MAX_TOKENS or not left or not right:
            continue
        computes = _computes(left)
        chained = n > 0 and start == floor  # `a = 0.2 = 20%`: a number stated again in other form
        plain = tokens[mark].kind == "equals"
        if not computes and not chained and not (plain and any(t.kind == "op" for t in right[1:])):
            continue
        if tokens[mark].kind == "says" and not computes:
            continue
        equation = _compare(left, right, exact)
        # without an operator on the left, "2019 = 3 + 4" may be a name that ends in a number
        if equation and (computes or chained or equation.holds or start == 0):
            yield equation


def _inputs(tokens: Sequence[Token]) -> tuple[Token, ...]:
    found = []
    by = False  # the token before multiplies, divides or raises
    for token in tokens:
        if token.kind == "number":
            found.append(Token("by", token.text, token.value, token.half_unit, token.factor) if by else token)
        by = token.kind == "op" and token.text not in "+-"
    return tuple(found)


def _computes(tokens: Sequence[Token]) -> bool:
    """More than one signed number."""
    kinds = [token.kind for token in tokens]
    return "op" in kinds[1:] or "root" in kinds


def _compare(left: Sequence[Token], right: Sequence[Token], exact: Mapping[float, float]) -> Equation | None:
    results = [token for token in right if token.kind == "number"]
    if not results:
        return None
    first, calculated = None, _computes(left)
    for right_side in _right_readings(right):
        value = evaluate(right_side)
        if value is None:
            continue
        shown = right_side[-1] if len(right_side) <= 2 and right_side[-1].kind == "number" else None
        for left_side in _left_readings(left):
            if calculated and left_side is not left and not _computes(left_side):
                continue
            # a value that was rounded before is tried as shown, then as it was before
            carried = [left_side]
            if exact and not exact.keys().isdisjoint([t.value for t in left_side]):
                carried.append([t._replace(value=exact.get(t.value, t.value)) for t in left_side])
            for side in carried:
                computed = evaluate(side)
                if computed is None:
                    continue
                inputs = _inputs(left_side)
                holds = _same(computed, value, shown, inputs)
                same = shown is not None and shown.value == value != 0
                signed = (shown if same else shown._replace(value=value),) if shown else tuple(results)
                text = "".join([t.text for t in left_side]) + " = " + "".join([t.text for t in right_side])
                equation = Equation(text, computed, value, holds, inputs, signed, 0)
                if holds:
                    return equation
                first = first or equation
    return first


_BEFORE_FIGURE = re.compile(r"^[^1-9]*|[^\d]")


def _same(left: float, right: float, shown: Token | None, inputs: Sequence[Token]) -> bool:
    """Equal to the last digit shown on the right, within 1% if it is the only one; expressions to their rounding."""
    if shown is None:
        rounding = max(
            (t.half_unit / abs(t.value) for t in inputs if t.value and t.half_unit < 0.5 * t.factor), default=0.0
        )
        return abs(left - right) <= max(_RELATIVE, min(rounding, 0.01)) * max(abs(left), abs(right))

    if _near(left, right, shown.half_unit, shown.text):
        return True
    # `0.2 * 100 = 20%`, `120 - 100 = 20 million`, `12% - 10% = 2`: the unit is written on one side only
    factors = {token.factor for token in inputs}
    if len(factors) != 1 or shown.factor in factors or 1.0 not in (shown.factor, *factors):
        return False
    return _near(left / factors.pop(), right / shown.factor, shown.half_unit / shown.factor, shown.text)


def _near(left: float, right: float, half_unit: float, text: str) -> bool:
    gap, slack = abs(left - right), 1e-9 * abs(right)
    if gap > half_unit * (1 + 1e-6) + slack:
        return False
    if gap <= min(half_unit, 0.01 * abs(left)) * (1 + 1e-6) + slack:
        return True
    return len(_BEFORE_FIGURE.sub("", text.replace(".", ""))) >= 2  # 7 for 7.2 would hide a slip


def _left_readings(tokens: Sequence[Token]) -> list[Sequence[Token]]:
    """The whole side; without a leading sign (it may be a bullet or a dash); after a bracket that may be an aside."""
    readings = [tokens]
    if tokens[0].kind == "op":
        readings.append(tokens[1:])
    breaks = [
        i + 1
        for i in range(len(tokens) - 1)
        if tokens[i].kind in ("close", "number") and tokens[i + 1].kind == "number"
    ]
    if breaks:
        readings.append(tokens[breaks[-1] :])
    return readings


def _right_readings(tokens: Sequence[Token]) -> list[Sequence[Token]]:
    """The whole side; up to a bracket that follows a number (an aside); without what is left open at the end."""
    readings: list[Sequence[Token]] = [tokens]
    if len(tokens) == 1:
        return readings
    for i in range(1, len(tokens)):
        if tokens[i - 1].kind == "number" and tokens[i].kind in ("open", "number", "close"):
            readings.append(tokens[:i])
            break
    end = len(tokens)
    while end and tokens[end - 1].kind in ("op", "open", "root"):
        end -= 1
    if 0 < end < len(tokens):
        readings.append(tokens[:end])
    return readings


def evaluate(tokens: Sequence[Token]) -> float | None:
    """The value of an expression by two stacks; None if it is no whole expression or leaves the finite numbers."""
    if len(tokens) == 1:
        value = tokens[0].value
        return value if tokens[0].kind == "number" and math.isfinite(value) else None
    if len(tokens) == 3:  # by far the most frequent
        first, op, second = tokens
        if first.kind == second.kind == "number" and op.kind == "op" and op.text in _ARITHMETIC:
            if op.text == "/" and second.value == 0:
                return None
            value = _ARITHMETIC[op.text](first.value, second.value)
            return value if math.isfinite(value) else None
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
            # powers bind to the right: 2^3^2 keeps the first one pending
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
