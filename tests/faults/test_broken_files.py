"""Corrupt source files, for every source that reads files: a row is set aside with its place, or one clear error."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from finr1.core.errors import DataError
from finr1.parts.source.ant_finance import AntFinance
from finr1.parts.source.base import Source
from finr1.parts.source.convfinqa import ConvFinQA
from finr1.parts.source.financeiq import FinanceIQ
from finr1.parts.source.fincorpus import FinCorpus
from finr1.parts.source.fincuge import FinCUGE
from finr1.parts.source.finqa import FinQA
from finr1.parts.source.reading import MAX_ROW
from finr1.parts.source.tfns import Tfns
from tests.helpers.made import source_of_yaml

BIG = 100_000_000


def by_yaml(name: str) -> Callable[[str], Source]:
    return partial(source_of_yaml, name)


def finqa(text: str = "what is 1 + 1?") -> dict[str, Any]:
    qa = {"question": text, "exe_ans": 2.0, "answer": "2", "program": "add(1, 1)"}
    return {
        "id": "x",
        "filename": f"{len(text)}/{text[:9]}.pdf",
        "pre_text": [],
        "post_text": [],
        "table": [],
        "qa": qa,
    }


def talk(text: str = "what is 1 + 1?") -> dict[str, Any]:
    inner = {"dialogue_break": [text], "exe_ans_list": [2.0], "turn_program": ["add(1, 1)"]}
    more = {"annotation": inner, "filename": f"{text[:9]}.pdf", "pre_text": [], "post_text": [], "table": []}
    return {"id": "Single_a/2009/page_1.pdf-1", **more}


def exam(text: str = "现金是资产吗？") -> dict[str, Any]:
    return {"text": f"{text}\nA、是\nB、否\n答案：A", "meta": {"source": "x"}}


def asked(text: str) -> dict[str, Any]:
    return {"question": text, "answer": "1"}


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def array(rows: list[Any]) -> bytes:
    return b"[\n" + b",\n".join(json.dumps(row, ensure_ascii=False).encode() for row in rows) + b"\n]"


def table(*header: str, mark: bytes = b"") -> Callable[[list[Any]], bytes]:
    def write(rows: list[Any]) -> bytes:
        file = io.StringIO(newline="")
        csv.writer(file).writerows([header, *rows])
        return mark + file.getvalue().encode()

    return write


def columns(rows: list[Any]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


class Kind(NamedTuple):
    """A source with its file, how rows are written, a valid row for a question text, and broken rows."""

    name: str
    make: Callable[[str], Source]
    file: str
    write: Callable[[list[Any]], bytes]
    row: Callable[[str], Any]
    lacks: Any  # a row without the question
    nan: Any  # a row whose text or gold is NaN, in the file's format
    place: str  # of the second row

    def load(self, folder: Path, data: bytes) -> tuple[list[str], list[str]]:
        """The texts of the questions, and the place and reason of each row set aside."""
        path = folder / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
        source = self.make(str(folder))
        texts = [question.text for question in source.load()]
        return texts, [f"{row.place}: {row.why}" for row in source.set_aside]  # type: ignore[attr-defined]

    def without_column(self) -> bytes:
        """A file in which no row has the question column."""
        if self.file.endswith(".csv"):
            return b"tweet,label\nx,1\n"
        return columns([{"q": "x"}]) if self.file.endswith(".parquet") else self.write([self.lacks] * 2)


NAN, CSV_PLACE = float("nan"), "row 2 (line 3)"
IQ = ("", "Question", "A", "B", "C", "D", "Answer")
ANT = ("id", "question", "A", "B", "C", "D", "answer")
KINDS = [
    Kind("tfns csv", Tfns, "sent_train.csv", table("text", "label"), lambda text: [text, "1"], ["short"],
         ["x", "nan"], CSV_PLACE),
    Kind("financeiq csv", FinanceIQ, "dev/精算师.csv", table(*IQ), lambda text: ["7", text, *"1234", "A"], ["short"],
         ["7", "", *"1234", "A"], CSV_PLACE),
    Kind("ant_finance csv", AntFinance, "Ant/金融认知/金融意图理解.csv", table(*ANT, mark=b"\xef\xbb\xbf"),
         lambda text: [str(len(text)), text, *"1234", "A"], ["short"], ["7", "", *"1234", "A"], CSV_PLACE),
    Kind("finqa json", FinQA, "train.json", array, finqa, {"id": "x"},
         {**finqa(), "qa": {**finqa()["qa"], "question": NAN}}, CSV_PLACE),
    Kind("convfinqa json", ConvFinQA, "train.json", array, talk, {"id": "x"},
         {**talk(), "annotation": {**talk()["annotation"], "dialogue_break": NAN}}, CSV_PLACE),
    Kind("fincuge json", FinCUGE, "FinCUGE_Publish/finfe/train_list.json", array, lambda text: [text, 1], ["x"],
         [NAN, 1], CSV_PLACE),
    Kind("finpee json", by_yaml("finpee"), "mine.json", array, asked, {"answer": "1"},
         {"question": NAN, "answer": "1"}, CSV_PLACE),
    Kind("jsonl", by_yaml("jsonl"), "a.jsonl", lines, asked, {"answer": "1"},
         {"question": NAN, "answer": "1"}, "line 2"),
    Kind("finance_instruct json lines", by_yaml("finance_instruct_500k"), "train.json", lines,
         lambda text: {"system": "\n", "user": text, "assistant": "money"}, {"system": "\n", "assistant": "money"},
         {"system": "\n", "user": NAN, "assistant": "money"}, "line 2"),
    Kind("fincorpus jsonl.gz", FinCorpus, "fin_exam.jsonl.gz", lines, exam, {"meta": {}}, {"text": NAN, "meta": {}},
         "line 2"),
    Kind("parquet", by_yaml("parquet"), "a.parquet", columns, asked, None,
         {"question": None, "answer": None}, "row 2"),
    Kind("finance_qt parquet", by_yaml("finance_qt"), "data/train-0.parquet", columns,
         lambda text: {"context": "You help.", "answer": "print(1)", "question": text}, None,
         {"context": "You help.", "answer": "print(1)", "question": None}, "row 2"),
]  # fmt: skip
IDS = [kind.name for kind in KINDS]
FIRST, LAST = "the first question?", "the third question, a longer one?"


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_a_row_with_invalid_utf8_is_set_aside(kind: Kind, tmp_path: Path) -> None:
    data = kind.write([kind.row(FIRST), kind.row("MARK of the second"), kind.row(LAST)]).replace(b"MARK", b"M\xffRK")
    texts, aside = kind.load(tmp_path, data)
    assert len(texts) == 2 and FIRST in texts[0] and LAST in texts[1]
    assert len(aside) == 1 and f"{kind.place}: invalid UTF-8" in aside[0]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.lacks is not None], ids=lambda kind: kind.name)
def test_a_row_without_its_column_is_set_aside(kind: Kind, tmp_path: Path) -> None:
    texts, aside = kind.load(tmp_path, kind.write([kind.row(FIRST), kind.lacks, kind.row(LAST)]))
    assert len(texts) == 2 and LAST in texts[1]
    assert len(aside) == 1 and f"{kind.place}: " in aside[0]


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_an_empty_file_or_one_without_its_column_is_one_error(kind: Kind, tmp_path: Path) -> None:
    for data in (kind.without_column(), b""):
        with pytest.raises(DataError, match=kind.file.rpartition("/")[2]) as error:
            kind.load(tmp_path, data)
        assert "\n" not in str(error.value) and "; " in str(error.value)


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_nan_in_place_of_text_or_gold_sets_the_row_aside(kind: Kind, tmp_path: Path) -> None:
    texts, aside = kind.load(tmp_path, kind.write([kind.row(FIRST), kind.nan, kind.row(LAST)]))
    assert len(texts) == 2 and FIRST in texts[0] and LAST in texts[1]
    assert not re.search(r"\bnan\b", "".join(texts), re.IGNORECASE)
    assert len(aside) == 1 and f"{kind.place}: " in aside[0]


def test_a_gold_of_nan_is_no_gold(tmp_path: Path) -> None:
    rows = [{"question": FIRST, "answer": 1.0}, {"question": LAST, "answer": NAN}]
    (tmp_path / "a.parquet").write_bytes(columns(rows))
    (tmp_path / "a.jsonl").write_bytes(lines(rows))
    for source in (source_of_yaml(name, str(tmp_path)) for name in ("parquet", "jsonl")):
        assert [question.gold for question in source.load()] == ["1.0", None]


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
@pytest.mark.slow
def test_a_line_of_100_mb_is_set_aside_and_memory_stays_bounded(kind: Kind, tmp_path: Path) -> None:
    """Python's memory stays within a few times the longest row allowed; a JSON array is held as text."""
    data = kind.write([kind.row(FIRST), kind.row("x" * BIG), kind.row(LAST)])
    path = tmp_path / kind.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
    del data
    source = kind.make(str(tmp_path))
    tracemalloc.start()
    texts = [question.text for question in source.load()]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(texts) == 2 and FIRST in texts[0] and LAST in texts[1]
    (row,) = source.set_aside  # type: ignore[attr-defined]
    assert kind.place in row.place and row.why == f"longer than {MAX_ROW:,} bytes"
    bound = 3.2 * BIG if kind.write is array else 5 * MAX_ROW
    assert peak < bound, f"{peak / 1e6:.0f} MB"
