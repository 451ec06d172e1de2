"""The filter's short ways of reading give what the long ones give: on the worked teacher's traces and on any text."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finr1.answer import choices
from finr1.answer.clean import clean
from finr1.answer.tags import last_box
from finr1.parts.engine.base import Request
from finr1.parts.engine.worked.engine import WorkedEngine
from finr1.parts.judge.rules import comparisons as _comparisons
from finr1.parts.judge.rules import expressions
from finr1.parts.judge.rules import words as _terms
from finr1.parts.judge.rules.figures import figures_in, figures_of, read
from finr1.parts.judge.rules.words import han_share, steps
from finr1.parts.source.worked.source import Worked
from finr1.settings.sampling import Sampling

PARTS = (
    *("5", "12", "0.5", ".5", "1,234", "1,234,567", "1234565", "12345.65", "123456.5", "0.1234565", "2019", "20"),
    *("%", "‰", " ", "  ", "\n", "-", " - ", "+", " = ", "≈", "/", "*", "**", "^", "×", "÷", "(", ")", "[", "]", ","),
    *(".", "$", "€", "US$", "HK$", "Rs.", "RMB", "人民币", "元", "万", "亿", "千", "百", "十", "分之", "三", "角"),
    *("毛", "半", "又", "余", "million", "bn", "m", "K", "B", "lakh", "bps", "个百分点", "(in millions)", "(%)"),
    *("e5", "E-3", "½", "²", "√", "sqrt", " to ", " or ", "至", "~", "minus ", "负", " not ", "above ", "less than "),
    *("is ", ">", "<=", "高于", "小于", "不", "即", " gives ", "equals", " of ", " x ", "plus ", "divided by ", "乘以"),
    *("得到", "为", "Q3", "A", "x", "_", "第", "年", "cost"),
    *("一", "合成一个算式", "\n求利润。\n", "成", "百分之二十", "五分之一"),
)
TEXTS = st.lists(st.sampled_from(PARTS), max_size=14).map("".join)


def reasoning() -> Iterator[str]:
    """Traces of the worked teacher, right ones and ones with faults."""
    engine = WorkedEngine(fault_rate=0.45)
    for question in Worked(n_train=120, n_test=0, difficulty=3, chinese_share=0.4).load():
        (completions,) = engine.generate([Request(question.prompt, question)], Sampling(n=4))
        yield from (c.reasoning or c.text for c in completions)


@pytest.fixture(scope="module")
def traces() -> list[str]:
    found = list(reasoning())
    assert len(found) == 480
    return found


def test_figures_of_traces_and_of_their_steps(traces: list[str]) -> None:
    for text in (piece for trace in traces for piece in (trace, *steps(trace))):
        assert figures_in(text) == figures_of(read(text)), text


@given(TEXTS)
def test_figures_of_any_text(text: str) -> None:
    assert figures_in(text) == figures_of(read(text))


@pytest.mark.parametrize(
    ("text", "figures"),
    [
        ("120 - 100 = 20, or 20%", {"120", "100", "20"}),
        ("1,234,567年", {"1.23457e+06"}),  # what is written to a number keeps it from the short way
        ("1234565%", {"1.23456e+06"}),  # 0.01 and back must not move the sixth digit
        ("2 ^ 3 and 5", {"8", "5"}),
        ("1亿2000万", {"1.2"}),  # of 1e8
        ("三元", {"3"}),
        ("9" * 500, set()),  # longer than any number
        ("1234567 = 7, 7654321", {"1.23457e+06", "7", "7.65432e+06"}),
        ("1,234567 million", {"1", "234567"}),
        ("no figure", set()),
    ],
)
def test_figures_by_hand(text: str, figures: set[str]) -> None:
    assert figures_in(text) == figures


# What an alternative can begin with is written before it, for speed: without these the pattern must find the same.
UNGUARDED = re.compile(re.sub(r"(?<=>)\(\?=\[[^\]]*\]\)", "", expressions._TOKEN.pattern), re.IGNORECASE)


def same_tokens(text: str) -> bool:
    lists = [[(m.lastgroup, m.group(), m.start()) for m in p.finditer(text)] for p in (expressions._TOKEN, UNGUARDED)]
    return lists[0] == lists[1]


def test_guards_of_the_tokens_leave_none_out(traces: list[str]) -> None:
    assert len(expressions._TOKEN.pattern) - len(UNGUARDED.pattern) > 70  # four guards were taken out
    assert all(same_tokens(clean(trace)) for trace in traces)


@given(TEXTS)
def test_guards_of_the_tokens_leave_none_out_of_any_text(text: str) -> None:
    assert same_tokens(clean(text))


@given(st.floats(-1e9, 1e9), st.sampled_from("+-*/"), st.one_of(st.just(0.0), st.floats(-1e9, 1e9)))
def test_two_numbers_compute_as_they_do_in_brackets(left: float, op: str, right: float) -> None:
    numbers = [expressions.Token("number", "", value) for value in (left, right)]
    plain = [numbers[0], expressions.Token("op", op), numbers[1]]
    bracketed = [expressions.Token("open", "("), *plain, expressions.Token("close", ")")]
    assert expressions.evaluate(plain) == expressions.evaluate(bracketed)


def test_where_no_sign_stands_before_a_number_nothing_compares(traces: list[str]) -> None:
    seen = 0
    for trace in map(clean, traces):
        if first := _comparisons._COMPARISON.search(trace):
            seen += 1
            start = _comparisons._may_start(trace)
            assert start is not None and start <= first.start(), trace
    assert seen > 10


@given(TEXTS)
def test_nor_in_any_text(text: str) -> None:
    if first := _comparisons._COMPARISON.search(text):
        start = _comparisons._may_start(text)
        assert start is not None and start <= first.start()


PROSE = st.text("aB7 .!?(\"'\n\t&-_%+,{}\\\u00e9中。，！", max_size=40)


@given(PROSE)
def test_steps_of_ascii_lines_are_those_of_the_long_pattern(text: str) -> None:
    assert _terms._ASCII_SENTENCE.split(text) == _terms._SENTENCE.split(text) or not text.isascii()


@given(PROSE)
def test_ascii_punctuation_goes_as_by_the_pattern(text: str) -> None:
    assert text.translate(choices._ASCII_PUNCTUATION) == choices._PUNCTUATION.sub("", text) or not text.isascii()


@given(PROSE)
def test_a_lone_box_reads_as_one_with_text_after_it(inside: str) -> None:
    assert last_box(f"\\boxed{{{inside}}}") == last_box(f"\\boxed{{{inside}}} ")


@given(PROSE)
def test_the_share_of_han_in_ascii_text(text: str) -> None:
    letters = sum(c.isascii() and c.isalpha() for c in text)
    assert not text.isascii() or han_share(text) == (0.0 if letters >= 8 else None)
