"""Files written whole or not at all, JSON documents, and hashes of files and values."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from finr1.core.errors import DataError


def canonical(value: object) -> str:
    """JSON with sorted keys: equal for equal values, whatever order they were made in."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def digest(value: object) -> str:
    """16 hex digits of a JSON value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


def hash_files(paths: Iterable[Path]) -> str:
    """16 hex digits of these files' contents, in the order of their names."""
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def tree_hash(path: Path) -> str:
    """16 hex digits of the names, sizes and times of a file, or of all files below a folder."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    stats = [(str(file.relative_to(path)), file.stat()) for file in files]
    return digest([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])


def write_atomic(path: Path, text: str) -> None:
    """Write a whole file, or nothing: a kill in between leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_json(path: Path, value: object) -> None:
    """Write one JSON document atomically. NaN and infinities are refused: they are not JSON."""
    write_atomic(path, json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False, default=str) + "\n")


def read_json(path: Path) -> Any:
    """Read one JSON document; DataError names the file and the place of a fault."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(path, "no such file", "run the stage that writes it first") from error
    except json.JSONDecodeError as error:
        raise DataError(path, f"broken JSON at line {error.lineno}", "delete it and run its stage again") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to that takes the place of `path` when the block ends well: any size, and whole or not at all.

    Its name until then is fixed: the next process overwrites what a killed one left; the run's lock keeps others out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
