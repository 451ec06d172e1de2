"""Near-duplicates and shared n-grams: what counts, what does not, and what only looks alike."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from finr1.core.prompt import fill, parts_of, unfill
from finr1.core.types import Question
from finr1.data.questions.overlap import (
    TokenReader,
    near_duplicates,
    ngram_hashes,
    shared_ngrams,
    similarity,
    tokens_of,
)
from tests.helpers.stages import question

WORDS = [f"w{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(600)]


def words(n: int, seed: int) -> list[str]:
    """`n` made-up words, none twice."""
    return random.Random(seed).sample(WORDS, n)


def near(rows: Sequence[Question], threshold: float = 0.8) -> dict[int, int]:
    return near_duplicates(rows, TokenReader(rows), threshold)


def shared(rows: Sequence[Question], held: Sequence[Question], common: int = 10) -> dict[int, int]:
    return shared_ngrams(rows, held, TokenReader([*rows, *held]), 13, 20, common)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("tfns.v1", {"text": "Up {5}% \n Text: again"}),
        ("financeiq.v1", {"question": "问", "choices": "A. 一\nB. 二"}),
        (
            "finqa.v1",
            {"document": "d", "id": "i", "pre_text": "a\nb", "table": "[]", "post_text": "", "question": "why?"},
        ),
    ],
)
def test_unfill_gives_what_was_filled_in(name: str, values: dict[str, str]) -> None:
    assert unfill(fill(name, **values)) == values
    assert unfill("no wording of ours") == {"question": "no wording of ours"}


def test_similarity_by_hand() -> None:
    one, other = tokens_of("a b c d e"), tokens_of("a b c d x")
    # pairs ab bc cd de and ab bc cd dx: 3 in both of 5
    assert similarity([one], [other]) == pytest.approx(3 / 5)
    assert similarity([], []) == 1 and similarity([], [one]) == 0
    assert similarity([one], [one]) == 1


def test_only_chinese_characters_are_marked_as_such() -> None:
    marked = tokens_of("한국 은행 金融 bank ꀀ 豈") >= 1 << 31  # Korean and Yi lie between the blocks of Chinese
    assert marked.tolist() == [False, False, True, True, False, False, True]


def test_windows_are_equal_for_equal_runs_alone() -> None:
    runs = ngram_hashes(tokens_of("a b c a b d"), 2)
    assert len(runs) == 5 and runs[0] == runs[3] and len(set(runs.tolist())) == 4  # ab twice; bc ca bd
    assert ngram_hashes(tokens_of("a b"), 3).size == 0
    assert not np.intersect1d(ngram_hashes(tokens_of("a"), 1), ngram_hashes(tokens_of("a b"), 2)).size


def test_a_few_other_words_and_links_make_a_near_duplicate_and_the_row_with_gold_stays() -> None:
    text = words(60, 0)
    changed = [*text[:30], "other", *text[31:]]  # 59 pairs, 2 of them changed: 57 / 61
    rows = [
        question(" ".join(text) + " https://t.co/A1", None),
        question(" ".join(changed).upper(), "7"),
        question(" ".join(words(60, 1)), "7"),
    ]
    assert near(rows) == {0: 1}
    assert near(rows, threshold=0.95) == {}  # 57 / 61 = 0.93


@pytest.mark.parametrize(
    ("text", "more"),
    [
        ("{} was 5 in 2019", {}),  # another figure
        ("{} was 7 in 2020", {}),
        ("{} was 5 in 2020", {"gold": "no"}),  # another answer
        ("{} was 5 in 2020", {"choices": {"A": "none"}}),
    ],
)
def test_figures_golds_and_choices_make_another_question(text: str, more: dict[str, Any]) -> None:
    body = " ".join(words(80, 0))
    rows = [question(f"{body} was 5 in 2020 now", "yes"), question(text.format(body), **{"gold": "yes", **more})]
    assert near(rows) == {}
    assert near([rows[0], question(f"{body} was 5 in 2020", "yes")]) == {1: 0}


def test_free_text_may_be_answered_in_other_words() -> None:
    body = " ".join(words(40, 0))
    rows = [question(body, "one", kind="text"), question(f"{body} please", "another", kind="text")]
    assert near(rows) == {1: 0}


ASKED = "in the text below which product does the {} of the rise in the price of many goods of late most concern"
CAUSE, EFFECT = map(ASKED.format, ("cause", "effect"))


@pytest.mark.parametrize(
    ("asked", "golds", "kind", "pairs"),
    [
        (["did revenue grow faster than net income", "were leases longer than loans"], ["yes", "yes"], "yes_no", {}),
        ([CAUSE, EFFECT], ["oil", "oil"], "text", {}),  # one word of 21, and the same gold by chance
        ([CAUSE, EFFECT], [None, None], "text", {}),
        ([CAUSE, f"please: {CAUSE}?"], ["oil", "oil"], "text", {1: 0}),
        ([CAUSE, CAUSE.upper()], ["oil", "gas"], "text", {}),  # a list of answers, one a row
        ([CAUSE, CAUSE.replace("does", "did")], ["4.25", "4.25"], "number", {1: 0}),
        ([CAUSE, CAUSE.replace("does", "did")], ["4.25", "4.5"], "number", {}),
    ],
)
def test_questions_on_one_page_are_compared_by_what_they_ask(
    asked: list[str], golds: list[str | None], kind: str, pairs: dict[int, int]
) -> None:
    pages = [" ".join([*words(300, 0), last]) for last in ("end", "stop")]
    texts = [fill("finqa.v1", document="d", id="i", pre_text=page, table="[]", post_text="", question=text)
             for page, text in zip(pages, asked, strict=True)]  # fmt: skip
    plain = [f"{page}. {text.rstrip('?')}?" for page, text in zip(pages, asked, strict=True)]
    for prompts in (texts, plain):  # by the template, and by the question mark
        rows = [question(text, gold, kind=kind) for text, gold in zip(prompts, golds, strict=True)]
        assert near(rows) == pairs


def test_a_source_says_what_is_asked_and_the_rest_is_context() -> None:
    news = " ".join(words(60, 0))
    texts = [f"Event: {event}\nNews: {news}\nName the company." for event in ("a merger", "a loss")]
    spans = [([[7, 7 + n]], [[14 + n, 14 + n + len(news)]]) for n in (8, 6)]
    rows = [
        question(text, "acme", kind="text", asked=asked, context=context)
        for text, (asked, context) in zip(texts, spans, strict=True)
    ]
    assert parts_of(rows[0]) == (["a merger"], [news]) and parts_of(rows[1]) == (["a loss"], [news])
    assert near(rows) == {} and near([rows[0], replace(rows[1], asked=[])]) == {}
    assert near([rows[0], replace(rows[0], id="other")]) == {1: 0}


def test_instructions_that_a_source_repeats_do_not_make_its_rows_alike() -> None:
    task = " ".join(words(100, 9))
    rows = [question(f"{task} {' '.join(words(6, i))}", "yes", kind="yes_no") for i in range(40)]
    assert near(rows) == {}
    held = [question(f"{task} {' '.join(words(6, 100 + i))}", split="test") for i in range(40)]
    assert shared(rows, held, common=1000) == {}


def test_thirteen_words_in_a_row_are_shared_text_twelve_are_not() -> None:
    held = question(" ".join(words(50, 0)), split="test")
    for n, expected in ((13, {0: 0}), (12, {})):
        row = question(" ".join([*words(30, 1), *words(50, 0)[20 : 20 + n], *words(30, 2)]))
        assert shared([row], [held]) == expected


def test_twenty_chinese_characters_in_a_row_are_shared_text_nineteen_are_not() -> None:
    text = "".join(chr(0x4E00 + i) for i in random.Random(0).sample(range(5000), 60))
    held = question(text, split="test", language="zh")
    for n, expected in ((20, {0: 0}), (19, {})):
        assert shared([question(f"请看{text[5 : 5 + n]}。Q1")], [held]) == expected


def test_answers_are_compared_too_and_short_held_out_texts_as_a_whole() -> None:
    long = " ".join(words(30, 0))
    assert shared([question(f"see {long}")], [question("why", long, kind="text", split="test")]) == {0: 0}
    assert shared([question("why", long, kind="text")], [question(f"see {long}", split="test")]) == {0: 0}
    tweet = " ".join(words(9, 1))
    assert shared([question(f"so {tweet} then")], [question(tweet, split="test")]) == {0: 0}
    assert shared([question("a b c d e f g h")], [question("b c d e f", split="test")]) == {}
    assert shared([question("a b c d e f g h")], [question("b c d e f g", split="test")]) == {0: 0}


def test_a_short_held_out_row_is_found_by_all_its_texts() -> None:
    more: dict[str, Any] = {"kind": "choice", "choices": {"A": "董事长", "B": "监事"}, "language": "zh"}
    held = [question("不能担任代表人的是（）。", "B", split="test", **more)]
    for text in (
        "题目：不能担任代表人的是？\n(1) 董事长\n(2) 监事\n只回答数字。",
        "不能担任代表人的是\nA. 监事 B. 董事长",
    ):
        assert shared([question(text, "B", language="zh")], held) == {0: 0}
    assert shared([question("题目：不能担任代表人的是？\nA. 董事长\nB. 经理", "B", language="zh")], held) == {}


def test_phrases_of_many_documents_tell_nothing_but_rows_of_one_document_count_once() -> None:
    phrase = " ".join(words(13, 0))
    held = question(f"{phrase} {' '.join(words(30, 1))}", split="test")
    rows = [question(f"{phrase} {' '.join(words(20, 10 + i))}", document_id=f"d{i % 4}") for i in range(12)]
    assert shared(rows, [held], common=4) == dict.fromkeys(range(12), 0)
    assert shared(rows, [held], common=3) == {}


def test_rows_of_one_generator_share_templates_by_design() -> None:
    text = " ".join(words(40, 0))
    held = question(f"{text} 5", split="test", meta={"template": "t"})
    made, copied = question(f"{text} 6", meta={"template": "t"}), question(f"{text} 6", source="other")
    assert shared([made, copied], [held]) == {1: 0}
