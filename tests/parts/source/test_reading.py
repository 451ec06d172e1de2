"""Reading files: rows in order with their lines; a fault sets one row aside, or is one clear error."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from finr1.core.errors import ConfigError, DataError
from finr1.parts.source import reading
from finr1.parts.source.reading import MAX_ROW, DataFile, SourceRow, find, read
from tests.helpers import made


def _read(path: Path, data: bytes, columns: tuple[str, ...] = (), row_type: type = dict) -> list[SourceRow]:
    path.write_bytes(data)
    return list(read(DataFile(str(path)), columns, row_type))


def _shown(rows: list[SourceRow]) -> list[object]:
    return [row.fault or row.values for row in rows]


def test_jsonl_sets_broken_lines_aside_by_number(tmp_path: Path) -> None:
    deep = b"[" * 100_000
    lines = [b'\xef\xbb\xbf{"a": 1}', b'{"a": "\xff"}', b"", b"{", b"3", deep, b'{"a": 2}']
    rows = _read(tmp_path / "x.jsonl", b"\n".join(lines))
    assert [row.place.rpartition("line ")[2] for row in rows] == ["1", "2", "4", "5", "6", "7"]  # 3 is blank
    assert [rows[0].values, rows[-1].values] == [{"a": 1}, {"a": 2}]
    faults = [row.fault for row in rows[1:-1]]
    assert faults[0] == "invalid UTF-8 at byte 7" and faults[1].startswith("broken JSON (Expecting")
    assert faults[2] == "3 is not a JSON object" and faults[3].startswith("broken JSON (")
    assert rows[0].origin == f"{tmp_path.name}/x.jsonl:1"


def test_a_line_of_100_mb_is_not_held(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "x.jsonl"
    with path.open("wb") as file:
        file.write(b'{"a": 1}\n{"a": "')
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n{"a": 2}\n')
    tracemalloc.start()
    rows = list(read(DataFile(str(path))))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert _shown(rows) == [{"a": 1}, f"longer than {MAX_ROW:,} bytes", {"a": 2}]
    assert rows[1].place.endswith("line 2") and rows[2].place.endswith("line 3")
    assert peak < 5 * MAX_ROW


@pytest.mark.parametrize("quote", [b"", b'"'], ids=["plain", "opens a quote"])
def test_csv_stays_in_step_after_a_long_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quote: bytes) -> None:
    monkeypatch.setattr(reading, "MAX_ROW", 50)
    long = b"1," + quote + b"x" * 200 + b"\n" + (b"more" + quote + b"\n" if quote else b"")
    rows = _read(tmp_path / "x.csv", b"a,b\n0,zero\n" + long + b"2,two\n", ("a", "b"))
    assert [row.values.get("a") for row in rows] == ["0", None, "2"]
    assert rows[1].fault.startswith("longer than") and rows[1].place.endswith("(line 3)")


def test_csv_rows_with_their_lines(tmp_path: Path) -> None:
    text = '\ufeffa,b\r\n1,"two\nlines ""quoted"""\r\n\r\n3\r\n4,"x"y\r\n5,\xff\r\n6,six\r\n'
    data = text.encode().replace("\xff".encode(), b"\xff")
    rows = _read(tmp_path / "x.csv", data, ("a", "b"))
    assert _shown(rows) == [
        {"a": "1", "b": 'two\nlines "quoted"'},
        "1 fields under a header of 2",
        "broken CSV (',' expected after '\"')",
        "invalid UTF-8 at byte 2",
        {"a": "6", "b": "six"},
    ]
    assert [row.place.rpartition("row ")[2] for row in rows] == [
        "1 (line 2)", "2 (line 5)", "3 (line 6)", "4 (line 7)", "5 (line 8)",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("opens", "closes"),
    [({10}, set()), ({10}, {500}), ({10, 700}, {500}), ({0, 999}, set())],
    ids=["never closes", "closes by chance", "twice", "first and last"],
)
def test_a_quote_that_does_not_close_costs_one_row(tmp_path: Path, opens: set[int], closes: set[int]) -> None:
    quoted = [("'" if i in opens else "", "'" if i in closes else "") for i in range(1000)]
    lines = [f"{i},{opening}what is {i}?{closing},{i}".replace("'", '"') for i, (opening, closing) in enumerate(quoted)]
    rows = _read(tmp_path / "x.csv", "\n".join(["id,q,a", *lines, ""]).encode())
    assert len(rows) == 1000 and {i for i, row in enumerate(rows) if row.fault} == opens
    assert [row.values["a"] for row in rows if not row.fault] == [str(i) for i in range(1000) if i not in opens]
    assert all(row.place.endswith(f"row {i + 1} (line {i + 2})") for i, row in enumerate(rows))


def test_a_csv_field_of_several_lines_stays_one_row(tmp_path: Path) -> None:
    poem = "one, two\nthree, four\nfive, six\n\nseven, eight\nend"
    rows = _read(tmp_path / "x.csv", f'text,label\n"{poem}",1\n"a,b\nc,d\ne",0\n'.encode())
    assert _shown(rows) == [{"text": poem, "label": "1"}, {"text": "a,b\nc,d\ne", "label": "0"}]


@pytest.mark.parametrize(
    "text",
    [
        '[{"a": 1}]\n[{"a": 2}, {"a": 3}]',
        '{"train": {"rows": [{"a": 1}], "n": 1}, "test": {"more": {}, "rows": [{"a": 2}, {"a": 3}]}}',
        '{"version": "[1", "n": 3, "train": [{"a": 1}, {"a": 2}], "none": null, "test": [{"a": 3}]}',
        '{"dev":\n[{"a": 1}]}\n{"train": [{"a": 2}, {"a": 3}]}',
    ],
)
def test_all_arrays_of_a_json_file_are_read(tmp_path: Path, text: str) -> None:
    assert [row.values for row in _read(tmp_path / "x.json", text.encode())] == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_one_row_with_a_list_is_a_row(tmp_path: Path) -> None:
    row = {"question": "Which?", "options": ["one", "two"]}
    assert [row.values for row in _read(tmp_path / "x.json", json.dumps(row).encode())] == [row]


def test_json_arrays_of_objects_and_of_lists(tmp_path: Path) -> None:
    rows = _read(tmp_path / "x.json", b'[\n {"a": NaN},\n [1], {"a": "\xff"},\n {"a": "' + b"x" * 9 + b'"}\n]')
    assert rows[0].values["a"] != rows[0].values["a"] and rows[3].values == {"a": "x" * 9}
    assert [row.fault for row in rows] == ["", "[1] is not a JSON object", "invalid UTF-8", ""]
    assert [row.place.rpartition("line ")[2] for row in rows] == ["2)", "3)", "3)", "4)"]
    assert [row.values for row in _read(tmp_path / "y.json", b'[["a", 1], [2]]', row_type=list)] == [["a", 1], [2]]
    several = _read(tmp_path / "z.json", b'{"dev": [{"a": 1}], "train": [{"a": 2}, {"a": 3}]}')
    assert [row.values["a"] for row in several] == [1, 2, 3]


def test_a_json_file_may_hold_lines(tmp_path: Path) -> None:
    rows = _read(tmp_path / "train.json", b'{"a": [1]}\n{"a": [2]}\n')
    assert [row.values for row in rows] == [{"a": [1]}, {"a": [2]}]


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("x.jsonl", b"", "an empty file"),
        ("x.json", b"", "an empty file"),
        ("x.json", b" \n", "an empty file"),
        ("x.csv", b"", "an empty file"),
        ("x.csv", b"a,c\n1,2\n", "no column `b` in its header a,c"),
        ("x.json", b'[{"a": 1},\n{"a": }]', "broken JSON at line 2, in row 2 \\(Expecting value\\)"),
        ("x.json", b'[{"a": 1} {"a": 2}]', "broken JSON after row 1"),
        ("x.json", b'[{"a": 1}', "broken JSON after row 1"),
        ("x.json", b'{"a":\n1}', "no JSON array"),
        ("x.json", b'[{"a": 1}] and more', "broken JSON after row 1: 'and more'"),
        ("x.json", b'{"a":\n[{"a": 1}]', "broken JSON after row 1: an object that does not close"),
        ("x.json", b'{"a":\n[{"a": 1}], b}', "broken JSON at line 2, in row 1"),
        ("x.jsonl.gz", b"no gzip", "corrupt gzip file"),
        ("x.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 999, mtime=0)[:40], "corrupt gzip file"),
        ("x.parquet", b"PAR1 no", "corrupt Parquet file"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_clear_error(tmp_path: Path, name: str, data: bytes, why: str) -> None:
    with pytest.raises(DataError, match=rf"{name}: {why}") as error:
        _read(tmp_path / name, data, ("a", "b"))
    assert "\n" not in str(error.value)


def test_parquet_rows_and_columns(tmp_path: Path) -> None:
    path = made.parquet(tmp_path / "x.parquet", [{"a": 1, "b": None}, {"a": 2, "b": "x"}])
    assert [row.values for row in read(DataFile(str(path)), ("a",))] == [{"a": 1, "b": None}, {"a": 2, "b": "x"}]
    with pytest.raises(DataError, match="no column `c` among a,b"):
        list(read(DataFile(str(path)), ("a", "c")))


def test_find_goes_pattern_by_pattern(tmp_path: Path) -> None:
    for name in ("b.json", "a.json", "deep/c.jsonl"):
        made.jsonl(tmp_path / name, [{}])
    found = [Path(file.at).name for file in find(str(tmp_path), ["**/*.jsonl", "*.json"])]
    assert found == ["c.jsonl", "a.json", "b.json"]
    assert find(str(tmp_path / "a.json"), ["ignored"]) == [DataFile(str(tmp_path / "a.json"))]
    with pytest.raises(ConfigError, match=r"no such folder .*/none; give paths\.data="):
        find(str(tmp_path / "none"), ["*"])


def test_the_hub_goes_through_datasets_as_a_stream(tmp_path: Path) -> None:
    """`datasets` takes a folder for a hub id, so the very path that a hub id takes is walked without a network."""
    folder = tmp_path / "data"
    made.jsonl(folder / "a.jsonl.gz", [{"a": 1}, {"a": "zwei\u2028"}])
    made.parquet(folder / "b.parquet", [{"a": 3}])
    made.array(folder / "c.json", [["x", 4], ["y", 5]])
    (folder / "d.csv").write_text('a,b\r\n"-3.50","two\r\nlines"\r\n', encoding="utf-8")
    by_name = {}
    for pattern in ("*.jsonl.gz", "*.parquet", "*.json", "*.csv"):
        (file,) = find(f"hub:{folder}", [pattern])
        assert file.on_hub
        by_name[file.name] = [row.values for row in read(file, row_type=object)]
    assert by_name == {
        "a.jsonl.gz": [{"a": 1}, {"a": "zwei\u2028"}],
        "b.parquet": [{"a": 3}],
        "c.json": [["x", 4], ["y", 5]],
        "d.csv": [{"a": "-3.50", "b": "two\nlines"}],  # text as it stands, not as pandas would read it
    }
    assert find(f"hub:{folder}", ["none/*.csv"]) == []
    (folder / "bad.csv").write_bytes(b"a\n\xff\n")
    (bad,) = find(f"hub:{folder}", ["bad.csv"])
    with pytest.raises(DataError, match=r"bad\.csv: `datasets` stops after row \d+ \(UnicodeDecodeError"):
        list(read(bad))


def test_an_unreachable_hub_id_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigError, match="path=hub:nobody/nothing: `datasets` cannot open it") as error:
        find("hub:nobody/nothing", ["*.csv"])
    assert "\n" not in str(error.value)


def test_rows_in_a_file_keep_what_json_says(tmp_path: Path) -> None:
    rows = [{"text": "一 \u2028 two", "n": 1e-5, "list": [None, True]}]
    assert [row.values for row in read(DataFile(str(made.jsonl(tmp_path / "x.jsonl", rows))))] == rows
    assert json.loads((tmp_path / "x.jsonl").read_text(encoding="utf-8")) == rows[0]
