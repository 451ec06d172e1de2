"""Settings of a table that would silently ask something else: each is one clear line, or is read rightly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finr1.core.errors import ConfigError, DataError
from finr1.parts.benchmark.held_out import HeldOut
from finr1.parts.source.table import TableSource
from tests.helpers.made import jsonl, parquet, source_of_yaml

FIELDS = {"question": "question", "gold": "answer", "choices": "options"}
SHOWN = "{question}\n{choices}"
TEXTS = ["stocks", "bonds", "cash"]


def _choice_rows(path: Path, options: Any, *golds: Any) -> str:
    rows = [{"question": f"Which, {i}?", "options": options, "answer": gold} for i, gold in enumerate(golds)]
    return str(jsonl(path / "rows.jsonl", rows))


def test_a_gold_column_that_no_row_has_is_one_line(tmp_path: Path) -> None:
    path = str(jsonl(tmp_path / "x.jsonl", [{"question": "Price?", "answer": "5"}]))
    with pytest.raises(
        ConfigError, match=r"source\.table\.fields\.gold=anwser: no row of .* has this column; "
    ) as error:
        list(TableSource(path, fields={"question": "question", "gold": "anwser"}).load())
    assert "\n" not in str(error.value)
    assert [q.gold for q in TableSource(path, fields={"question": "question", "gold": None}).load()] == [None]
    some = jsonl(tmp_path / "y.jsonl", [{"question": "Price?"}, {"question": "Cost?", "answer": "5"}])
    assert [q.gold for q in TableSource(str(some)).load()] == [None, "5"]


def test_a_choice_question_must_show_its_choices(tmp_path: Path) -> None:
    path = _choice_rows(tmp_path, TEXTS, "bonds")
    with pytest.raises(ConfigError, match=r"source\.table\.template=Q: \{question\}: it does not show the choices"):
        list(TableSource(path, fields=FIELDS, template="Q: {question}").load())
    with pytest.raises(ConfigError, match=r"source\.jsonl\.wording=question\.v1: it does not show the choices"):
        list(source_of_yaml("jsonl", path, fields=FIELDS).load())  # though its rule says `kind: text`
    row = {"question": "Which? A stocks, B bonds", "options": ["stocks", "bonds"], "answer": "B"}
    (shown,) = TableSource(str(jsonl(tmp_path / "y.jsonl", [row])), fields=FIELDS).load()
    assert (shown.kind, shown.gold) == ("choice", "B")


@pytest.mark.parametrize(
    ("options", "gold"),
    [
        ({"label": ["A", "B", "C"], "text": TEXTS}, "B"),
        ({"text": TEXTS, "label": ["1", "2", "3"]}, "2"),
        ([{"key": f"option {i}", "content": text} for i, text in enumerate(TEXTS)], "option 1"),
        ([{"text": text} for text in TEXTS], "bonds"),
        ({"A": "stocks", "B": "bonds", "C": "cash"}, "B"),
        (dict(zip(("i", "ii", "iii"), TEXTS, strict=True)), "ii"),
    ],
)
def test_choices_may_be_objects(tmp_path: Path, options: Any, gold: str) -> None:
    (asked,) = TableSource(_choice_rows(tmp_path, options, gold), fields=FIELDS, template=SHOWN).load()
    assert (dict(asked.choices), asked.gold) == ({"A": "stocks", "B": "bonds", "C": "cash"}, "B")


UNREADABLE: list[Any] = [{"label": ["A", "B"], "points": [1, 2]}, [{"a": 1}, {"a": 2}], [["x"], ["y"]], [], "A"]


@pytest.mark.parametrize("options", UNREADABLE)
def test_choices_of_another_form_are_set_aside(tmp_path: Path, options: Any) -> None:
    with pytest.raises(DataError, match="`options` is not a list of up to 8 choices"):
        list(TableSource(_choice_rows(tmp_path, options, "A"), fields=FIELDS, template=SHOWN).load())


def test_the_number_of_an_option_counts_from_where_the_setting_says(tmp_path: Path) -> None:
    path = _choice_rows(tmp_path, TEXTS, 0, 2, "1", [0, 1], 3)
    zero, one = (TableSource(path, fields=FIELDS, template=SHOWN, first_choice=n) for n in (0, 1))
    assert [q.gold for q in zero.load()] == ["A", "C", "B", "AB"]
    assert [row.why for row in zero.set_aside] == ["answer '3' is none of the choices A, B, C"]
    assert [q.gold for q in one.load()] == ["B", "A", "C"] and len(one.set_aside) == 2
    with pytest.raises(DataError, match=r"answer 0 is a number, and source\.table\.first_choice does not say"):
        list(TableSource(path, fields=FIELDS, template=SHOWN).load())
    auto = [{"language": "en", "module": "professional knowledge", "domain": "x", "kind": "auto"}]
    numbers = TableSource(path, fields=FIELDS, template=SHOWN, first_choice=0, rules=auto).load()
    assert [(q.kind, q.gold) for q in numbers][:2] == [("choice", "A"), ("choice", "C")]
    with pytest.raises(ConfigError, match=r"source\.table\.first_choice=2"):
        TableSource(path, first_choice=2)


def test_files_of_several_splits_are_not_read_as_one(tmp_path: Path) -> None:
    for name in ("train-00000-of-00001", "validation-00000-of-00001", "test-00000-of-00001"):
        parquet(tmp_path / "data" / f"{name}.parquet", [{"question": f"{name}?", "answer": "1"}])
    with pytest.raises(
        ConfigError, match=r"source\.table\.files=.*: files of several splits are read as one: .*train"
    ) as e:
        list(TableSource(str(tmp_path)).load())
    assert "\n" not in str(e.value)
    with pytest.raises(ConfigError, match="files of several splits"):
        source = source_of_yaml("parquet", str(tmp_path), test_share=1.0)
        HeldOut(source).load()
    chosen = TableSource(str(tmp_path), files=["data/train-*"], test_files=["data/test-*"])
    assert [(q.split, q.text[:4]) for q in chosen.load()] == [("test", "test"), ("train", "trai")]
    both = TableSource(str(tmp_path), files=["data/train-*", "data/validation-*"])
    assert len(list(both.load())) == 2
    assert len(list(TableSource(str(tmp_path / "data" / "test-00000-of-00001.parquet")).load())) == 1


def test_a_category_of_ones_own_makes_strata(tmp_path: Path) -> None:
    rows = [{"question": f"Price {i}?", "answer": "1", "topic": "tax" if i % 4 else "bonds"} for i in range(40)]
    fields = {"question": "question", "gold": "answer", "category": "topic"}
    source = TableSource(str(jsonl(tmp_path / "x.jsonl", rows)), fields=fields, test_share=1.0)
    benchmark = HeldOut(source, limit=8, stratify=["category"])
    assert sorted(map(benchmark.category, benchmark.load())) == ["bonds"] * 2 + ["tax"] * 6
