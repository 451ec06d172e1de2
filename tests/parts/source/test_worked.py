"""The generated source: golds follow from programs, splits never overlap, every setting does what it says."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Mapping

import pytest

from finr1.answer.program import execute
from finr1.core.errors import ConfigError
from finr1.core.types import Language, Question
from finr1.parts.source.worked.source import TEMPLATES, Worked
from finr1.parts.source.worked.template import LIMITS, Template, digits, fits, make, side

GROUPS = {
    "statement", "time value", "bonds", "portfolio", "tax", "currency", "units", "choice", "yes or no", "label",
}  # fmt: skip


def tokens(text: str) -> float:
    """SmolLM2's tokens, about: one a digit or sign, 1.3 a word, 1.6 a Chinese character (test_engine checks it)."""
    words = "".join(c if c.isascii() and c.isalpha() else " " for c in text).split()
    chinese = sum(c > "\u3000" for c in text)
    signs = sum(c.isascii() and not c.isalpha() and c != " " for c in text)
    return 1.3 * len(words) + 1.6 * chinese + 1.25 * signs


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    return list(Worked(n_train=480, n_test=256).load())


def value_of(gold: str) -> float:
    return float(gold.removesuffix("%")) / (100 if gold.endswith("%") else 1)


def check_gold(q: Question) -> None:
    value = execute(q.meta["program"], q.meta["table"])
    assert q.gold is not None
    final = q.meta["final"]
    if final in ("number", "percent"):
        assert q.kind == "number"
        assert value_of(q.gold) == pytest.approx(value, rel=1e-9, abs=1e-12)
        assert q.gold.endswith("%") == (final == "percent")
    elif final == "yes_no":
        assert q.gold == ({"yes": "yes", "no": "no"} if q.language == "en" else {"yes": "是", "no": "否"})[str(value)]
    elif final == "pair":
        assert q.gold == ("A" if value == "yes" else "B")
    elif final == "choice":
        assert value_of(q.choices[q.gold]) == pytest.approx(value)
        assert len(set(q.choices.values())) == 3
        assert all(f"{letter}: {option}" in q.text for letter, option in q.choices.items())
    else:
        assert isinstance(value, float)
        signs = dict(zip(q.choices, (-1, 0, 1) if len(q.choices) == 3 else (-1, 1), strict=True))
        assert signs[q.gold] == (value > 1e-12) - (value < -1e-12)


def test_there_are_templates_of_every_kind_at_every_difficulty() -> None:
    easy = [t for t in TEMPLATES.values() if t.level == 1]
    assert len(easy) >= 25
    assert {t.group for t in easy} == GROUPS
    assert {t.final for t in easy} == {"number", "percent", "yes_no", "label", "choice", "pair"}
    assert sum(t.zh is not None for t in easy) >= 10
    assert any(t.zh and not t.en for t in easy)  # 万 and 亿 are asked in Chinese only


@pytest.mark.parametrize(
    ("template", "difficulty"),
    [pytest.param(t, d, id=f"{t.name}-{d}") for t in TEMPLATES.values() for d in LIMITS if t.level <= d],
)
def test_every_template_gives_questions_whose_program_gives_the_gold(template: Template, difficulty: int) -> None:
    languages: list[Language] = ["en", "zh"]
    for language in languages:
        if template.text(language) is None:
            continue
        rng = random.Random(difficulty)
        made = [q for q in (make(template, language, rng, difficulty) for _ in range(400)) if q]
        assert len({q.document_id for q in made}) >= 15
        assert {q.split for q in made} == {"train", "test"}
        for q in made:
            check_gold(q)
            assert "{" not in q.text
            assert q.language == language
            assert any(c >= "一" for c in q.text) == (language == "zh")
            assert len(q.meta["labels"]) == q.meta["program"].count("(")


def test_no_parameters_are_on_both_sides(questions: list[Question]) -> None:
    splits = {split: {q.document_id for q in questions if q.split == split} for split in ("train", "test")}
    assert (len(splits["train"]), len(splits["test"])) == (480, 256)  # no document twice
    assert not splits["train"] & splits["test"]
    other_settings = Worked(n_train=0, n_test=250, seed=7, chinese_share=0.5).load()
    assert not {q.document_id for q in other_settings} & splits["train"]


def test_the_side_depends_on_template_and_parameters_alone() -> None:
    params: Mapping[str, float] = {"p": 800, "r": 5}
    assert side("coupon", params) == side("coupon", {"r": 5.0, "p": 800.0})
    sides = Counter(side("coupon", {"p": p, "r": 3}) for p in range(5000))
    assert 0.17 < sides["test"] / 5000 < 0.23


def test_held_out_questions_do_not_depend_on_training_ones(questions: list[Question]) -> None:
    alone = list(Worked(n_train=0, n_test=100).load())
    assert alone == [q for q in questions if q.split == "test"][:100]


def test_same_seed_same_questions_and_another_seed_others(questions: list[Question]) -> None:
    assert list(Worked(n_train=480, n_test=256).load()) == questions
    assert [q.id for q in Worked(n_train=50, n_test=0, seed=1).load()] != [q.id for q in questions[:50]]
    assert len({q.id for q in questions}) == len(questions)


def test_json_keeps_everything(questions: list[Question]) -> None:
    for q in questions:
        assert Question.from_json(json.loads(json.dumps(q.to_json()))).to_json() == json.loads(json.dumps(q.to_json()))
        assert Question.from_json(q.to_json()).id == q.id


def test_chinese_share_and_balance(questions: list[Question]) -> None:
    assert 0.05 < sum(q.language == "zh" for q in questions) / len(questions) < 0.15
    assert {q.language for q in Worked(n_train=80, n_test=0, chinese_share=1).load()} == {"zh"}
    assert {q.language for q in Worked(n_train=80, n_test=0, chinese_share=0).load()} == {"en"}
    for kind, most in (("yes_no", 0.7), ("choice", 0.6), ("label", 0.5)):
        golds = Counter(q.gold for q in Worked(240, 0, chinese_share=0, templates=_names_of(kind)).load())
        assert max(golds.values()) / golds.total() < most, golds
    numbers = Counter(q.gold for q in questions if q.kind == "number")
    assert max(numbers.values()) / numbers.total() < 0.05  # no number wins by being said always


def _names_of(kind: str) -> list[str]:
    finals = {"yes_no": {"yes_no"}, "choice": {"choice", "pair"}, "label": {"label"}}[kind]
    return [t.name for t in TEMPLATES.values() if t.final in finals and t.en]


def test_difficulty_sets_size_and_steps() -> None:
    easy, hard = (list(Worked(300, 0, difficulty=d, chinese_share=0).load()) for d in (1, 3))
    assert max(q.meta["program"].count("(") for q in easy) < max(q.meta["program"].count("(") for q in hard)

    def size(some: list[Question]) -> float:
        golds = [digits(value_of(q.gold or "")) for q in some if q.kind == "number"]
        assert max(golds) <= LIMITS[some[0].meta["difficulty"]][1]
        return sum(golds) / len(golds)

    assert size(easy) + 0.5 < size(hard)
    assert not fits({"p": 1234}, [1.0], 1)
    assert not fits({"p": 12}, [1 / 3], 3)
    assert fits({"p": 12}, [0.25], 1)


def test_the_sums_of_money_of_an_easiest_question_have_one_unit() -> None:
    """70 + 20, not 70 + 2: the same number of digits in all of them, and every unit is asked."""
    questions = Worked(200, 0, difficulty=0, chinese_share=0.0, templates=["table_total"]).load()
    lengths = [{len(number) for number in re.findall(r"\d+", q.meta["facts"])} for q in questions]
    assert all(len(found) == 1 for found in lengths)
    assert {number for found in lengths for number in found} == {1, 2, 3, 4}


def test_every_trend_is_asked_often_enough() -> None:
    golds = Counter(q.gold for q in Worked(150, 0, difficulty=0, chinese_share=0.0, templates=["trend_label"]).load())
    assert set(golds) == {"up", "down", "flat"} and min(golds.values()) >= 15


def test_easy_prompts_are_short(questions: list[Question]) -> None:
    english = [tokens(q.text) for q in questions if q.language == "en"]
    assert max(english) <= 115
    assert sum(english) / len(english) <= 65


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"n_train": -1}, "n_train=-1"),
        ({"difficulty": 4}, "difficulty=4"),
        ({"chinese_share": 1.5}, "chinese_share=1.5"),
        ({"templates": ["growth"]}, "templates=growth"),
        ({"templates": ["two_brackets"]}, "difficulty"),
        ({"templates": ["wan_to_yi"]}, "written in en"),
    ],
)
def test_bad_settings_end_in_one_line(settings: dict[str, object], part: str) -> None:
    with pytest.raises(ConfigError, match=part) as error:
        Worked(**settings)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_asking_for_more_than_there_is_says_how_many() -> None:
    with pytest.raises(ConfigError, match=r"only \d+ different train questions"):
        list(Worked(n_train=5000, n_test=0, templates=["coupon"]).load())


def test_templates_may_be_chosen_by_name_or_group() -> None:
    some = Worked(n_train=60, n_test=0, templates=["tax", "capm"], chinese_share=0).load()
    assert {q.meta["template"] for q in some} == {"income_tax", "sales_tax", "after_tax", "capm"}
