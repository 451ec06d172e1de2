"""The unit and the rounding that a question asks for, and what they make of an answer."""

from dataclasses import replace

import pytest

from finr1.answer.asked import NOTHING, Asked, asked_of, read_asked
from finr1.answer.grade import grade
from finr1.core.types import Question

ASKED = [
    ("What is the WACC? Answer as a percentage to two decimal places.", "%", 0.01),
    ("what was the yield (expressed as a percentage)? Answer to three decimal places.", "%", 0.001),
    ("what percentage of revenue is that?", "%", 0.0), ("What is the spread (in basis points)?", "bps", 0.0),
    ("Provide your answer as a positive percentage, rounded to the nearest integer.", "%", 1.0),
    ("what was the range , in thousands , of revenue? Answer to the nearest dollar.", "thousand", 1.0),
    ("What is the FCFF ($ millions) of the company?", "million", 0.0), ("How many shares, in $000s?", "thousand", 0.0),
    ("Answer in the unit of thousands of shares.", "thousand", 0.0), ("Answer to a single decimal place.", "", 0.1),
    ("Provide the answer in billions of dollars, rounded to one decimal place.", "billion", 0.1),
    ("Answer to the closest cent.", "", 0.01), ("Give it to the nearest hundredth.", "", 0.01),
    ("What is its value to the nearest million dollars?", "", 1e6), ("Answer to the second decimal place.", "", 0.01),
    ("净利润是多少？（单位：亿元，保留两位小数）", "亿", 0.01), ("以万元为单位，四舍五入到整数，求税额", "万", 1.0),
    ("占比是百分之几？", "%", 0.0), ("答案用百分比表示，保留1位小数。", "%", 0.1),
    ("计算收益率（%），精确到0.01", "%", 0.01),
    ("净利润是多少亿元？", "亿", 0.0), ("应缴多少税？精确到分", "", 0.01), ("结果保留小数点后三位", "", 0.001),
    ("请计算，保留四位有效数字", "", 0.0),
]  # fmt: skip


@pytest.mark.parametrize(("text", "unit", "step"), ASKED)
def test_what_a_question_asks_for(text: str, unit: str, step: float) -> None:
    assert read_asked(text) == Asked(unit, pytest.approx(step))


@pytest.mark.parametrize(
    "text",
    [
        "Sales were $ 5 million in 2019, of which 20% were taxed. What was the tax?",
        "| ( in millions ) | 2019 |\n| revenue (%) | 5 |\nWhat was revenue?",
        "Amounts are rounded to the nearest thousand. Who signed?",
        "公司营收5亿元，增长20%。谁是董事长？",
        "What is the price if rates rise by 2 percent?",
    ],
)
def test_figures_and_tables_of_a_context_ask_for_nothing(text: str) -> None:
    assert read_asked(text) == NOTHING


PERCENT, MILLIONS = "Answer as a percentage to two decimal places.", "What was it, in millions of dollars?"
GRADED = [
    (PERCENT, "5.16", "5.16%", 1, 1), (PERCENT, "5.16", "5.16", 1, 1), (PERCENT, "5.16", "0.0516", 0, 1),
    (PERCENT, "5.16", "516%", 0, 1), (PERCENT, "0.0516", "5.16%", 1, 1), (PERCENT, "5.16%", "5.16", 1, 1),
    (PERCENT, "3.3", "3.31", 0, 0), (PERCENT, "3.31", "3.3", 0, 0), (PERCENT, "3.3", "3.304%", 1, 1),
    (PERCENT, "5.1639", "5.16", 1, 1), (PERCENT, "5.1639", "5.17", 0, 0),
    (MILLIONS, "19.2", "$19,200,000", 1, 1), (MILLIONS, "19.2", "$19.2 million", 1, 1),
    (MILLIONS, "19.2", "19.2", 1, 1),
    (MILLIONS, "19200000", "$19.2 million", 1, 1), (MILLIONS, "19.2", "19.2 billion", 0, 1),
    ("To the nearest million dollars?", "830", "$830 million", 1, 1), ("To the nearest million?", "830", "831", 0, 0),
    ("Answer to the nearest dollar.", "630", "630.4", 1, 1), ("Answer to the nearest dollar.", "630", "630.5", 0, 0),
    ("净利润是多少？单位：亿元", "3.5", "3.5亿元", 1, 1), ("净利润是多少？单位：亿元", "3.5", "35,000万元", 1, 1),
]  # fmt: skip


@pytest.mark.parametrize(("text", "gold", "answer", "strict", "scaled"), GRADED)
def test_an_answer_in_the_unit_and_digits_asked_for(
    text: str, gold: str, answer: str, strict: int, scaled: int
) -> None:
    context = "The table shows $ 5.0 million and 7%. " * 60
    for prompt in (text, f"{context}\n\n{text}", f"{text}\n\n{context}"):
        asked = Question("t", "d", "en", "reasoning business", "number", [{"role": "user", "content": prompt}], gold)
        found = grade(answer, asked)
        assert (found.strict.value, found.scaled.value) == (strict, scaled), (prompt[:60], found)


def test_the_context_of_a_question_is_not_read() -> None:
    context = "What was it in millions? Answer to the nearest cent."
    prompt = f"{context}\nWhat percentage is that?"
    asked = Question("t", "d", "en", "reasoning business", "number", [{"role": "user", "content": prompt}], "5")
    assert asked_of(asked) == Asked("%", 0.01)
    assert asked_of(replace(asked, context=[[0, len(context)]])) == Asked("%", 0.0)


def test_a_unit_that_the_source_states_is_not_read_from_the_question() -> None:
    prompt = [{"role": "user", "content": PERCENT}]
    stated = Question("t", "d", "en", "reasoning business", "number", prompt, "1.5", meta={"unit": ""})  # type: ignore[list-item]
    assert grade("150%", stated).strict.value == 1 and grade("1.5%", stated).strict.value == 0
