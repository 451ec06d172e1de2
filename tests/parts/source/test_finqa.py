"""FinQA: the executed answer as gold, written plainly; doubtful rows are marked, not dropped."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from finr1.answer.grade import grade
from finr1.core.errors import ConfigError, DataError
from finr1.parts.source.executed import agreement, examine, plain, program_gives
from finr1.parts.source.finqa import FinQA


def _row(exe_ans: object, answer: str = "", **more: Any) -> dict[str, Any]:
    """A page of two sentences and a table of our own, in upstream's keys."""
    return {
        "pre_text": ["revenue {question} grew .", "see below ."],
        "post_text": ["that was all ."],
        "filename": "XYZ/2001/page_1.pdf",
        "table_ori": [["", "2001"], ["Revenue", "5"]],
        "table": [["", "2001"], ["revenue", "5"]],
        "qa": {"question": "how much ?", "answer": answer, "program": "divide(1, 2)", "exe_ans": exe_ans},
        "id": "XYZ/2001/page_1.pdf-1",
        "table_retrieved": [],
        **more,
    }


def _write(folder: Path, **files: Any) -> FinQA:
    for name, rows in files.items():
        (folder / f"{name}.json").write_text(json.dumps(rows))
    return FinQA(str(folder))


def test_wording_is_fin_r1s_and_braces_of_the_page_stay(tmp_path: Path) -> None:
    (only,) = _write(tmp_path, test=[_row(0.5)]).load()
    assert only.text == (
        "Please answer the question based on all the information provided below:\n"
        "Document: XYZ/2001/page_1.pdf\nID: XYZ/2001/page_1.pdf-1\n"
        "Previous Text:\nrevenue {question} grew .\nsee below .\n"
        "Table Data: [['', '2001'], ['revenue', '5']]\n"
        "Following Text:\nthat was all .\nQuestion: how much ?\n"
        "Please use \\boxed{} to wrap the final answer"
    )
    assert (only.gold, only.document_id, only.meta["program"]) == ("0.5", "XYZ/2001/page_1.pdf", "divide(1, 2)")


def test_train_and_dev_are_the_train_split(tmp_path: Path) -> None:
    source = _write(tmp_path, dev=[_row(1.0)], test=[_row(2.0), _row("yes")])
    assert [(q.split, q.gold, q.kind) for q in source.load()] == [
        ("train", "1", "number"),
        ("test", "2", "number"),
        ("test", "yes", "yes_no"),
    ]
    _write(tmp_path, train=[_row(3.0)])
    assert [q.gold for q in source.load() if q.split == "train"] == ["3", "1"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-05, "0.00001"),
        (2057.0, "2057"),
        (299999990.4, "299999990.4"),
        (-0.52485, "-0.52485"),
        (100, "100"),
        ("Yes", "yes"),
    ],
)
def test_plain(value: object, text: str) -> None:
    assert plain(value, "row") == text


@pytest.mark.parametrize(
    ("value", "shown", "expected"),
    [
        (0.06757, "7%", ("", "fraction")),
        (16.93811, "16.93%", ("", "points")),
        (30.44323, "3044%", ("", "fraction")),
        (705.25, "704.25", ("", "")),  # within 1%
        (2057.0, "$ 2057\n", ("", "")),
        (-0.11825, "11.9%", ("sign", "fraction")),
        (0.19495, "25%", ("value", "")),
        (68.4, "78.4", ("value", "")),
        (380.0, "3.8", ("", "")),  # the same up to a factor 100
        (0.2, ".2", ("", "")),
        (471.0, "no", ("unreadable", "")),
        (5.0, "", ("no answer", "")),
        ("yes", "yes", ("", "")),
        ("no", "yes", ("value", "")),
    ],
)
def test_agreement(value: object, shown: str, expected: tuple[str, str]) -> None:
    assert agreement(value, shown) == expected


@pytest.mark.parametrize(
    ("question", "value", "shown", "unit"),
    [
        ("what were total sales in millions?", 19.2, "19.2", "million"), ("what were total sales?", 19.2, "19.2", ""),
        ("what was the percent of the costs to the notes in millions", 0.01429, "1.43%", ""),
        ("what percentage of sales is that?", 16.93811, "16.93%", "%"), ("what percentage is that?", 0.5, "", ""),
    ],
)  # fmt: skip
def test_the_unit_of_a_gold_is_that_of_its_question_or_of_its_annotated_answer(
    question: str, value: float, shown: str, unit: str
) -> None:
    assert examine(value, shown, "", [], "row 1", False, question).meta["unit"] == unit


def test_percentages_grade_by_what_the_gold_shows(tmp_path: Path) -> None:
    fraction, points = _write(tmp_path, test=[_row(0.16938, "16.9%"), _row(16.93811, "16.93%")]).load()
    for question in (fraction, points):
        assert grade("16.94%", question).strict.value == 1
        assert grade("17.3%", question).strict.value == 0
    assert [grade("16.94", q).strict.value for q in (fraction, points)] == [0, 1]
    assert [grade("16.94", q).scaled.value for q in (fraction, points)] == [1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{", "dev.json: broken JSON at line 1"),
        ("{}", "dev.json: no usable row"),
        ("[1]", r"dev.json row 1 \(line 1\): 1 is not a JSON object"),
        (json.dumps([_row(None)]), r"row 1 \(line 1\): exe_ans None"),
    ],
)
def test_a_file_without_use_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "dev.json").write_text(text)
    with pytest.raises(DataError, match=message):
        list(FinQA(str(tmp_path)).load())


def test_broken_rows_are_set_aside(tmp_path: Path) -> None:
    bad = [
        {"id": "x"},
        _row(float("nan")),
        {**_row(1.0), "qa": {"question": "?"}},
        {**_row(1.0), "qa": 3},
        {**_row(1.0), "pre_text": None},
        {**_row(1.0), "pre_text": ["a", 1]},
        {**_row(1.0), "table": [["a"], "b"]},
        {**_row(1.0), "filename": float("nan")},
        {**_row(1.0), "id": "\ud800"},
    ]
    source = _write(tmp_path, test=[_row(1.0), *bad, _row(2.0)])
    assert [q.gold for q in source.load()] == ["1", "2"]
    assert [row.why for row in source.set_aside] == [
        "no key `qa`",
        "exe_ans nan",
        "no key `exe_ans`",
        "`qa` is 3, not an object",
        "`pre_text` is None, not a list of texts",
        "`pre_text` is ['a', 1], not a list of texts",
        "`table` is [['a'], 'b'], not a table",
        "`filename` is nan, not text",
        "half of a surrogate pair in its text",
    ]
    assert source.set_aside[0].place == f"{tmp_path / 'test.json'} row 2 (line 1)"


@pytest.mark.parametrize(
    ("program", "value", "same"),
    [
        ("divide(1, 3)", 0.33333, True),
        ("divide(1, 3)", 0.3334, False),
        ("greater(2, 1)", "yes", True),
        ("greater(2, 1)", "no", False),
        ("greater(2, 1)", 1.0, False),
        ("table_sum(revenue, none)", 5.0, True),
        ("table_sum(costs, none)", 5.0, False),
        ("divide(1, 0)", 0.0, False),
        ("206588", 206588.0, True),  # a turn of ConvFinQA that only looks a number up
        ("5%", 0.05, True),
    ],
)
def test_a_program_gives_the_executed_answer(program: str, value: object, same: bool) -> None:
    assert program_gives(program, [["", "2001"], ["revenue", "5"]], value) is same


def test_rows_whose_answers_disagree_are_marked_and_by_setting_dropped(tmp_path: Path) -> None:
    rows = [_row(0.5, "50%"), _row(0.5, "80%"), _row(0.5, "-50%"), _row(0.5, ""), _row(0.25, "25%"), _row(0.5, "half")]
    source = _write(tmp_path, test=rows)
    doubts = ["", "value", "sign", "no answer", "program", "unreadable"]
    assert [q.meta["doubt"] for q in source.load()] == doubts and source.set_aside == []
    source.drop_doubtful = True  # what disagrees goes; a missing annotation contradicts nothing
    assert [q.meta["doubt"] for q in source.load()] == ["", "no answer"]
    assert [row.reason for row in source.set_aside] == ["doubtful_gold"] * 4
    assert source.set_aside[0].why == "executed answer 0.5, annotated '80%', program 'divide(1, 2)': value"


def test_missing_folder_and_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"paths\.data="):
        list(FinQA(str(tmp_path / "none")).load())
    with pytest.raises(DataError, match=r"none of train\.json, dev\.json, test\.json"):
        list(FinQA(str(tmp_path)).load())


def test_real_rows(data: Path) -> None:
    rows = list(FinQA(str(data / "finqa")).load())
    test = [q for q in rows if q.split == "test"]
    assert len(test) >= 300 and len({q.id for q in rows}) == len(rows)
    assert not {q.document_id for q in test} & {q.document_id for q in rows if q.split == "train"}
    doubts = Counter(q.meta["doubt"] for q in rows)
    assert doubts[""] / len(rows) > 0.8
    # where nothing is in doubt, the annotator's own text is mostly right: the gold is read as it was meant
    sure = [grade(q.meta["answer"], q).scaled.value for q in rows if not q.meta["doubt"]]
    assert sum(value == 1 for value in sure) / len(sure) > 0.9
