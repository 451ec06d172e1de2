"""FinCUGE: nine list layouts and the instruction version; which element is the gold differs by task."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from finr1.answer.grade import grade
from finr1.core.errors import ConfigError
from finr1.core.types import Question
from finr1.parts.source.fincuge import FIELDS, RELATIONS, TOPICS, FinCUGE
from tests.helpers.made import array, jsonl, parquet

ROWS: dict[str, list[Any]] = {
    "fincqa": ["下文中有哪些因果事件？限产使钢价上涨", "供给减少导致市场价格提升"],
    "finqa": ["某某质押事件对应的质押物占持股比是什么？质押占比为5%", "5%"],
    "finese": ["1", "甲公司重组失败，乙公司上市", "重组失败", "甲公司"],
    "finfe": ["涨停了，真好", 2],
    "finna": ["甲公司获批", "甲公司今日公告，其产品获批。"],
    "finne": ["业绩大幅增长", "1.0"],
    "finnl": ["美债收益率上升", "外国 债券"],
    "finnsp": ["9", "标题", "丙平台（北京）失联，丁银行无恙", "丙平台（北京）;丁银行", "1", "丙平台（北京）"],
    "finre": ["甲公司", "乙公司", "持股", "甲公司持有乙公司股份"],
}
GOLD = {
    "fincqa": ("text", "供给减少导致市场价格提升"),
    "finqa": ("text", "5%"),
    "finese": ("text", "甲公司"),
    "finfe": ("label", "2"),
    "finna": ("text", "甲公司获批"),
    "finne": ("label", "1.0"),
    "finnl": ("label", "外国 债券"),
    "finnsp": ("label", "丙平台(北京)"),
    "finre": ("label", "持股"),
}


def _write(folder: Path, name: str = "train_list", **rows: list[Any]) -> FinCUGE:
    for task, lines in rows.items():
        array(folder / "FinCUGE_Publish" / task / f"{name}.json", lines)
    return FinCUGE(str(folder))


def _by_task(source: FinCUGE) -> dict[str, Question]:
    return {question.meta["task"]: question for question in source.load()}


def test_the_gold_of_each_task(tmp_path: Path) -> None:
    questions = _by_task(_write(tmp_path, **{task: [row] for task, row in ROWS.items()}))
    assert {task: (q.kind, q.gold) for task, q in questions.items()} == GOLD and set(GOLD) == set(FIELDS)
    for task, question in questions.items():
        assert question.text.endswith("\n请一步步推理，并把最终答案放到 \\boxed{}。") and "{" not in question.text[:-40]
        assert question.kind == "label" or (question.gold or "") not in question.choices, task
    assert "重组失败事件" in questions["finese"].text and "标题" in questions["finnsp"].text
    assert questions["finna"].text.startswith("根据以下新闻生成摘要。\n甲公司今日公告")


@pytest.mark.parametrize(
    ("task", "answer", "value"),
    [
        ("finfe", "积极", 1.0),
        ("finfe", "该文本情感是消极的", 0.0),
        ("finne", "1.0", 1.0),
        ("finne", "中性", 0.0),
        ("finnl", "债券、外国", 1.0),  # in any order
        ("finnl", "债券", 0.0),
        ("finnsp", "丙平台（北京）", 1.0),  # width does not matter
        ("finnsp", "丁银行", 0.0),
        ("finnsp", "无", 0.0),
        ("finre", "持股", 1.0),
        ("finre", "被持股", 0.0),  # the other way round
        ("finre", "没有关系", 0.0),
        ("fincqa", "需求减少", None),  # other words: a judge's
    ],
)
def test_answers_are_graded_by_what_they_name(tmp_path: Path, task: str, answer: str, value: float | None) -> None:
    question = _by_task(_write(tmp_path, **{task: [ROWS[task]]}))[task]
    assert grade(f"\\boxed{{{answer}}}", question).strict.value == value


def test_no_negative_entity_no_relation_no_event(tmp_path: Path) -> None:
    rows = {
        "finnsp": [["9", "", "丁银行无恙", "丁银行", "0", ""], ["8", "", "无事", "", "0", ""]],
        "finre": [["甲", "乙", "unknown", "甲和乙"]],
        "finese": [["1", "今日无事", "其他", "NaN"], ROWS["finese"]],
    }
    source = _write(tmp_path, **rows)
    questions = _by_task(source)
    assert {task: q.gold for task, q in questions.items()} == {"finnsp": "无", "finre": "unknown", "finese": "甲公司"}
    assert grade("没有关系", questions["finre"]).strict.value == 1
    assert [row.reason for row in source.set_aside] == ["asks_nothing"] * 2


def test_eval_is_held_out_and_problems_have_no_gold(tmp_path: Path) -> None:
    _write(tmp_path, finfe=[["涨", 2]], finre=[ROWS["finre"]])
    _write(tmp_path, "eval_list", finfe=[["跌", 0]])
    problems = {
        "finfe": "平",
        "finre": ["甲", "乙", "甲和乙"],
        "finese": ["甲重组", "重组失败"],
        "finnsp": ["标", "文", "戊"],
    }
    source = _write(tmp_path, "problem_list", **{t: [{"id": 0, "input": given}] for t, given in problems.items()})
    rows = [(q.meta["task"], q.split, q.gold, q.kind) for q in source.load()]
    assert Counter(rows) == Counter(
        {
            ("finfe", "train", "2", "label"): 1,
            ("finfe", "test", "0", "label"): 1,
            ("finre", "train", "持股", "label"): 1,
            ("finfe", "train", None, "label"): 1,
            ("finre", "train", None, "label"): 1,
            ("finese", "train", None, "text"): 1,
            ("finnsp", "train", None, "label"): 1,
        }
    )
    assert {q.meta["task"] for q in FinCUGE(str(tmp_path), tasks=["finre"]).load()} == {"finre"}


def test_rows_of_another_layout_are_set_aside(tmp_path: Path) -> None:
    rows = [["涨"], ["涨", None], ["涨", 3], ["", 1], "涨", 3, ["涨", 1.5], ["涨", "1"]]
    source = _write(tmp_path, finfe=rows, finnl=[["文", ""], ["文", "外国 上个"], ROWS["finnl"]])
    assert len(list(source.load())) == 2 and len(source.set_aside) == 9
    assert [row.why for row in source.set_aside[:3]] == [
        "not the 2 fields text, gold of finfe",
        "gold is None, not text",
        "label '3'",
    ]
    with pytest.raises(ConfigError, match=r"source\.fincuge\.tasks=finxx: no such task; use some of fincqa"):
        FinCUGE(str(tmp_path), tasks=["finxx"])
    with pytest.raises(ConfigError, match=r"source\.fincuge\.layout=csv: no such layout"):
        FinCUGE(str(tmp_path), layout="csv")


def test_the_instruction_version(tmp_path: Path) -> None:
    rows = [
        {"instruction": "这段文字表达的情感是什么。", "input": "补仓", "output": "情感倾向是消极。", "task": "FINFE"},
        {"instruction": "甲和乙的关系。", "input": "甲收购乙", "output": "收购", "task": "FINRE"},
        {
            "instruction": "甲和乙的关系。",
            "input": "甲和乙",
            "output": "以上内容无法得知两者之间的关系。",
            "task": "FINRE",
        },
        {"instruction": "有哪些因果事件？台风", "input": "", "output": "台风导致供给减少", "task": "FINCQA"},
    ]
    parquet(tmp_path / "data" / "train-0.parquet", rows)
    jsonl(tmp_path / "data" / "eval.jsonl", [*rows[:1], {"instruction": "问", "input": None, "output": ""}])
    source = FinCUGE(str(tmp_path), layout="instruction")
    questions = list(source.load())
    assert [(q.split, q.kind, q.gold) for q in questions] == [
        ("test", "label", "0"),
        ("train", "label", "0"),
        ("train", "label", "收购"),
        ("train", "text", "以上内容无法得知两者之间的关系。"),
        ("train", "text", "台风导致供给减少"),
    ]
    assert questions[0].text == "这段文字表达的情感是什么。\n补仓\n请一步步推理，并把最终答案放到 \\boxed{}。"
    assert [row.why for row in source.set_aside] == ["no instruction or no output"]


def test_real_rows(data: Path) -> None:
    source = FinCUGE(str(data / "fincuge"))
    rows = list(source.load())
    assert {q.meta["task"] for q in rows} == set(FIELDS) and len(rows) >= 8000
    reasons = Counter(row.reason for row in source.set_aside)
    assert reasons["unreadable"] <= 5 and reasons["asks_nothing"] >= 200
    assert {q.split for q in rows if q.gold is None} == {"train"}
    relations = {q.gold for q in rows if q.meta["task"] == "finre"} - {None}
    topics = {name for q in rows if q.meta["task"] == "finnl" for name in (q.gold or "").split()}
    assert relations <= set(RELATIONS) and len(RELATIONS) == 44 and topics <= set(TOPICS)
    examples = list(FinCUGE(str(data / "fincuge" / "instruction_layout"), layout="instruction").load())
    assert len(examples) == 6 and all(q.gold for q in examples)
