"""FinanceIQ: one file per subject, few-shot rows as train split, letters checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from finr1.core.errors import DataError
from finr1.parts.source.base import SetAside
from finr1.parts.source.financeiq import FinanceIQ

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
    ("row", "why"),
    [
        ("1,问？,甲,乙,丙,丁,E", "answer 'E'"),
        ("1,问？,甲,乙,丙,丁,", "answer ''"),
        ("1,问？,甲,乙,丙,B", "6 fields under a header of 7"),
        ("1,,甲,乙,丙,丁,B", "an empty question"),
        ("1,问？,甲,,丙,丁,B", "an empty option"),
    ],
)
def test_a_broken_row_is_set_aside_with_its_line(tmp_path: Path, row: str, why: str) -> None:
    source = _write(tmp_path, test=f"0,问？,甲,乙,丙,丁,B\n{row}\n2,问？,甲,乙,丙,丁,A\n")
    assert [q.gold for q in source.load() if q.split == "test"] == ["B", "A"]
    place = f"{tmp_path / 'test' / '税务师.csv'} row 2 (line 3)"
    assert source.set_aside == [SetAside(place, "unreadable", why, "test")]


def test_empty_folder_and_a_file_without_a_usable_row(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    with pytest.raises(DataError, match=r"none of dev/\*\.csv, test/\*\.csv in it"):
        list(FinanceIQ(str(tmp_path)).load())
    with pytest.raises(DataError, match=r"税务师\.csv: no usable row; the first, .* row 1 \(line 2\): answer 'E'"):
        list(_write(tmp_path, test="0,问？,甲,乙,丙,丁,E\n").load())
    with pytest.raises(DataError, match=r"税务师\.csv: no row in it"):
        list(_write(tmp_path, test="").load())


def test_real_rows(data: Path) -> None:
    rows = list(FinanceIQ(str(data / "financeiq")).load())
    test = [q for q in rows if q.split == "test"]
    assert len(test) >= 1000 and len({q.meta["subject"] for q in test}) == 10
    assert len([q for q in rows if q.split == "train"]) == 50
    assert {q.gold for q in test} == set("ABCD")
