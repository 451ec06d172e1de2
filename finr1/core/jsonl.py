"""Append-only JSONL: written whole line by whole line, read with the line number of what is corrupt."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TextIO

from finr1.core.errors import DataError
from finr1.core.files import replacing


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file. A torn last line (a killed writer) is left out; any other fault is a DataError."""
    return (row.values for row in raw_rows(path))


class RawRow(NamedTuple):
    """One row of a JSONL file: its line as it stands there, where that begins (bytes), and what it says."""

    line: bytes
    start: int
    values: dict[str, Any]


def raw_rows(path: Path, keys: Sequence[str] = ()) -> Iterator[RawRow]:
    """The rows of a JSONL file with their lines, one at a time; faults as those of `read_jsonl` and `each_row`."""
    needed = frozenset(key for key in keys if "." not in key)
    inner = [key for key in keys if "." in key]
    start = 0
    try:
        file = path.open("rb")
    except FileNotFoundError as error:
        raise DataError(path, "no such file", "run the stage that writes it first") from error
    with file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                values = from_line(line)
            except ValueError as error:  # no JSON, or no UTF-8
                raise DataError(path, f"broken JSON in line {number}", "mend or delete that line") from error
            if (
                not isinstance(values, dict)
                or not needed <= values.keys()
                or not all(_has(values, key) for key in inner)
            ):
                lacking = next((key for key in keys if not _has(values, key)), "object")
                raise DataError(path, f"line {number} has no `{lacking}`", "run the stage that writes it again")
            yield RawRow(line, start, values)
            start += len(line)


_raw_decode = json.JSONDecoder().raw_decode


def from_line(line: bytes) -> Any:
    """`json.loads`, without its search for another encoding and for white space around what this program wrote."""
    text = line.decode("utf-8", "surrogatepass")
    try:
        value, end = _raw_decode(text)
    except ValueError:
        return json.loads(line)
    return value if text[end:] == "\n" else json.loads(line)


def _has(values: Any, key: str) -> bool:
    """Whether a row has this key (`trace.answer`: inside another)."""
    for name in key.split("."):
        if not isinstance(values, dict) or name not in values:
            return False
        values = values[name]
    return True


_BLOCK = 1 << 16  # bytes read at a time

_encode = json.JSONEncoder(ensure_ascii=False, default=str).encode


def to_line(row: Mapping[str, Any]) -> str:
    """One row as a line of a JSONL file."""
    return _encode(row) + "\n"


class JsonlWriter:
    """Appends rows; each is on disk (or at least with the kernel) before `write` returns, so a SIGKILL loses none.

    Opening cuts off a torn last line. Use as a context manager.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._mend()
        self._file: TextIO = path.open("a", encoding="utf-8")

    def _mend(self) -> None:
        with self.path.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            start = end
            while start > 0:  # block by block from the end: the file may be larger than the memory
                length = min(_BLOCK, start)
                start = file.seek(start - length)
                newline = file.read(length).rfind(b"\n")
                if newline >= 0:
                    start += newline + 1
                    break
            if start < end:
                file.truncate(start)

    def write(self, *rows: Mapping[str, Any]) -> None:
        """Append these rows with one write to the kernel."""
        self.write_lines(map(to_line, rows))

    def write_lines(self, lines: Iterable[str]) -> None:
        """Append rows that are lines already, each with its newline."""
        self._file.write("".join(lines))
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            os.fsync(self._file.fileno())
        self._file.close()


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write a whole JSONL file atomically, row by row; returns the number of rows."""
    n = 0
    with replacing(path) as file:
        for row in rows:
            file.write(to_line(row).encode())
            n += 1
    return n


def count_lines(path: Path) -> int:
    """Whole lines of a file."""
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(_BLOCK), b""))


def each_row(path: Path, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
    """All rows, each checked to have these keys (`trace.answer`: inside another); DataError names the first fault."""
    return (row.values for row in raw_rows(path, keys))


def take_rows(path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    """`each_row` as a list."""
    return list(each_row(path, keys))


def sort_jsonl(path: Path, key: Callable[[dict[str, Any]], Any]) -> None:
    """Put the rows of a file in the order of `key(row)`, atomically; only keys and offsets are held in memory."""
    places: list[tuple[Any, int, int]] = []
    with path.open("rb") as file:
        start = 0
        for line in file:
            places.append((key(json.loads(line)), start, len(line)))
            start += len(line)
        ordered = sorted(places, key=lambda place: place[0])
        if ordered == places:
            return
        temporary = path.with_name(f".{path.name}.sorting")
        with temporary.open("wb") as out:
            for _, start, length in ordered:
                file.seek(start)
                out.write(file.read(length))
            out.flush()
            os.fsync(out.fileno())
    os.replace(temporary, path)


def check_known(path: Path, question_ids: Iterable[str], known: Container[str]) -> None:
    """DataError for the first line of this file whose question is not among those known."""
    for number, question_id in enumerate(question_ids, 1):
        if question_id not in known:
            raise DataError(path, f"line {number} has an unknown question {question_id}", "run its stage again")
