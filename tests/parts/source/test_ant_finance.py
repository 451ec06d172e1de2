"""Ant_Finance: 33 tasks by folder and file, three to five options or 是/否, rows without gold never scored."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from finr1.core.errors import ConfigError
from finr1.parts.source.ant_finance import AntFinance


def _write(folder: Path, ability: str, task: str, text: str) -> AntFinance:
    path = folder / "Ant" / ability / f"{task}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\ufeff" + text, encoding="utf-8")
    return AntFinance(str(folder), test_share=1.0)


def test_options_context_and_hidden_golds(tmp_path: Path) -> None:
    _write(tmp_path, "金融知识", "医师", "id,question,A,B,C,D,E,answer\n0,几厘米？,1,2,3,4,5,e\n")
    _write(tmp_path, "金融认知", "情绪", "id,question,A,B,C,answer\n0,涨了,消极,积极,中性,B\n1,跌了,消极,积极,中性,\n")
    source = _write(tmp_path, "金融逻辑", "解读", 'id,context,question,A,B,C,D,answer\n7,"文\n本",问？,甲,乙,丙,丁,A\n')
    by_task = {task: [q for q in source.load() if q.meta["task"] == task] for task in ("医师", "情绪", "解读")}
    (doctor,), (up, down), (logic,) = by_task.values()
    assert (doctor.gold, list(doctor.choices)) == ("E", list("ABCDE"))
    assert (up.gold, up.split, list(up.choices)) == ("B", "test", list("ABC"))
    assert (down.gold, down.split) == (None, "train")
    assert logic.text.startswith("文\n本\n问？\n选项:\nA: 甲    B: 乙    C: 丙    D: 丁\n") and logic.kind == "choice"
    assert logic.meta["ability"] == "金融逻辑"


def test_yes_no_tasks_say_what_is_asked(tmp_path: Path) -> None:
    source = _write(tmp_path, "安全合规", "金融事实性", "id,question,answer\n1,银行能放贷。,是\n")
    (only,) = source.load()
    assert only.text.startswith("判断下面的说法是否正确，回答“是”或“否”。\n银行能放贷。\n")
    assert (only.kind, only.gold, only.choices) == ("yes_no", "是", {})


def test_questions_on_one_text_stay_on_one_side(tmp_path: Path) -> None:
    rows = "".join(f"{n},文本{n // 4},问{n}？,甲,乙,丙,丁,A\n" for n in range(160))
    _write(tmp_path, "金融逻辑", "解读", "id,context,question,A,B,C,D,answer\n" + rows)
    questions = list(AntFinance(str(tmp_path), test_share=0.25).load())
    sides: dict[str, set[str]] = {}
    for question in questions:
        sides.setdefault(question.document_id, set()).add(question.split)
    assert len(sides) == 40 and all(len(side) == 1 for side in sides.values())
    held_out = sum(q.split == "test" for q in questions)
    assert 4 <= held_out / 4 <= 18  # a quarter of 40 documents, give or take
    assert [q.split for q in AntFinance(str(tmp_path), test_share=0.25).load()] == [q.split for q in questions]
    assert {q.split for q in AntFinance(str(tmp_path), test_share=0.0).load()} == {"train"}


def test_broken_rows_and_settings(tmp_path: Path) -> None:
    source = _write(
        tmp_path / "a", "金融知识", "甲", "id,question,A,B,answer\n0,问？,甲,乙,C\n1,,甲,乙,A\n2,问？,甲,乙,A\n"
    )
    assert [q.gold for q in source.load()] == ["A"]
    assert [row.why for row in source.set_aside] == ["answer 'C'", "an empty question"]
    source = _write(tmp_path / "b", "金融知识", "新任务", "id,question,answer\n0,问？,是\n1,问？,\n")
    with pytest.raises(ValueError, match=r"新任务\.csv: no usable row; the first, .*: no options"):
        list(source.load())
    with pytest.raises(ConfigError, match=r"source\.ant_finance\.test_share=2: not a share"):
        AntFinance(str(tmp_path), test_share=2)


def test_real_rows(data: Path) -> None:
    source = AntFinance(str(data / "ant_finance"))
    rows = list(source.load())
    assert source.set_aside == [] and len(rows) >= 5000
    assert len({q.meta["task"] for q in rows}) == 33 and len({q.meta["ability"] for q in rows}) == 5
    shown = [q for q in rows if q.gold is not None]
    assert 1500 <= len(shown) <= 71 * 33
    assert max(Counter(q.meta["task"] for q in shown).values()) <= 71  # upstream shows 71 golds a task
    assert {q.kind for q in rows if q.meta["ability"] == "安全合规"} == {"yes_no"}
    assert all(q.gold is not None for q in rows if q.split == "test")
    assert 0.4 < sum(q.split == "test" for q in shown) / len(shown) < 0.6
    assert {q.gold for q in shown if q.meta["task"] == "金融合规性"} == {"否"}
