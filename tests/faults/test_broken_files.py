"""Broken source files, one source for each kind of reader: a row is set aside with its place, or one clear error."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from finr1.errors import DataError
from finr1.source.base import Source
from finr1.source.convfinqa import ConvFinQA
from finr1.source.fincorpus import FinCorpus
from finr1.source.fincuge import FinCUGE
from finr1.source.finqa import FinQA
from finr1.source.jsonl import Jsonl
from finr1.source.parquet import Parquet
from finr1.source.reading import MAX_ROW
from finr1.source.tfns import Tfns

BIG = 100_000_000


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


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def array(rows: list[Any]) -> bytes:
    return b"[\n" + b",\n".join(json.dumps(row, ensure_ascii=False).encode() for row in rows) + b"\n]"


def table(rows: list[Any]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerows([["text", "label"], *rows])
    return file.getvalue().encode()


def columns(rows: list[Any]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


class Kind(NamedTuple):
    """A source over one kind of reader: where its file lies, how rows are written, a row that asks this, and not."""

    name: str
    make: Callable[[str], Source]
    file: str
    write: Callable[[list[Any]], bytes]
    row: Callable[[str], Any]
    lacks: Any  # a row without what is asked
    place: str  # of the second row

    def load(self, folder: Path, data: bytes) -> tuple[list[str], list[str]]:
        """The texts of the questions, and place and reason of what was set aside."""
        path = folder / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(data, 1) if path.suffix == ".gz" else data)
        source = self.make(str(folder))
        texts = [question.text for question in source.load()]
        return texts, [f"{row.place}: {row.why}" for row in source.set_aside]  # type: ignore[attr-defined]


KINDS = [
    Kind("csv", Tfns, "sent_train.csv", table, lambda text: [text, "1"], ["short"], "row 2 (line 3)"),
    Kind("json objects", FinQA, "train.json", array, finqa, {"id": "x"}, "row 2 (line 3)"),
    Kind("json conversations", ConvFinQA, "train.json", array, talk, {"id": "x"}, "row 2 (line 3)"),
    Kind("json lists", FinCUGE, "FinCUGE_Publish/finfe/train_list.json", array, lambda text: [text, 1], ["x"],
         "row 2 (line 3)"),
    Kind("jsonl", Jsonl, "a.jsonl", lines, lambda text: {"question": text, "answer": "1"}, {"answer": "1"}, "line 2"),
    Kind("jsonl.gz", FinCorpus, "fin_exam.jsonl.gz", lines, exam, {"meta": {}}, "line 2"),
    Kind("parquet", Parquet, "a.parquet", columns, lambda text: {"question": text, "answer": "1"}, None, "row 2"),
]  # fmt: skip
IDS = [kind.name for kind in KINDS]
FIRST, LAST = "the first question?", "the third question?"


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_bad_utf8_sets_its_row_aside(kind: Kind, tmp_path: Path) -> None:
    data = kind.write([kind.row(FIRST), kind.row("MARK of the second"), kind.row(LAST)]).replace(b"MARK", b"M\xffRK")
    texts, aside = kind.load(tmp_path, data)
    assert len(texts) == 2 and FIRST in texts[0] and LAST in texts[1]
    assert len(aside) == 1 and f"{kind.place}: no UTF-8 text" in aside[0]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.lacks is not None], ids=IDS[:-1])
def test_a_row_without_its_column_is_set_aside(kind: Kind, tmp_path: Path) -> None:
    texts, aside = kind.load(tmp_path, kind.write([kind.row(FIRST), kind.lacks, kind.row(LAST)]))
    assert len(texts) == 2 and LAST in texts[1]
    assert len(aside) == 1 and f"{kind.place}: " in aside[0]


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_a_file_without_its_column_or_without_anything_is_one_error(kind: Kind, tmp_path: Path) -> None:
    lacking = {"csv": b"tweet,label\nx,1\n", "parquet": columns([{"q": "x"}])}
    wrong = lacking[kind.name] if kind.name in lacking else kind.write([kind.lacks] * 2)
    for data in (wrong, b""):
        with pytest.raises(DataError, match=kind.file.rpartition("/")[2]) as error:
            kind.load(tmp_path, data)
        assert "\n" not in str(error.value) and "; " in str(error.value)


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_nan_in_place_of_text_or_gold_is_no_question_with_nan(kind: Kind, tmp_path: Path) -> None:
    if kind.name == "csv":
        data = table([[FIRST, "1"], ["x", "nan"], [LAST, "1"]])
    elif kind.name == "parquet":  # a column of numbers where text should be has no text at all
        data = columns([{"question": FIRST, "answer": 1.0}, {"question": None, "answer": float("nan")},
                        {"question": LAST, "answer": float("nan")}])  # fmt: skip
    else:
        data = kind.write([kind.row(FIRST), kind.row("MARK"), kind.row(LAST)])
        whole = json.dumps(kind.row("MARK"), ensure_ascii=False)
        mark = next(word for word in ('"MARK"', '["MARK"]', '"MARK\\nA、是\\nB、否\\n答案：A"') if word in whole)
        data = data.replace(mark.encode(), b"NaN")
    texts, aside = kind.load(tmp_path, data)
    assert len(texts) == 2 and FIRST in texts[0] and LAST in texts[1]
    assert not re.search(r"\bnan\b", "".join(texts), re.IGNORECASE)
    assert len(aside) == 1 and f"{kind.place}: " in aside[0]


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
@pytest.mark.slow
def test_a_line_of_100_mb_is_set_aside_and_memory_stays_bounded(kind: Kind, tmp_path: Path) -> None:
    """Lines and Parquet: a few times the longest row allowed, of Python's memory. A JSON array is held as text."""
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
    bound = 3.2 * BIG if "json " in kind.name else 5 * MAX_ROW
    assert peak < bound, f"{peak / 1e6:.0f} MB"
