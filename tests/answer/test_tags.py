"""The format of a completion, and how a policy might try to game it."""

import time

import pytest

from finr1.answer.tags import parse, render, split_thinking


def test_render_is_read_back() -> None:
    parsed = parse(render("two lines\nof thought", "\\boxed{5}"))
    assert parsed.well_formed and parsed.why == ""
    assert (parsed.think, parsed.answer) == ("\ntwo lines\nof thought\n", "\n\\boxed{5}\n")


def test_the_regular_expression_of_open_r1_agrees() -> None:
    import re

    text = render("a", "b")
    assert re.fullmatch(r"<think>\n.*?\n</think>\n<answer>\n.*?\n</answer>", text, re.DOTALL)


@pytest.mark.parametrize(
    ("text", "answer", "why"),
    [
        ("5", None, "no <think>"),
        ("<answer>5</answer>", "5", "no <think>"),
        ("thinking</think><answer>5</answer>", "5", "no <think>"),
        ("<think>a</think>5", None, "no <answer>"),
        ("<think>a</think><answer>5", None, "no </answer>"),
        ("<think>a<answer>5</answer>", "5", "no </think>"),
        ("<think></think><answer>5</answer>", "5", "empty think block"),
        ("<think> \n </think><answer>5</answer>", "5", "empty think block"),
        ("<think>a</think><answer> </answer>", " ", "empty answer block"),
        ("<think>a</think> so <answer>5</answer>", "5", "text outside the blocks"),
        ("Sure! <think>a</think><answer>5</answer>", "5", "text outside the blocks"),
        ("<think>a</think><answer>5</answer> Done.", "5", "text outside the blocks"),
        # repeated blocks and two answers (open-r1 PR 418): no answer is chosen for the policy
        ("<think>a</think><answer>5</answer><answer>6</answer>", None, "2 <answer>"),
        ("<think>a</think><answer>5</answer>" * 2, None, "2 <think>"),
        ("<think>a</think><think>b</think><answer>5</answer>", "5", "2 <think>"),
        # an answer inside the thinking is none
        ("<think><answer>5</answer></think>", None, "the answer block is not after the thinking"),
        ("<think><answer>5</answer></think><answer>6</answer>", None, "2 <answer>"),
        ("<answer>5</answer><think>a</think>", None, "the answer block is not after the thinking"),
        ("<answer>5</answer></think>", None, "no <think>"),
        ("<answer><think>a</think>5</answer>", None, "the answer block is not after the thinking"),
        ("<think>a</answer></think><answer>5", None, "blocks out of order"),
        ("<THINK>a</THINK><ANSWER>5</ANSWER>", None, "no <think>"),
        ("", None, "no <think>"),
    ],
)
def test_malformed(text: str, answer: str | None, why: str) -> None:
    parsed = parse(text)
    assert not parsed.well_formed
    assert parsed.answer == answer
    assert parsed.why == why


def test_white_space_outside_is_allowed() -> None:
    assert parse("\n <think>a</think>\n\n<answer>5</answer>\n ").well_formed


@pytest.mark.parametrize(
    ("text", "reasoning", "expected"),
    [
        ("<think>a</think>5", None, ("a", "5")),
        ("a</think>5", None, ("a", "5")),
        ("5", None, ("", "5")),
        ("5", " a ", ("a", "5")),
        ("", "a", ("a", "")),
        ("<think>a", None, ("a", "")),  # unfinished thinking has no reply
        ("<think>a</think><think>b \\boxed{5}", None, ("a</think><think>b \\boxed{5}", "")),
        ("<think>a</think>5", "a", ("a", "5")),  # sent twice
        ("a</think>5", "a", ("a", "5")),
        ("<think>a", "a", ("a", "")),
    ],
)
def test_thinking_and_reply(text: str, reasoning: str | None, expected: tuple[str, str]) -> None:
    assert split_thinking(text, reasoning) == expected


@pytest.mark.parametrize(
    ("text", "reasoning", "well_formed"),
    [
        ("<answer>5</answer>", "I write <answer> first, then </answer>, not <think>.", True),
        ("<answer>5</answer>", "a", True),
        ("<think>a</think><answer>5</answer>", "a", True),  # sent twice
        ("5", "<answer>5</answer>", False),
        ("<answer>5</answer>", "  ", False),
        ("so <answer>5</answer>", "a", False),
    ],
)
def test_tags_in_thinking_sent_apart_are_not_the_replys(text: str, reasoning: str, well_formed: bool) -> None:
    parsed = parse(text, reasoning)
    assert parsed.well_formed is well_formed
    assert parsed.answer == ("5" if "<answer>" in text else None)


@pytest.mark.parametrize("piece", ["<think>", "</think>", "<answer>", "<answer></answer>"])
def test_hostile_text_is_read_in_linear_time(piece: str) -> None:
    text = (piece * 100_000)[:100_000]
    began = time.process_time()
    assert not parse(text).well_formed
    split_thinking(text, text)
    assert time.process_time() - began < 1
