"""Read the rows of CSV, JSON, JSONL (also `.gz`) and Parquet files, from a folder or, through `datasets`, from the hub.

A row that cannot be read is returned with its `fault`, so that the source can set it aside with file and line; a file
that cannot be read at all raises one DataError. Lines are read one at a time, hub files as a stream. A JSON array is
held as text and decoded row by row: ijson, which streams, rejects NaN, rejects the whole file for one byte of invalid
UTF-8, and does not report the line of a row.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import re
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

from finr1.core.errors import ConfigError, DataError, RowError
from finr1.parts.source import hub
from finr1.parts.source.hub import HUB, reason
from finr1.parts.source.typed import plain_rows

if TYPE_CHECKING:
    import pyarrow as pa

MAX_ROW = 10_000_000  # bytes per line, characters per row of an array; longer rows are set aside
_CHUNK = 1_000_000
_ESCAPED = re.compile("[\udc80-\udcff]")  # bytes that are not UTF-8, as `surrogateescape` decodes them
_BAD_UTF8, _TOO_LONG = "invalid UTF-8", f"longer than {MAX_ROW:,} bytes"
_SPACE = re.compile(r"\s*")


class DataFile(NamedTuple):
    """A file by its path, or by its address on the hub."""

    at: str
    on_hub: bool = False

    @property
    def name(self) -> str:
        return self.at.rpartition("/")[2]

    @property
    def origin(self) -> str:
        """Folder and file name."""
        return "/".join(self.at.split("/")[-2:])


class SourceRow(NamedTuple):
    """One row: an object, or a list in some JSON arrays; `fault`: why it could not be read."""

    place: str  # for error messages: file and line
    origin: str  # for lineage: folder, file and row number
    values: Any
    fault: str = ""


class _Line(NamedTuple):
    number: int
    text: str
    fault: str = ""


def find(path: str, patterns: Sequence[str]) -> list[DataFile]:
    """Files that match the glob patterns: pattern by pattern, each pattern's files by name.

    `path` is a folder, a file, or `hub:<owner>/<name>[@<revision>]`.

    Raises:
        ConfigError: the folder does not exist, or `datasets` cannot open the hub id.
    """
    if path.startswith(HUB):
        return [DataFile(at, on_hub=True) for pattern in patterns for at in hub.addresses(path, pattern)]
    place = Path(path).expanduser()
    if place.is_file():
        return [DataFile(str(place))]
    if not place.is_dir():
        remedy = f"give paths.data=<folder of the data sets>, set FINR1_DATA, or use {HUB}<owner>/<name>"
        raise ConfigError("paths.data", place.parent, f"no such folder {place}", remedy)
    return [DataFile(str(file)) for pattern in patterns for file in sorted(place.glob(pattern)) if file.is_file()]


def read(file: DataFile, columns: Sequence[str] = (), row_type: type = dict) -> Iterator[SourceRow]:
    """The rows of one file, whose format is that of its extension.

    Raises:
        DataError: the file is missing, empty or corrupt, or lacks one of `columns`.
    """
    name = file.name.removesuffix(".gz")
    try:
        if name.endswith(".csv"):
            yield from _csv(file, columns)
        elif name.endswith(".parquet"):
            yield from _parquet(file, columns)
        elif name.endswith(".jsonl") or _holds_lines(file):
            yield from _jsonl(file, row_type)
        else:
            yield from _json(file, row_type)
    except FileNotFoundError as error:
        raise DataError(file.at, "no such file", "put the data set's own file there") from error
    except UnicodeDecodeError as error:
        raise DataError(file.at, f"{_BAD_UTF8} at byte {error.start}", "save it as UTF-8") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(file.at, f"corrupt gzip file ({error})", "download it again") from error


def need(row: SourceRow, key: str) -> Any:
    """`row.values[key]`; RowError if it is missing."""
    if not isinstance(row.values, Mapping) or key not in row.values:
        raise RowError(row.place, f"no key `{key}`")
    return row.values[key]


def inside(row: SourceRow, key: str) -> SourceRow:
    """Return the object in a field as a separate row; RowError if it is not an object."""
    value = need(row, key)
    if not isinstance(value, Mapping):
        raise RowError(row.place, f"`{key}` is {_short(value)}, not an object")
    return row._replace(values=value)


def items_of(row: SourceRow, key: str) -> list[Any]:
    """The list in a field, empty if the field is missing; RowError if it is not a list."""
    value = row.values.get(key, [])
    if not isinstance(value, list):
        raise RowError(row.place, f"`{key}` is {_short(value)}, not a list")
    return value


def text_of(row: SourceRow, key: str) -> str:
    """The stripped text of a field; RowError if it is not text (null, NaN, a number, a list)."""
    value = need(row, key)
    if not isinstance(value, str):
        raise RowError(row.place, f"`{key}` is {_short(value)}, not text")
    return value.strip()


def texts_of(row: SourceRow, key: str) -> list[str]:
    """The texts in a field; RowError if it is not a list of texts."""
    value = need(row, key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RowError(row.place, f"`{key}` is {_short(value)}, not a list of texts")
    return value


def table_of(row: SourceRow, key: str) -> list[list[str]]:
    """The table in a field, a list of lists of texts; RowError if it is not one."""
    value = need(row, key)
    if not isinstance(value, list) or not all(isinstance(item, list) for item in value):
        raise RowError(row.place, f"`{key}` is {_short(value)}, not a table")
    return [texts_of(row._replace(values={key: item}), key) for item in value]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."


def _open(file: DataFile) -> BinaryIO:
    return cast("BinaryIO", gzip.open(file.at)) if file.at.endswith(".gz") else Path(file.at).open("rb")


def _lines(file: DataFile) -> Iterator[_Line]:
    """Lines with their line ends, one at a time, without byte-order mark. Lines that are too long are not kept."""
    number = 0
    if file.on_hub:
        for number, row in enumerate(hub.stream("text", file.at, keep_linebreaks=True), 1):
            yield _Line(number, row["text"].removeprefix("\ufeff") if number == 1 else row["text"])
    else:
        with _open(file) as binary:
            while data := binary.readline(MAX_ROW + 1):
                number += 1
                yield _too_long(binary, data, number) if len(data) > MAX_ROW else _decoded(data, number)
    if not number:
        raise DataError(file.at, "an empty file", "put the data set's own file there")


def _decoded(data: bytes, number: int) -> _Line:
    data = data.removeprefix(b"\xef\xbb\xbf") if number == 1 else data
    try:
        return _Line(number, data.decode())
    except UnicodeDecodeError as error:
        return _Line(number, data.decode(errors="replace"), f"{_BAD_UTF8} at byte {error.start}")


def _too_long(binary: BinaryIO, data: bytes, number: int) -> _Line:
    quotes = 0
    while True:
        quotes += data.count(b'"')
        if data.endswith(b"\n") or not data:
            # an odd number of quotes opens or closes a CSV field: one quote keeps the reader in step for the next lines
            return _Line(number, '"\n' if quotes % 2 else "\n", _TOO_LONG)
        data = binary.readline(_CHUNK)


class _Lines(Iterator[str]):
    """The texts of lines; `taken` are the lines since it was last cleared, all but the first of which can go back."""

    def __init__(self, lines: Iterator[_Line]) -> None:
        self._lines, self._waiting, self.taken = lines, deque[_Line](), list[_Line]()

    def __next__(self) -> str:
        self.taken.append(self._waiting.popleft() if self._waiting else next(self._lines))
        return self.taken[-1].text

    def give_back(self) -> None:
        self._waiting.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]


def _csv(file: DataFile, columns: Sequence[str]) -> Iterator[SourceRow]:
    """The rows; one that swallows further lines, since a quote in it does not close, is set aside without them."""
    lines = _Lines(_lines(file))
    reader = csv.reader(lines, strict=True)
    try:
        header = next(reader)
    except csv.Error as error:
        raise DataError(file.at, f"broken CSV header ({error})", "fix line 1") from error
    missing = [column for column in columns if column not in header]
    if missing:
        why = f"no column `{missing[0]}` in its header {','.join(header)}"
        raise DataError(file.at, why, f"it needs the columns {','.join(columns)}")
    number = 0
    while True:
        lines.taken.clear()
        fields, broken = [], ""
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            broken = f"broken CSV ({error})"
        fault = next((line.fault for line in lines.taken if line.fault), "")
        if not (fields or broken or fault):
            continue  # a blank line
        number += 1
        if lines.taken[0].fault != _TOO_LONG and (broken or _swallows(fields, lines.taken, header)):
            if len(lines.taken) > 1:
                broken = f"a quote that does not close before line {lines.taken[-1].number}"
            lines.give_back()
            fault = lines.taken[0].fault or broken
        elif not fault and len(fields) != len(header):
            fault = f"{len(fields)} fields under a header of {len(header)}"
        values = {} if fault else dict(zip(header, fields, strict=True))
        place = f"{file.at} row {number} (line {lines.taken[0].number})"
        yield SourceRow(place, f"{file.origin}:{number}", values, fault)


def _swallows(fields: Sequence[str], lines: Sequence[_Line], header: Sequence[str]) -> bool:
    """Whether the inner lines of a row are rows themselves: too many to be so by chance, if the row itself is whole."""
    inner = lines[1:-1]
    if not inner or (len(fields) == len(header) and len(inner) * (len(header) - 1) < 4):
        return False
    return all(len(next(csv.reader([line.text]), ())) == len(header) for line in inner)


def _holds_lines(file: DataFile) -> bool:
    """Whether a `.json` file has one object per line, as some upstream files do, rather than one document."""
    texts = (line.text.strip() for line in _lines(file) if line.text.strip())
    first, second = next(texts, ""), next(texts, "")
    if not (first.startswith("{") and first.endswith("}")) or second:
        return first.endswith("}") and second.startswith("{")
    return not _has_rows(_parsed(first)[0])


def _has_rows(value: Any) -> bool:
    """Whether a document has an array of objects or of arrays, at any depth."""
    if isinstance(value, list):
        return any(isinstance(item, dict | list) for item in value)
    return isinstance(value, dict) and any(map(_has_rows, value.values()))


def _jsonl(file: DataFile, row_type: type) -> Iterator[SourceRow]:
    for line in _lines(file):
        if line.fault or line.text.strip():
            place, origin = f"{file.at} line {line.number}", f"{file.origin}:{line.number}"
            values, fault = ({}, line.fault) if line.fault else _parsed(line.text)
            yield _typed(place, origin, values, fault, row_type)


def _parsed(text: str) -> tuple[Any, str]:
    try:
        return json.loads(text), ""
    except (ValueError, RecursionError) as error:
        return {}, f"broken JSON ({reason(error)})"


def _typed(place: str, origin: str, values: Any, fault: str, row_type: type) -> SourceRow:
    if not fault and not isinstance(values, row_type):
        fault = f"{_short(values)} is not a JSON {'object' if row_type is dict else 'array'}"
    return SourceRow(place, origin, values, fault)


def _json(file: DataFile, row_type: type) -> Iterator[SourceRow]:
    """The items of all arrays: one or several in turn, or in an object at any depth. DataError for broken JSON."""
    if file.on_hub:
        text = "".join(line.text for line in _lines(file))
    else:
        with _open(file) as binary:
            text = binary.read().decode("utf-8-sig", "surrogateescape")
    decoder, line, counted = json.JSONDecoder(), 1, 0  # `line` is the line of position `counted`
    number, depth, has_array = 0, 0, False  # rows so far, open objects

    def decoded(at: int) -> tuple[Any, int]:
        try:
            return decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            where = f"line {1 + text.count(chr(10), 0, getattr(error, 'pos', at))}, in row {number}"
            raise DataError(file.at, f"broken JSON at {where} ({reason(error)})", "fix it") from error

    at = _skip(text, 0)
    while at < len(text):
        opens = text[at]
        if opens == "[":
            has_array, at = True, _skip(text, at + 1)
            while not text.startswith("]", at):
                line, counted = line + text.count("\n", counted, at), at
                number += 1
                values, end = decoded(at)
                fault = _BAD_UTF8 if _ESCAPED.search(text, at, end) else _TOO_LONG if end - at > MAX_ROW else ""
                place = f"{file.at} row {number} (line {line})"
                yield _typed(place, f"{file.origin}:{number}", values, fault, row_type)
                at = _skip(text, end)
                if not text.startswith((",", "]"), at):
                    why = f"broken JSON after row {number}: no comma or closing bracket"
                    raise DataError(file.at, why, "fix it")
                at = _skip(text, at + text.startswith(",", at))
            at += 1
        elif opens in "{," and depth + (opens == "{"):  # a key comes next, or the end of the object
            depth += opens == "{"
            at = _skip(text, at + 1)
            if not text.startswith("}", at):
                at = _skip(text, decoded(at)[1])
                at += text.startswith(":", at)
        elif opens == "}" and depth:
            depth, at = depth - 1, at + 1
        elif depth:
            at = decoded(at)[1]
        else:
            break
        at = _skip(text, at)
    if not has_array:
        why = "no JSON array" if text.strip() else "an empty file"
        raise DataError(file.at, why, "use the data set's own file")
    if depth or at < len(text):
        rest = "an object that does not close" if depth else repr(text[at : at + 20])
        raise DataError(file.at, f"broken JSON after row {number}: {rest}", "fix it")


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _parquet(file: DataFile, columns: Sequence[str]) -> Iterator[SourceRow]:
    for number, (values, fault) in enumerate(_parquet_rows(file, columns), 1):
        yield SourceRow(f"{file.at} row {number}", f"{file.origin}:{number}", values, fault)


def _parquet_rows(file: DataFile, columns: Sequence[str]) -> Iterator[tuple[Mapping[str, Any], str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.on_hub:
        yield from ((row, "") for table in hub.stream("parquet", file.at, "arrow") for row in plain_rows(table))
        return
    try:
        table = pq.ParquetFile(file.at)
        missing = [column for column in columns if column not in table.schema_arrow.names]
        if missing:
            why = f"no column `{missing[0]}` among {','.join(table.schema_arrow.names)}"
            raise DataError(file.at, why, f"it needs the columns {','.join(columns)}")
        for batch in table.iter_batches(256):
            yield from _batch_rows(batch)
    except pa.ArrowException as error:
        raise DataError(file.at, f"corrupt Parquet file ({reason(error)})", "download it again") from error


def _batch_rows(batch: pa.RecordBatch) -> list[tuple[Mapping[str, Any], str]]:
    """Values and fault of each row; row by row only if the batch is too long or holds bad UTF-8."""
    if batch.nbytes <= MAX_ROW:
        with contextlib.suppress(UnicodeDecodeError):
            return [(values, "") for values in plain_rows(batch)]
    rows: list[tuple[Mapping[str, Any], str]] = []
    for row in (batch.slice(i, 1) for i in range(batch.num_rows)):
        try:
            rows.append(({}, _TOO_LONG) if row.nbytes > MAX_ROW else (plain_rows(row)[0], ""))
        except UnicodeDecodeError as error:
            rows.append(({}, f"{_BAD_UTF8} at byte {error.start}"))
    return rows
