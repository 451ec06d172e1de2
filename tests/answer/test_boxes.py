"""The answer in a box, with what stands beside it; several boxes; hostile texts."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finr1.answer.boxes import final_answer, read_boxes


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" 42 \n", "42"),
        ("\\boxed{1} \\boxed{2}", "2"),
        ("\\boxed{\\frac{3}{4}}", "\\frac{3}{4}"),
        ("\\boxed{\\boxed{5}}", "5"),
        ("\\boxed{a {b} c}", "a {b} c"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{1} \\boxed{2", "1"),
        ("\\boxed{2", "\\boxed{2"),
        ("\\boxed {7}", "7"),
        ("} \\boxed{8}", "8"),
        ("\\boxed{}", ""),
        ("-\\boxed{}\\%", ""),
    ],
)
def test_the_last_closed_box(text: str, answer: str) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so \\boxed{42} dollars", "42 dollars"),
        ("-\\boxed{5}", "-5"),
        ("= $-\\boxed{5}$", "-5"),
        ("负\\boxed{5}", "负5"),
        ("百分之\\boxed{5}", "百分之5"),
        ("RMB \\boxed{5}万元", "RMB 5万元"),
        ("答案是-\\boxed{5}万元。", "-5万元"),
        ("minus \\boxed{5}", "minus 5"),
        ("not \\boxed{yes}", "not yes"),
        ("more than \\boxed{5}\\%", "more than 5%"),
        ("\\boxed{25}\\%", "25%"),
        ("\\[ \\boxed{-0.3}\\% \\]", "-0.3%"),
        ("\\boxed{5} thousand", "5 thousand"),
        ("$\\boxed{5}$ million", "5 million"),
        ("**\\boxed{5}** million", "5 million"),
        ("\\(\\boxed{5}\\) percentage points", "5 percentage points"),
        ("\\boxed{5}×10^3", "5×10^3"),
        ("\\boxed{5} \\times 10^{3}", "5 × 10^{3}"),
        ("\\$\\boxed{5}", "$5"),
        ("US$\\boxed{5}$ million", "US$5 million"),
        ("\\boxed{5}亿元", "5亿元"),
        # not directly beside, or not part of an answer
        ("10 - \\boxed{5}", "5"),
        ("10-\\boxed{5}", "5"),
        ("- \\boxed{5}", "5"),
        ("\\boxed{5} in 2019", "5"),
        ("\\boxed{5}.", "5"),
        ("5% or so:\n\\boxed{5}\nthousand", "5"),
    ],
)
def test_what_stands_beside_the_box_belongs_to_the_answer(text: str, answer: str) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer", "either"),
    [
        ("\\boxed{A}, \\boxed{B}, \\boxed{D}", "A, B, D", ()),
        ("$\\boxed{A}$、$\\boxed{B}$和$\\boxed{D}$", "A, B, D", ()),
        ("\\boxed{A}\\boxed{B}", "A, B", ()),
        ("\\boxed{A} and \\boxed{A}", "A", ()),
        ("\\boxed{5\\%}-\\boxed{7\\%}", "5\\%-7\\%", ()),
        ("\\boxed{24\\%} or \\boxed{25\\%}", "24\\% or 25\\%", ("24\\%", "25\\%")),
        ("\\boxed{24}\\% or \\boxed{25}\\%", "24% or 25%", ("24%", "25%")),
        ("-\\boxed{5}或-\\boxed{6}", "-5 or -6", ("-5", "-6")),
        ("\\boxed{A}, \\boxed{B} or \\boxed{C}", "A or B or C", ("A", "B", "C")),
        # a correction: the last one counts
        ("\\boxed{5}\n\nWait, \\boxed{7}", "7", ()),
        ("\\boxed{41} or rather \\boxed{42}", "42", ()),
        ("\\boxed{A}\n\\boxed{D}", "D", ()),
    ],
)
def test_several_boxes(text: str, answer: str, either: tuple[str, ...]) -> None:
    assert read_boxes(text) == (answer, either)


def test_no_box_is_none() -> None:
    assert read_boxes("plain {text}") is None


@given(st.text("5aB -+%$.,\\{}是", max_size=20), st.text("5aB -+%$.,是", max_size=20))
def test_text_on_another_line_never_counts(before: str, after: str) -> None:
    assert final_answer(f"{before.replace('{', '').replace('}', '')}\n\\boxed{{7}}\n{after}") == "7"


@pytest.mark.parametrize(
    "piece", ["\\boxed{", "{", "}", "\\boxed", "\\", "\\boxed{A}", "\\boxed{A},", "\\boxed{5} or ", "-", "$ "]
)
def test_hostile_text_is_read_in_linear_time(piece: str) -> None:
    text = (piece * 100_000)[:100_000]
    began = time.process_time()
    final_answer(text)
    final_answer(f"{text}\\boxed{{5}}{text}")
    assert time.process_time() - began < 1
