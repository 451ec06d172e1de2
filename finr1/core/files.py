"""Atomic writes, JSON documents, and hashes of files and values."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from finr1.core.errors import DataError


def encodable(text: str) -> str:
    """Replace lone surrogates by `?`: escapes in JSON, and so models, may give them, and UTF-8 cannot encode them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


def canonical(value: object) -> str:
    """Serialise to JSON with sorted keys: equal values give equal text, which UTF-8 can encode."""
    return encodable(json.dumps(value, ensure_ascii=False, sort_keys=True, default=str))


def digest(value: object) -> str:
    """Hash a JSON value to 16 hex digits, the same on every machine."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


def hash_files(paths: Iterable[Path]) -> str:
    """Hash the contents of these files, sorted by path, to 16 hex digits."""
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def tree_hash(path: Path) -> str:
    """Hash the names, sizes and modification times of a file, or of all files below a folder, to 16 hex digits."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    stats = [(str(file.relative_to(path)), file.stat()) for file in files]
    return digest([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that replaces `path` when the block succeeds: complete and on disk, or not written at all.

    The temporary name is fixed, so that a rerun overwrites what a killed process left; the run lock excludes others.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = partial_name(path)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # brings the rename to disk
    finally:
        os.close(folder)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder that replaces `path` when the block succeeds."""
    temporary = partial_name(path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    shutil.rmtree(path, ignore_errors=True)
    os.replace(temporary, path)


def partial_name(path: Path) -> Path:
    """The name that a file or folder has until it is complete."""
    return path.with_name(f".{path.name}.part")


def write_atomic(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(encodable(text).encode())


def write_json(path: Path, value: object) -> None:
    """Write one JSON document atomically. NaN and infinities are refused: they are not JSON."""
    write_atomic(path, json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False, default=str) + "\n")


def read_json(path: Path) -> Any:
    """Read one JSON document; DataError names the file and the line of an error."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(path, "no such file", "run the stage that writes it first") from error
    except json.JSONDecodeError as error:
        raise DataError(path, f"corrupt JSON in line {error.lineno}", "delete it and run its stage again") from error
