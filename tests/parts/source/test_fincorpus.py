"""FinCorpus: exam texts are split, answers read in every format that public readers of the file know."""

from __future__ import annotations

from pathlib import Path

import pytest

from finr1.core.types import Kind
from finr1.parts.source.fincorpus import Exam, FinCorpus, read_answer, split_exam
from tests.helpers.made import EXAMS, exam, jsonl

OPTIONS = {"A": "现金", "B": "厂房", "C": "存货"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("问？\nA、甲\nB、乙\n答案：B\n分析解释：因为\nC、丙", Exam("问？", {"A": "甲", "B": "乙"}, "B")),
        ("问？\nA．甲\nB.乙\nＣ．丙\n答案: A", Exam("问？", {"A": "甲", "B": "乙", "C": "丙"}, "A")),
        ("材料\n第二行\n问？\nA、甲\n接着\nB、乙\n", Exam("材料\n第二行\n问？", {"A": "甲\n接着", "B": "乙"}, None)),
        ("A股市场如何？\n答案：\n上涨\n很多\n解析：因为", Exam("A股市场如何？", {}, "上涨\n很多")),
        ("问？\nB、先\nA、甲\nB、乙\n正确答案：乙", Exam("问？\nB、先", {"A": "甲", "B": "乙"}, "乙")),
        ("问？\n答案：", Exam("问？", {}, None)),
    ],
)
def test_split_exam(text: str, expected: Exam) -> None:
    assert split_exam(text) == expected


@pytest.mark.parametrize(
    ("answer", "choices", "expected"),
    [
        ("B", OPTIONS, ("choice", "B")),
        ("AC", OPTIONS, ("choice", "AC")),
        ("C,A。", OPTIONS, ("choice", "AC")),
        ('["A","C"]', OPTIONS, ("choice", "AC")),
        ('["存货"]', OPTIONS, ("choice", "C")),
        ('["现金","存货"]', OPTIONS, ("choice", "AC")),
        ('["甲，乙","丁"]', {"A": "甲，乙", "B": "丙", "C": "丁"}, ("choice", "AC")),  # a comma inside an option
        ("A、C", OPTIONS, ("choice", "AC")),
        ('["正确"]', {}, ("yes_no", "正确")),
        ('["企业的资源","负债"]', {}, ("text", "企业的资源；负债")),
        ("[注]见教材", {}, ("text", "[注]见教材")),
        ("存货", OPTIONS, ("choice", "C")),
        ("B、厂房", OPTIONS, ("choice", "B")),
        (None, OPTIONS, ("choice", None)),
        ("正确", {}, ("yes_no", "正确")),
        ("错。", {}, ("yes_no", "错。")),
        ("不对称信息", {}, ("text", "不对称信息")),
        ("企业的资源", {}, ("text", "企业的资源")),
        (None, {}, ("text", None)),
    ],
)
def test_read_answer(answer: str | None, choices: dict[str, str], expected: tuple[Kind, str | None]) -> None:
    assert read_answer(Exam("问？", choices, answer)) == expected


def test_rows_of_the_gzip_file(tmp_path: Path) -> None:
    rows = [*EXAMS, {"text": "没有答案？\nA、一\nB、二", "meta": {}}]
    jsonl(tmp_path / "data" / "fin_exam.jsonl.gz", rows)
    questions = list(FinCorpus(str(tmp_path)).load())
    assert [(q.kind, q.gold) for q in questions] == [
        ("choice", "B"),
        ("choice", "AC"),
        ("choice", "C"),
        ("yes_no", "正确"),
        ("text", "企业拥有的资源"),
        ("choice", None),
    ]
    assert questions[1].text == (
        "下列属于流动资产的有（ ）。\nA、现金\nB、厂房\nC、存货\nD、商誉\n请一步步推理，并把最终答案放到 \\boxed{}。"
    )
    assert questions[0].meta["source"] == "made" and "100×5%" not in questions[0].text


def test_a_share_is_held_out_and_only_of_rows_that_show_their_gold(tmp_path: Path) -> None:
    rows = [exam(f"第{n}问？", ["甲", "乙"], "A") for n in range(300)]
    jsonl(tmp_path / "fin_exam.jsonl", [*rows, {"text": "无答案？\nA、甲\nB、乙"}])
    *shown, hidden = FinCorpus(str(tmp_path), test_share=0.3).load()
    assert hidden.gold is None and hidden.split == "train"
    assert 60 < sum(q.split == "test" for q in shown) < 120  # 90 expected, standard deviation 8
    *all_out, hidden = FinCorpus(str(tmp_path), test_share=1.0).load()
    assert {q.split for q in all_out} == {"test"} and hidden.split == "train"
    assert {q.split for q in FinCorpus(str(tmp_path)).load()} == {"train"}


def test_broken_rows_are_set_aside(tmp_path: Path) -> None:
    rows = [
        exam("问？", ["甲", "乙"], "丁"),
        exam("问？", ["甲", "乙"], "[["),
        exam("问？", ["甲"], "A"),
        {"text": "A、甲\nB、乙\n答案：A"},
        {"text": float("nan")},
        {"meta": {}},
        EXAMS[0],
    ]
    jsonl(tmp_path / "fin_exam.jsonl", rows)
    source = FinCorpus(str(tmp_path))
    assert [q.gold for q in source.load()] == ["B"]
    whys = [row.why for row in source.set_aside]
    assert whys[0] == "answer '丁' is none of the options A, B" and whys[1].startswith("Expecting value")
    assert whys[2:] == [
        "only one option",
        "no question before its options or answer",
        "`text` is nan, not text",
        "no key `text`",
    ]
    assert [row.place.rpartition(" ")[2] for row in source.set_aside] == ["1", "2", "3", "4", "5", "6"]


def test_a_hostile_text_takes_linear_time() -> None:
    import time

    start = time.process_time()
    split_exam("A、" * 100_000 + "\n" * 100_000 + " " * 100_000 + "答案" * 100_000)
    assert time.process_time() - start < 2
