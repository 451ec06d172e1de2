"""Render a program as the lines of a trace: three styles, two languages.

A line has at most one equation, `a op b = c`, which is true unless a fault was planted in it (`faults`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self

from finr1.answer.program import (
    TABLE,
    Operation,
    ProgramError,
    Table,
    Value,
    literal,
    parse,
    reference,
    row_numbers,
    short,
    step_values,
)
from finr1.core.types import Language, Question

# Name -> default weight.
STYLES: Mapping[str, float] = {"stepwise": 0.3, "brief": 0.3, "leap": 0.4}
SIGNS = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "exp": "*"}
BINDS = {"add": 1, "subtract": 1, "multiply": 2, "divide": 2, "exp": 2}

SENTENCES: Mapping[Language, Mapping[str, str]] = {
    "en": {
        "given": "Given: {facts}.",
        "label": "{label}: {rest}",
        "find": "Find the {goal}.",
        "plan": "First the {first}, then the {goal}.",
        "plan_one": "Take the {goal} at once.",
        "combine": "All in one expression.",
        "answer": "Answer: {gold}",
        "so": "So the answer is {gold}.",
        "above": "{left} is above {right}: {gold}",
        "not_above": "{left} is not above {right}: {gold}",
        "sign1": "{value} is above 0: {gold}",
        "sign0": "{value} is 0: {gold}",
        "sign-1": "{value} is below 0: {gold}",
        "option": "{value} is option {gold}.",
        "value": "{label}: {value}",
    },
    "zh": {
        "given": "已知：{facts}。",
        "label": "{label}：{rest}",
        "find": "求{goal}。",
        "plan": "先求{first}，再求{goal}。",
        "plan_one": "直接求{goal}。",
        "combine": "合成一个算式。",
        "answer": "答案：{gold}",
        "so": "所以答案是{gold}。",
        "above": "{left}高于{right}：{gold}",
        "not_above": "{left}不高于{right}：{gold}",
        "sign1": "{value}大于0：{gold}",
        "sign0": "{value}等于0：{gold}",
        "sign-1": "{value}小于0：{gold}",
        "option": "{value}是选项{gold}。",
        "value": "{label}：{value}",
    },
}


class Trace(NamedTuple):
    """The lines of the reasoning, and the boxed answer."""

    lines: list[str]
    answer: str


@dataclass(frozen=True)
class Solution:
    """A question's program with its results and its texts.

    `values` are the results of the operations; `shown` overrides some of them in the equations, for a wrong number that
    later steps do not use.
    """

    language: Language
    final: str
    program: tuple[Operation, ...]
    table: Table
    values: list[Value]
    facts: str
    labels: list[str]
    percent: tuple[bool, ...]  # by operation: whether its result is shown as a percentage
    gold: str
    choices: Mapping[str, str]
    shown: Mapping[int, float]

    @classmethod
    def of(cls, question: Question) -> Self:
        """Read `Question.meta`; KeyError or ProgramError if it has no valid program."""
        meta = question.meta
        program = parse(meta["program"])
        table = meta.get("table", ())
        values = step_values(program, table)
        labels = list(meta["labels"])
        if len(labels) != len(program):
            raise ProgramError(f"{len(labels)} labels for {len(program)} operations")
        return cls(
            language=question.language,
            final=meta["final"],
            program=program,
            table=table,
            values=values,
            facts=meta["facts"],
            labels=labels,
            percent=_percentages(program) if meta.get("in_percent") else (False,) * len(program),
            gold=question.gold or "",
            choices=question.choices,
            shown={},
        )

    def say(self, key: str, **values: str) -> str:
        return SENTENCES[self.language][key].format(**values)

    def number(self, index: int) -> float:
        """Return the numeric result of an operation; ProgramError for yes or no."""
        value = self.values[index]
        if isinstance(value, str):
            raise ProgramError(f"#{index} is {value}, not a number")
        return value

    def result(self, index: int) -> str:
        """Return the result of an operation as its equation shows it."""
        return self._plain(index, self.shown.get(index, self.number(index)))

    def argument(self, text: str) -> str:
        """Return an argument as equations show it: `5%`, `0.25`, `100`."""
        index = reference(text)
        if index is not None:
            return self._plain(index, self.number(index))
        return text if text.endswith("%") else short(literal(text))

    def value(self, text: str) -> float:
        index = reference(text)
        return literal(text) if index is None else self.number(index)

    def _plain(self, index: int, value: float) -> str:
        return short(value * 100, 6) + "%" if self.percent[index] else short(value, 6)

    @property
    def last(self) -> int:
        """Index of the last operation with a numeric result."""
        return max(i for i, value in enumerate(self.values) if not isinstance(value, str))

    @property
    def goal(self) -> str:
        """Label of the last number."""
        return self.labels[self.last]


def _percentages(program: tuple[Operation, ...]) -> tuple[bool, ...]:
    """Flag the results that are percentages: sums, differences and multiples of percentages, or one over a number."""
    flags: list[bool] = []

    def is_percent(text: str) -> bool:
        index = reference(text)
        return text.endswith("%") if index is None else flags[index]

    for name, left, right in program:
        percents = is_percent(left), is_percent(right)
        flags.append(all(percents) if name in ("add", "subtract") else name == "multiply" and any(percents))
        if name == "divide":
            flags[-1] = percents == (True, False)
    return tuple(flags)


def write(solution: Solution, style: str) -> Trace:
    """Write the trace in one style: `stepwise`, `brief` or `leap`; at least three lines."""
    lines = {"stepwise": _stepwise, "brief": _brief, "leap": _leap}[style](solution)
    return Trace(lines + _conclusion(solution, style, len(lines)), solution.gold)


def _stepwise(s: Solution) -> list[str]:
    lines = [s.say("given", facts=s.facts)]
    for index, operation in enumerate(s.program):
        if operation.name == "greater":
            continue
        first, *more = _equations(s, index, fine=True)
        key = "label" if " = " in first else "value"
        lines += [s.say(key, label=_capital(s.labels[index]), rest=first, value=first), *more]
    return lines


def _brief(s: Solution) -> list[str]:
    lines = [s.say("find", goal=s.goal)]
    for index, operation in enumerate(s.program):
        if operation.name != "greater":
            equations = _equations(s, index, fine=False)
            if operation.name in ("table_max", "table_min"):
                equations = [s.say("value", label=_capital(s.labels[index]), value=equations[0])]
            lines += equations
    return lines


def _leap(s: Solution) -> list[str]:
    first = s.labels[0]
    plan = s.say("plan", first=first, goal=s.goal) if s.last > 0 else s.say("plan_one", goal=s.goal)
    lines = [plan, s.say("combine")]
    end = s.program[-1]
    roots = [s.last]  # operations shown as one expression each
    if end.name == "greater":
        roots = [i for i in map(reference, (end.left, end.right)) if i is not None]
    for root in roots:
        result = s.result(root)
        if s.final == "percent" and root == len(s.program) - 1 and not result.endswith("%"):
            result = short(s.shown.get(root, s.number(root)) * 100, 4) + "%"
        lines.append(f"{_expression(s, root, 0)} = {result}")
    return lines


def _equations(s: Solution, index: int, fine: bool) -> list[str]:
    """Write an operation as equations, the last of which ends in its result; `fine` breaks difficult ones down."""
    name, left, right = s.program[index]
    result = s.result(index)
    if name in TABLE:
        return _table_equations(s, index, result, fine)
    a, b = s.argument(left), s.argument(right)
    if name == "exp":
        return [" * ".join([a] * _power(s, right)) + f" = {result}"]
    if fine and not s.percent[index] and b.endswith("%") and not a.endswith("%"):
        points, x = b.removesuffix("%"), s.value(left)
        if name == "multiply":  # times the percentage, then over 100
            product = short(x * s.value(points))
            return [f"{a} * {points} = {product}", f"{product} / 100 = {result}"]
        if name == "divide":
            return [f"{a} * 100 = {short(x * 100)}", f"{short(x * 100)} / {points} = {result}"]
    if fine and name == "multiply" and not a.endswith("%") and not b.endswith("%"):
        return _product(s.value(left), s.value(right), result)
    return [f"{a} {SIGNS[name]} {b} = {result}"]


def _table_equations(s: Solution, index: int, result: str, fine: bool) -> list[str]:
    name, row = s.program[index][0], row_numbers(s.table, s.program[index][1])
    if name in ("table_max", "table_min"):
        return [result]
    if not fine:
        return [f"{_table_expression(name, row)} = {result}"]
    total, lines = row[0], []
    for number in row[1:]:
        lines.append(f"{short(total)} + {short(number)} = {short(total + number)}")
        total += number
    if name == "table_average":
        return [*lines, f"{short(total)} / {len(row)} = {result}"]
    return [*lines[:-1], lines[-1].rpartition("=")[0] + f"= {result}"]


def _table_expression(name: str, row: list[float]) -> str:
    total = " + ".join(short(number) for number in row)
    return f"({total}) / {len(row)}" if name == "table_average" else total


def _product(a: float, b: float, result: str) -> list[str]:
    """Long multiplication if both factors have two or more digits: 24 * 15 as 24 * 10, 24 * 5 and their sum."""
    parts = _places(b)
    if len(_places(a)) < 2 or len(parts) < 2:
        return [f"{short(a)} * {short(b)} = {result}"]
    lines = [f"{short(a)} * {short(part)} = {short(a * part)}" for part in parts]
    total = a * parts[0]
    for part in parts[1:]:
        lines.append(f"{short(total)} + {short(a * part)} = {short(total + a * part)}")
        total += a * part
    return [*lines[:-1], lines[-1].rpartition("=")[0] + f"= {result}"]


def _places(value: float) -> list[float]:
    """Split a number by place value: 24.5 into 20, 4 and 0.5."""
    whole, _, tail = short(value).lstrip("-").partition(".")
    sign = -1.0 if value < 0 else 1.0
    digits = [(digit, len(whole) - 1 - i) for i, digit in enumerate(whole)]
    digits += [(digit, -1 - i) for i, digit in enumerate(tail)]
    return [sign * float(f"{digit}e{place}") for digit, place in digits if digit != "0"]


def _power(s: Solution, right: str) -> int:
    power = s.value(right)
    if power != int(power) or not 1 <= power <= 12:
        raise ProgramError(f"a power of {short(power)} cannot be written as a product")
    return int(power)


def _expression(s: Solution, index: int, binding: int, right_side: bool = False) -> str:
    """Write an operation and those that it depends on as one expression with the fewest brackets."""
    name, left, right = s.program[index]
    if name in TABLE:
        if name in ("table_max", "table_min"):
            return s.result(index)
        text = _table_expression(name, row_numbers(s.table, left))
        return (
            f"({text})"
            if binding > (2 if name == "table_average" else 1) or (binding and name == "table_sum")
            else text
        )
    precedence = BINDS[name]

    def part(argument: str, on_right: bool) -> str:
        at = reference(argument)
        return s.argument(argument) if at is None else _expression(s, at, precedence, on_right)

    if name == "exp":
        text = " * ".join([part(left, True)] * _power(s, right))
    else:
        text = f"{part(left, False)} {SIGNS[name]} {part(right, name in ('subtract', 'divide', 'multiply'))}"
    return f"({text})" if precedence < binding or (precedence == binding and right_side) else text


def _conclusion(s: Solution, style: str, lines: int) -> list[str]:
    """Return the lines from the last number to the answer; empty if the last equation already ends in the answer."""
    if s.final in ("yes_no", "pair"):
        _, left, right = s.program[-1]
        key = "above" if s.value(left) > s.value(right) else "not_above"
        return [s.say(key, left=s.argument(left), right=s.argument(right), gold=s.gold)]
    value = s.number(s.last)
    shown = s._plain(s.last, value)
    if s.final == "label":
        return [s.say(f"sign{(value > 0) - (value < 0)}", value=shown, gold=s.gold)]
    if s.final == "choice":
        return [s.say("option", value=shown, gold=s.gold)]
    if style == "brief":
        return [s.say("answer", gold=s.gold)]
    if style == "stepwise" and s.final == "percent" and not shown.endswith("%"):
        return [f"{shown} = {s.gold}"]
    return [s.say("so", gold=s.gold)] if lines < 3 else []


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
