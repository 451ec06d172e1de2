"""FinanceIQ: one file a subject, few-shot rows as train split, letters checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from finr1.errors import DataError
from finr1.source.financeiq import FinanceIQ

HEADER = ",Question,A,B,C,D,Answer\n"


def _write(folder: Path, dev: str = "0,问？,甲,乙,丙,丁,B\n", test: str = "0,问？,甲,乙,丙,丁,c\n") -> FinanceIQ:
    for part, rows in (("dev", dev), ("test", test)):
        (folder / part).mkdir(exist_ok=True)
        (folder / part / "税务师.csv").write_text(HEADER + rows, encoding="utf-8")
    return FinanceIQ(str(folder))


def test_layout(tmp_path: Path) -> None:
    train, test = _write(tmp_path).load()
    assert (train.split, train.gold, test.split, test.gold) == ("train", "B", "test", "C")
    assert train.text == "问？\n选项:\nA: 甲    B: 乙    C: 丙    D: 丁\n请一步步推理，并把最终答案放到 \\boxed{}。"
    assert train.choices == {"A": "甲", "B": "乙", "C": "丙", "D": "丁"}
    assert train.document_id != test.document_id  # the running numbers of both files begin at 0
    assert (train.language, train.kind, train.meta["subject"]) == ("zh", "choice", "税务师")


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ("0,问？,甲,乙,丙,丁,B\n1,问？,甲,乙,丙,丁,E\n", r"税务师.csv row 2 \(line 3\): answer 'E'"),
        ("0,问？,甲,乙,丙,丁,\n", "row 1 .*: answer ''"),
        ("0,问？,甲,乙,丙,B\n", "row 1 .*: another number of fields"),
    ],
)
def test_faults_name_file_and_row(tmp_path: Path, test: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(_write(tmp_path, test=test).load())


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    with pytest.raises(DataError, match=r"no <subject>\.csv in it"):
        list(FinanceIQ(str(tmp_path)).load())


def test_real_rows(data: Path) -> None:
    rows = list(FinanceIQ(str(data / "financeiq")).load())
    test = [q for q in rows if q.split == "test"]
    assert len(test) >= 1000 and len({q.meta["subject"] for q in test}) == 10
    assert len([q for q in rows if q.split == "train"]) == 50
    assert {q.gold for q in test} == set("ABCD")
