"""Append-only JSONL files: torn last lines are dropped, corrupt lines are reported with their number."""

import contextlib
import json
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, TextIO

from finr1.core.errors import DataError
from finr1.core.files import encodable, replacing

_BLOCK = 1 << 16  # bytes read at a time


class RawRow(NamedTuple):
    """One row of a JSONL file: its line, the line's offset in the file (bytes), and its parsed values."""

    line: bytes
    start: int
    values: dict[str, Any]


def raw_rows(path: Path, keys: Sequence[str] = ()) -> Iterator[RawRow]:
    """Read rows with their lines, each checked to have these keys (`trace.answer` is a key inside `trace`).

    A torn last line (the writer was killed) is skipped; DataError names the first corrupt line or missing key.
    """
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
                values = json.loads(line)
                if b"\\u" in line and b"\\ud" in line.lower():  # escaped, and perhaps half of a pair
                    values = json.loads(encodable(json.dumps(values, ensure_ascii=False)))
            except ValueError as error:  # not JSON, or not UTF-8
                raise DataError(path, f"corrupt JSON in line {number}", "fix or delete that line") from error
            if not isinstance(values, dict) or not all(_has(values, key) for key in keys):
                lacking = next((key for key in keys if not _has(values, key)), "object")
                raise DataError(path, f"line {number} has no `{lacking}`", "run the stage that writes it again")
            yield RawRow(line, start, values)
            start += len(line)


def _has(values: Any, key: str) -> bool:
    """Whether a row has this key (`trace.answer` is a key inside `trace`)."""
    for name in key.split("."):
        if not isinstance(values, dict) or name not in values:
            return False
        values = values[name]
    return True


def read_jsonl(path: Path, keys: Sequence[str] = ()) -> Iterator[dict[str, Any]]:
    """Read the rows of a file one at a time, each checked to have these keys; errors as in `raw_rows`."""
    return (row.values for row in raw_rows(path, keys))


def to_line(row: Mapping[str, Any]) -> str:
    """Serialise one row to a line of a JSONL file."""
    return encodable(json.dumps(row, ensure_ascii=False, default=str)) + "\n"


class JsonlWriter:
    """Appends rows; each is with the kernel before `write` returns, so a SIGKILL loses none.

    Opening removes a torn last line; closing brings the file to disk. Use as a context manager.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._remove_torn_line()
        self._file: TextIO = path.open("a", encoding="utf-8")

    def _remove_torn_line(self) -> None:
        with self.path.open("r+b") as file:
            end = file.seek(0, os.SEEK_END)
            start = end
            while start > 0:  # block by block from the end: the file may not fit in memory
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
        self._file.write("".join(map(to_line, rows)))
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            os.fsync(self._file.fileno())
        self._file.close()


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write a whole file atomically, row by row; returns the number of rows."""
    n = 0
    with replacing(path) as file:
        for row in rows:
            file.write(to_line(row).encode())
            n += 1
    return n


def count_lines(path: Path) -> int:
    """Count the complete lines of a file."""
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(_BLOCK), b""))


def sort_jsonl(path: Path, key: Callable[[dict[str, Any]], Any]) -> None:
    """Sort the rows of a file by `key(row)`, atomically; only keys and offsets are held in memory."""
    places = [(key(row.values), row.start, len(row.line)) for row in raw_rows(path)]
    ordered = sorted(places, key=lambda place: place[0])
    if ordered == places:
        return
    with path.open("rb") as file, replacing(path) as out:
        for _, start, length in ordered:
            file.seek(start)
            out.write(file.read(length))


def check_known(path: Path, question_ids: Iterable[str], known: Container[str]) -> None:
    """Raise DataError for the first line of this file whose question is unknown."""
    for number, question_id in enumerate(question_ids, 1):
        if question_id not in known:
            raise DataError(path, f"line {number} has an unknown question {question_id}", "run its stage again")
