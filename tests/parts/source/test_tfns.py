"""TFNS: both files in upstream's layout, labels checked, the same tweet with other links one document."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from finr1.core.errors import ConfigError, DataError
from finr1.parts.source.tfns import Tfns


def _write(folder: Path, train: str, valid: str = "text,label\r\nFlat,2\r\n") -> Path:
    (folder / "sent_train.csv").write_text(train, encoding="utf-8", newline="")
    (folder / "sent_valid.csv").write_text(valid, encoding="utf-8", newline="")
    return folder


def test_layout(tmp_path: Path) -> None:
    train = '\ufefftext,label\r\n"$A - Cut, again ""hard"" {text} https://t.co/1",0\r\n$a - up,1\r\n'
    rows = list(Tfns(str(_write(tmp_path, train))).load())
    assert [(q.split, q.gold, q.kind) for q in rows] == [
        ("train", "0", "label"),
        ("train", "1", "label"),
        ("test", "2", "label"),
    ]
    assert rows[0].text.endswith('Text: $A - Cut, again "hard" {text} https://t.co/1')
    assert rows[0].text.startswith("Below is a finance-related tweet. Please analyze its sentiment.")
    assert rows[0].choices == {"0": "Bearish", "1": "Bullish", "2": "Neutral"}


def test_links_do_not_make_another_document(tmp_path: Path) -> None:
    rows = list(
        Tfns(str(_write(tmp_path, "text,label\nUp https://a.b/1,1\nup  http://c.d,1\nDown https://a.b/1,0\n"))).load()
    )
    assert rows[0].document_id == rows[1].document_id != rows[2].document_id
    assert len({q.id for q in rows}) == 4


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("text,label\nDown,3\n", r"no usable row; the first, .*sent_train.csv row 1 \(line 2\): label '3'"),
        ("text,sentiment\nUp,1\n", "sent_train.csv: no column `label` in its header text,sentiment"),
        ('text,label\n"Up,1\n', "broken CSV"),
        ("text,label\n", "no row in it"),
        ("", "an empty file"),
    ],
)
def test_a_file_without_use_is_one_line(tmp_path: Path, train: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        list(Tfns(str(_write(tmp_path, train))).load())
    assert "\n" not in str(error.value)


def test_broken_rows_are_set_aside_with_their_lines(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    source = Tfns(str(_write(tmp_path / "x", "text,label\nUp,1\nDown,3\nUp\nUp,1,2\n,1\n\nEnd,0\n")))
    (tmp_path / "x" / "sent_valid.csv").write_bytes(b"text,label\n\xff\xfe,1\nFlat,2\n")
    for _ in range(2):  # each load begins the list anew
        assert [q.gold for q in source.load()] == ["1", "0", "2"]
        assert [(row.place.rpartition("/")[2], row.why) for row in source.set_aside] == [
            ("sent_train.csv row 2 (line 3)", "label '3'"),
            ("sent_train.csv row 3 (line 4)", "1 fields under a header of 2"),
            ("sent_train.csv row 4 (line 5)", "3 fields under a header of 2"),
            ("sent_train.csv row 5 (line 6)", "an empty text"),
            ("sent_valid.csv row 1 (line 2)", "invalid UTF-8 at byte 0"),
        ]
    assert {row.reason for row in source.set_aside} == {"unreadable"}


def test_missing_folder_and_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"paths.data=.*no such folder .*/tfns; give paths.data=.*FINR1_DATA"):
        list(Tfns(str(tmp_path / "tfns")).load())
    with pytest.raises(DataError, match=r"none of sent_train\.csv, sent_valid\.csv in it"):
        list(Tfns(str(tmp_path)).load())
    with pytest.raises(ConfigError, match=r"source\.tfns\.wording=tfns\.v9: no such prompt text"):
        Tfns(str(tmp_path), wording="tfns.v9")


def test_real_rows(data: Path) -> None:
    rows = list(Tfns(str(data / "tfns")).load())
    for split, least in (("train", 1000), ("test", 300)):
        golds = Counter(q.gold for q in rows if q.split == split)
        assert set(golds) == {"0", "1", "2"} and golds.total() >= least
        assert golds.most_common(1)[0][0] == "2"  # neutral is the majority upstream too
