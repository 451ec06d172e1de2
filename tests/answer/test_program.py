"""FinQA's program language: values computed by hand, every kind of invalid program, linear time, real programs."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from finr1.answer.program import Operation, ProgramError, execute, literal, parse, row_numbers, short, step_values

TABLE = [["item", "2020", "2021"], ["Revenue", "$ 1,200", "$ 800 ( 3 )"], ["net income ( loss ), total", "40", "-10"]]


@pytest.mark.parametrize(
    ("program", "value"),
    [
        ("add(2, 3)", 5.0),
        ("subtract(100, 80), divide(#0, 80)", 0.25),
        ("multiply(800, 5%), multiply(#0, 3)", 120.0),
        ("add(const_1, 10%), exp(#0, const_2)", 1.21),
        ("multiply(7, const_m1)", -7.0),
        ("greater(3, 2)", "yes"),
        ("greater(2, 2)", "no"),
        ("add(1, 2), subtract(#0, 3), greater(#1, -1)", "yes"),
        ("table_sum(revenue, none)", 2000.0),
        ("table_average(revenue, none)", 1000.0),
        ("table_max(revenue, none), table_min(revenue, none), subtract(#0, #1)", 400.0),
        ("table_sum(net income ( loss ), total, none)", 30.0),
        ("  add( 1 ,2 ) ,multiply(#0,.5) ", 1.5),
    ],
)
def test_hand_worked_values(program: str, value: float | str) -> None:
    got = execute(program, TABLE)
    assert got == value if isinstance(value, str) else got == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(
    ("program", "part"),
    [
        ("", "no opening bracket"),
        ("add(1, 2", "never closed"),
        ("add(1)", "two arguments"),
        ("add(1, 2, 3)", "two arguments"),
        ("add(1, )", "two arguments"),
        ("power(1, 2)", "unknown name"),
        ("add(1, 2) add(1, 2)", "expected a comma"),
        ("add(1, 2),", "no opening bracket"),
        ("add(1, x)", "neither a number"),
        ("add(1, nan)", "neither a number"),
        ("add(1, 1_000)", "neither a number"),
        ("add(#0, 1)", "not computed before"),
        ("add(1, 2), add(#1, 1)", "not computed before"),
        ("greater(1, 2), add(#0, 1)", "not a number"),
        ("divide(1, 0)", "division by zero"),
        ("exp(0, -1)", "division by zero"),
        ("exp(10, 400)", "too large"),
        ("exp(-2, 0.5)", "negative"),
        ("multiply(1e300, 1e300)", "not finite"),
        ("table_sum(costs, none)", "no row"),
        ("__import__('os')", "unknown name"),
    ],
)
def test_broken_programs_say_why(program: str, part: str) -> None:
    with pytest.raises(ProgramError, match=part):
        execute(program, TABLE)


def test_parse_keeps_the_operations_in_order() -> None:
    assert parse("add(1, 2), divide(#0, const_3)") == (Operation("add", "1", "2"), Operation("divide", "#0", "const_3"))


def test_override_carries_on() -> None:
    assert step_values("subtract(100, 80), divide(#0, 80)", override={0: 40.0}) == [40.0, 0.5]


def test_literals_and_rows() -> None:
    assert [literal(t) for t in ("5%", "-4", "const_1000", "const_m1", "1.5e3")] == [0.05, -4, 1000, -1, 1500]
    assert row_numbers(TABLE, " REVENUE ") == [1200, 800]


def test_short_is_plain_and_exact() -> None:
    assert [short(x) for x in (0.25, 1200.0, -3.0, 1e-5, -0.0, 0.1 + 0.2, 1e15)] == [
        "0.25", "1200", "-3", "0.00001", "0", "0.3", "1000000000000000",
    ]  # fmt: skip


def test_parsing_takes_linear_time() -> None:
    def seconds(n: int) -> float:
        program = ", ".join(["add(1, 2)"] * n)
        start = time.process_time()
        assert len(parse(program)) == n
        return time.process_time() - start

    few, many = min(seconds(800) for _ in range(3)), min(seconds(8000) for _ in range(3))
    assert many < 40 * few  # ten times the text; a quadratic parser takes 100 times as long
    with pytest.raises(ProgramError, match="never closed"):
        execute("add(" * 20_000)
    with pytest.raises(ProgramError, match="characters"):
        parse("add(1, 2), " * 20_000)


def test_real_programs_give_the_gold(data: Path) -> None:
    files = [data / "finqa" / f"{name}.json" for name in ("dev", "test")]
    if not all(file.exists() for file in files):
        pytest.skip("no FinQA rows: set FINR1_DATA to the folder of data sets")
    rows = [row for file in files for row in json.loads(file.read_text(encoding="utf-8"))]
    wrong = []
    for row in rows:
        value, gold = execute(row["qa"]["program"], row["table"]), row["qa"]["exe_ans"]
        same = value == gold if isinstance(gold, str) else value == pytest.approx(gold, abs=1e-5, rel=1e-6)
        wrong += [] if same else [row["id"]]
    assert len(rows) >= 100
    assert wrong == []
