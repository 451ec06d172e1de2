"""Question sources: read one data set's own layout, give `Question`s. With the file reading that sources share."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from finr1.errors import ConfigError, DataError
from finr1.types import Question


class Source(Protocol):
    """One data set. `load` gives the rows of both splits (`Question.split`), in a stable order."""

    name: str

    def load(self) -> Iterator[Question]: ...


def data_folder(path: str | Path) -> Path:
    """The folder of one real data set below `paths.data`; ConfigError where it is not there."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        remedy = "give paths.data=<folder of the data sets>, or set FINR1_DATA"
        raise ConfigError("paths.data", folder.parent, f"no such folder {folder}", remedy)
    return folder


def read_csv(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a CSV file (UTF-8, with or without byte-order mark), each with its place for messages.

    DataError where the file is missing or no text, where a column is missing, or where a row is short or long.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [column for column in columns if column not in (reader.fieldnames or [])]
            if missing:
                why = f"no column `{missing[0]}` in its header {','.join(reader.fieldnames or [])}"
                raise DataError(path, why, f"it needs the columns {','.join(columns)}")
            for number, row in enumerate(reader, 1):
                place = f"{path} row {number} (line {reader.line_num})"
                if None in row or None in row.values():
                    raise DataError(place, "another number of fields than the header", "mend or delete that row")
                yield place, row
    except FileNotFoundError as error:
        raise DataError(path, "no such file", "put the data set's own file there") from error
    except UnicodeDecodeError as error:
        raise DataError(path, f"no UTF-8 text at byte {error.start}", "save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(path, f"broken CSV near line {reader.line_num} ({error})", "mend that line") from error


def read_json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file that holds one JSON array, each with its place; DataError names the file and the fault."""
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise DataError(path, "no such file", "put the data set's own file there") from error
    except json.JSONDecodeError as error:
        raise DataError(
            path, f"broken JSON at line {error.lineno} ({error.msg})", "mend it or fetch it again"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(path, f"no UTF-8 text at byte {error.start}", "save it as UTF-8") from error
    if not isinstance(rows, list):
        raise DataError(path, "no JSON array", "it holds an array of rows, as upstream")
    for number, row in enumerate(rows, 1):
        place = f"{path} row {number}"
        if not isinstance(row, dict):
            raise DataError(place, "no JSON object", "mend or delete that row")
        yield place, row


def need(row: Mapping[str, Any], key: str, place: str) -> Any:
    """`row[key]`; DataError where it is not there."""
    if key not in row:
        raise DataError(place, f"no key `{key}`", "it should have the layout of the published data set")
    return row[key]
