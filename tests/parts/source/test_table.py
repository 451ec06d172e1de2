"""Sources configured in yaml alone, by column names: any file, FinPEE, FinanceQT, Finance-Instruct-500K."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.errors import InstantiationException

from finr1.answer.grade import grade
from finr1.core.errors import ConfigError, DataError
from finr1.parts.source.table import TableSource
from tests.helpers.made import jsonl, parquet, source_of_yaml

SHOWN = "{question}\n{choices}"
NUMBERS = {"language": "en", "kind": "number", "module": "reasoning business", "domain": "sums"}


def test_any_jsonl_by_field_names_alone(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"q": "Price?", "gold": 12.5, "doc": "page 1", "note": None},
        {"q": "Cost?", "gold": None, "doc": "page 1"},
        {"q": "Tax?", "gold": float("nan"), "doc": 2},
        {"q": "", "gold": "1", "doc": 3},
        {"gold": "1", "doc": 3},
        {"q": "Fee?", "gold": [1], "doc": 3},
    ]
    path = jsonl(tmp_path / "mine.jsonl", rows)
    fields = {"question": "q", "gold": "gold", "document": "doc"}
    source = TableSource(str(path), fields=fields, rules=[NUMBERS], name="mine")
    questions = list(source.load())
    assert [(q.source, q.text, q.gold, q.document_id, q.kind) for q in questions] == [
        ("mine", "Price?", "12.5", "mine/page 1", "number"),
        ("mine", "Cost?", None, "mine/page 1", "number"),
        ("mine", "Tax?", None, "mine/2", "number"),
    ]
    assert [row.why for row in source.set_aside] == ["empty q", "no key `q`", "`gold` is not a single value"]
    assert grade("12.50", questions[0]).strict.value == 1


def test_a_tolerance_is_for_numbers_whose_golds_show_more_digits_than_anyone_writes(tmp_path: Path) -> None:
    rows = [{"question": "Growth?", "answer": "0.06757"}]
    path = str(jsonl(tmp_path / "x.jsonl", rows))
    plain, tolerant, text = (
        next(iter(TableSource(path, rules=[rule], **more).load()))
        for rule, more in (
            (NUMBERS, {}),
            (NUMBERS, {"tolerance": 0.01}),
            ({**NUMBERS, "kind": "text"}, {"tolerance": 0.01}),
        )
    )
    assert [grade(answer, plain).strict.value for answer in ("6.757%", "6.76%", "0.068")] == [1, 0, 0]
    for tolerance, expected in (("exact", [1, 0]), ("shown", [1, 1]), (0, [1, 0])):
        (stated,) = TableSource(path, rules=[NUMBERS], tolerance=tolerance).load()
        assert [grade(answer, stated).strict.value for answer in ("6.757%", "6.7574%")] == expected
    # 1% of 0.06757 is 0.0006757: 0.068 and 6.76% are within it, 7% is not
    assert [grade(answer, tolerant).strict.value for answer in ("6.757%", "6.76%", "0.068", "7%")] == [1, 1, 1, 0]
    assert "tolerance" not in plain.meta and "tolerance" not in text.meta
    with pytest.raises(ConfigError, match=r"source\.table\.tolerance=-0\.1: not a relative difference"):
        TableSource(path, tolerance=-0.1)


def test_the_kind_auto_is_read_from_gold_and_options_row_by_row(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"q": "Valid?", "a": True, "o": None}, {"q": "Valid now?", "a": "No.", "o": None},
        {"q": "Growth?", "a": "12.5%", "o": None}, {"q": "Cost?", "a": 3.4, "o": []},
        {"q": "How many?", "a": 1, "o": None},
        {"q": "Which?", "a": "bonds", "o": ["stocks", "bonds"]},
        {"q": "And these?", "a": ["A", "B"], "o": ["x", "y", "z"]},
        {"q": "Which rate?", "a": "7%", "o": ["5%", "6%"]}, {"q": "Limit?", "a": "at least 8%", "o": None},
        {"q": "When?", "a": "2019-12-31", "o": None}, {"q": "Why?", "a": "rates rose by 5% in 2019", "o": None},
        {"q": "Hidden?", "a": None, "o": None},
    ]  # fmt: skip
    path = str(jsonl(tmp_path / "x.jsonl", rows))
    rule = {**NUMBERS, "kind": "auto"}
    found = list(
        TableSource(path, fields={"question": "q", "gold": "a", "choices": "o"}, rules=[rule], template=SHOWN).load()
    )
    assert [(q.kind, q.gold) for q in found] == [
        ("yes_no", "True"), ("yes_no", "No."), ("number", "12.5%"), ("number", "3.4"), ("number", "1"), ("choice", "B"),
        ("choice", "AB"), ("number", "7%"), ("text", "at least 8%"), ("text", "2019-12-31"),
        ("text", "rates rose by 5% in 2019"), ("text", None),
    ]  # fmt: skip
    assert all(grade(q.gold, q).strict.value == 1 for q in found if q.gold)
    assert [grade(answer, found[0]).strict.value for answer in ("Yes", "true", "False")] == [1, 1, 0]


def test_typed_columns_give_the_text_that_they_stand_for(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    day = datetime(2019, 12, 31)
    columns = {
        "float": (pa.float32(), [0.1, 3.0], ["0.1", "3.0"]),
        "half": (pa.float16(), [np.float16(0.1), np.float16(2.5)], ["0.1", "2.5"]),
        "double": (pa.float64(), [0.1, 1 / 3], ["0.1", "0.3333333333333333"]),
        "time": (pa.timestamp("us"), [day, day.replace(hour=5)], ["2019-12-31", "2019-12-31 05:00:00"]),
        "nanoseconds": (pa.timestamp("ns"), [day, day.replace(hour=5)], ["2019-12-31", "2019-12-31 05:00:00"]),
        "date": (pa.date32(), [day.date(), None], ["2019-12-31", None]),
        "decimal": (pa.decimal128(10, 2), [Decimal("12.50"), Decimal("-1000")], ["12.50", "-1000.00"]),
        "bytes": (pa.binary(), ["是".encode(), b"\xff"], ["是", "ff"]),
        "bool": (pa.bool_(), [True, False], ["True", "False"]),
    }
    arrays = {name: pa.array(values, kind) for name, (kind, values, _) in columns.items()}
    questions = pa.array([b"What?", b"And what?"], pa.binary())
    options = pa.array([[0.1], [0.2]], pa.list_(pa.float32()))
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"q": questions, "o": options, **arrays}), path)
    for name, (_, _, texts) in columns.items():
        found = list(TableSource(str(path), fields={"question": "q", "gold": name}).load())
        assert [(q.text, q.gold) for q in found] == [("What?", texts[0]), ("And what?", texts[1])], name
    fields = {"question": "q", "gold": "float", "choices": "o"}
    chosen = TableSource(str(path), fields=fields, template="{question} {choices}").load()
    assert next(iter(chosen)).choices == {"A": "0.1"}


def test_choices_from_columns_lists_and_mappings(tmp_path: Path) -> None:
    rows = [
        {
            "question": "Which?",
            "A": "one",
            "B": "two",
            "C": None,
            "list": ["one", "two"],
            "map": {"A": "one"},
            "answer": "B",
        },
        {
            "question": "What?",
            "A": "one",
            "B": "two",
            "C": "3",
            "list": ["one", "two"],
            "map": {"A": "x"},
            "answer": "two",
        },
    ]
    path = str(jsonl(tmp_path / "x.jsonl", rows))
    fields = {"question": "question", "gold": "answer"}
    columns, listed = (
        list(TableSource(path, fields={**fields, "choices": given}, wording="financeiq.v1").load())
        for given in (["A", "B", "C"], "list")
    )
    assert [(q.kind, q.gold, dict(q.choices)) for q in columns] == [
        ("choice", "B", {"A": "one", "B": "two"}),
        ("choice", "B", {"A": "one", "B": "two", "C": "3"}),
    ]
    assert "A: one    B: two" in columns[0].text and [q.gold for q in listed] == ["B", "B"]
    mapped = TableSource(path, fields={**fields, "choices": "map"})
    with pytest.raises(DataError, match="answer 'B' is none of the choices A"):
        list(mapped.load())
    broken = TableSource(path, fields={**fields, "choices": "question"})
    with pytest.raises(DataError, match="`question` is not a list of up to 8 choices"):
        list(broken.load())


def test_columns_of_any_name_hold_options_called_by_letters(tmp_path: Path) -> None:
    row = {"question": "Which?", "option_1": "bond", "option_2": "", "option_3": "gold", "a": "x", "b": "y"}
    path = str(jsonl(tmp_path / "rows.jsonl", [{**row, "answer": "C", "low": "b"}]))
    names = ["option_1", "option_2", "option_3"]
    (asked,) = TableSource(
        path, fields={"question": "question", "gold": "answer", "choices": names}, template=SHOWN
    ).load()
    assert (asked.kind, asked.gold, dict(asked.choices)) == ("choice", "C", {"A": "bond", "C": "gold"})
    fields = {"question": "question", "gold": "low", "choices": ["a", "b"]}
    (small,) = TableSource(path, fields=fields, template=SHOWN).load()
    assert (small.gold, dict(small.choices)) == ("B", {"A": "x", "B": "y"})
    many = TableSource(path, fields={"question": "question", "gold": "answer", "choices": ["option_1"] * 9})
    with pytest.raises(ConfigError, match=r"source\.table\.fields\.choices=.*: 9 columns; name up to 8"):
        list(many.load())


def test_several_right_choices_are_a_list_of_letters_or_of_texts(tmp_path: Path) -> None:
    options = ["cash, at hand", "plant", "stock"]
    golds: list[Any] = [["A", "C"], ["stock", "cash, at hand"], ["B"], "AC", "A,C", [], ["D"], {"A": 1}]
    rows = [{"question": f"Which, {n}?", "list": options, "answer": gold} for n, gold in enumerate(golds[:3])]
    fields = {"question": "question", "gold": "answer", "choices": "list"}
    source = TableSource(str(parquet(tmp_path / "x.parquet", rows)), fields=fields, wording="financeiq.v1")
    assert [q.gold for q in source.load()] == ["AC", "AC", "B"]
    rows = [{"question": f"Which, {n}?", "list": options, "answer": gold} for n, gold in enumerate(golds[3:])]
    lines = TableSource(str(jsonl(tmp_path / "x.jsonl", rows)), fields=fields, wording="financeiq.v1")
    (first, second) = lines.load()
    assert first.gold == second.gold == "AC"
    assert [row.why for row in lines.set_aside] == [
        "`answer` is not a single value",
        "answer 'D' is none of the choices A, B, C",
        "`answer` is not a single value",
    ]
    right, half = (grade(f"\\boxed{{{letters}}}", first).strict.value for letters in ("A,C", "A"))
    assert (right, half) == (1, 0)


def test_splits_by_file_and_by_hash(tmp_path: Path) -> None:
    for name in ("a.parquet", "deep/b.parquet", "test.parquet"):
        parquet(tmp_path / name, [{"question": f"{name} {n}?", "answer": "1"} for n in range(100)])
    source = TableSource(str(tmp_path), test_files=["test.parquet"], test_share=0.2)
    held_out = [q for q in source.load() if q.split == "test"]
    assert sum(q.text.startswith("test") for q in held_out) == 100 and 20 <= len(held_out) - 100 <= 65
    again = [q.id for q in source.load() if q.split == "test"]
    assert again == [q.id for q in held_out]
    assert {q.split for q in TableSource(str(tmp_path / "a.parquet")).load()} == {"train"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": None}, r"source\.table\.path=None: no file to read; set source\.table\.path="),
        ({"path": "x", "test_share": 1.5}, r"source\.table\.test_share=1\.5: not a share"),
        (
            {"path": "x", "fields": {"gold": "a"}},
            r"source\.table\.fields=.*: no field fills a placeholder of the wording",
        ),
        ({"path": "x", "wording": "none.v1"}, r"source\.table\.wording=none\.v1: no such prompt text"),
        ({"path": "x", "rules": []}, r"source\.table\.rules\.-1"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        TableSource(**settings)
    assert "\n" not in str(error.value)


def test_finpee_is_closed_and_takes_a_file_of_ones_own(tmp_path: Path) -> None:
    words = r"source\.finpee\.path=None: no file to read; set .*, or leave it out: '~source\.finpee'"
    with pytest.raises(InstantiationException, match=words):
        source_of_yaml("finpee", None)
    path = tmp_path / "mine.csv"
    path.write_text("question,answer\n期望收益率是多少？,10%\n", encoding="utf-8")
    (only,) = source_of_yaml("finpee", str(path)).load()
    assert only.text.startswith("请根据所给信息解答以下金融计算题\n期望收益率是多少？\n") and only.kind == "number"
    assert [grade(answer, only).strict.value for answer in ("\\boxed{10\\%}", "\\boxed{11\\%}")] == [1, 0]


def test_finance_qt_is_code_that_no_rule_compares(tmp_path: Path) -> None:
    row = {"context": "You are a helpful assistant for quant trading.", "answer": "import x", "question": "Write it."}
    parquet(tmp_path / "data" / "train-00000-of-00001.parquet", [row])
    (only,) = source_of_yaml("finance_qt", str(tmp_path)).load()
    assert only.text == (
        "Read the context below and answer the questions.\n"
        "Context: You are a helpful assistant for quant trading.\nQuestion: Write it."
    )
    assert (only.kind, only.module, only.gold) == ("code", "financial code", "import x")
    assert grade("import x", only).strict.value is None


def test_finance_instruct_reads_lines_of_a_json_file(tmp_path: Path) -> None:
    rows = [{"system": "\n", "user": f"Why {n}?", "assistant": "Because."} for n in range(200)]
    jsonl(tmp_path / "train.json", rows)
    questions = list(source_of_yaml("finance_instruct_500k", str(tmp_path), test_share=0.1).load())
    assert len(questions) == 200 and questions[0].text == "Why 0?" and questions[0].kind == "text"
    assert 8 <= sum(q.split == "test" for q in questions) <= 36


def test_the_real_row_of_finance_instruct(data: Path) -> None:
    (only,) = source_of_yaml("finance_instruct_500k", str(data / "finance_instruct_500k")).load()
    assert only.text.startswith("Explain tradeoffs") and (only.gold or "").startswith("Fiscal and monetary policy")
