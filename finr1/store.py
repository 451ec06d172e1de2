"""What a run leaves on disk: append-only JSONL, stage folders with a manifest, and the lock of a run.

A stage folder is *done* when its `manifest.json` carries the fingerprint that the run would give it now: a hash of the
stage's settings, of the fingerprints of what it reads, and of the stage's own sources. A folder that was begun with the
same fingerprint (`begun.json`) is *resumed*; one begun with another is kept aside under `.old/` and begun anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, NamedTuple, Self, TextIO

from finr1.errors import BusyError, ConfigError, DataError

MANIFEST = "manifest.json"
BEGUN = "begun.json"
SPENT = ".spent"
State = Literal["done", "resume", "fresh"]


class Spent(NamedTuple):
    """What a stage has cost over all attempts: wall seconds, and the peak of resident memory in GiB (0: not known)."""

    seconds: float
    memory_gib: float


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


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file. A torn last line (a killed writer) is left out; any other fault is a DataError."""
    return (row.values for row in raw_rows(path))


class Row(NamedTuple):
    """One row of a JSONL file: its line as it stands there, where that begins (bytes), and what it says."""

    line: bytes
    start: int
    values: dict[str, Any]


def raw_rows(path: Path, keys: Sequence[str] = ()) -> Iterator[Row]:
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
            yield Row(line, start, values)
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


def count_lines(path: Path) -> int:
    """Whole lines of a file."""
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(_BLOCK), b""))


@dataclass(frozen=True)
class StageKey:
    """What decides whether a stage must run again, each part hashed, so that a change can be named."""

    stage: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]  # stage folder or data file -> its fingerprint
    code: str

    @property
    def fingerprint(self) -> str:
        """16 hex digits over all parts."""
        return digest([self.stage, self.settings, self.inputs, self.code])

    def changes(self, other: Mapping[str, Any]) -> str:
        """In words, what differs from the key written in a manifest: `settings.n_train, code`."""
        names = [f"input {k}" for k, v in self.inputs.items() if other.get("inputs", {}).get(k) != v]
        before = other.get("settings", {})
        mine = json.loads(canonical(self.settings))
        names += [k for k in sorted({*mine, *before}) if mine.get(k) != before.get(k)]
        if other.get("code") != self.code:
            names.append("its code")
        return ", ".join(names) or "nothing that is known"

    def to_json(self) -> dict[str, Any]:
        """As written in the manifest."""
        return {
            "stage": self.stage,
            "fingerprint": self.fingerprint,
            "settings": json.loads(canonical(self.settings)),
            "inputs": dict(self.inputs),
            "code": self.code,
        }


def state_of(folder: Path, key: StageKey) -> State:
    """Whether the folder is done, can be resumed, or must be begun anew."""
    for name, state in ((MANIFEST, "done"), (BEGUN, "resume")):
        path = folder / name
        if path.exists():
            return state if read_json(path).get("fingerprint") == key.fingerprint else "fresh"  # type: ignore[return-value]
    return "fresh"


def begin(folder: Path, key: StageKey) -> tuple[State, str]:
    """Make the folder ready; returns its state and, where an older one was set aside, what had changed."""
    state = state_of(folder, key)
    changed = ""
    if state == "fresh":
        if folder.exists() and any(folder.iterdir()):
            older = folder / MANIFEST if (folder / MANIFEST).exists() else folder / BEGUN
            changed = key.changes(read_json(older)) if older.exists() else "a folder without a manifest"
            _set_aside(folder)
        write_json(folder / BEGUN, {**key.to_json(), "began": time.time()})
    return state, changed


def _set_aside(folder: Path) -> None:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    aside = folder.parent / ".old" / f"{folder.name}.{stamp}"
    number = 1
    while aside.exists():
        number += 1
        aside = aside.with_name(f"{folder.name}.{stamp}-{number}")
    aside.parent.mkdir(parents=True, exist_ok=True)
    os.replace(folder, aside)


def finish(folder: Path, key: StageKey, counts: Mapping[str, Any], cost: Spent, versions: Mapping[str, str]) -> None:
    """Mark the stage done: from now on it is skipped as long as its fingerprint stays."""
    files = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".") and path.name != BEGUN
    }
    body = {
        **key.to_json(),
        "began": read_json(folder / BEGUN)["began"],
        "seconds": cost.seconds,
        "memory_gib": cost.memory_gib,
        "counts": counts,
        "files": files,
        "versions": versions,
    }
    write_json(folder / MANIFEST, body)
    (folder / BEGUN).unlink(missing_ok=True)


def spent(folder: Path) -> Spent:
    """What earlier, killed attempts at a stage that is being resumed have cost (`note_spent` wrote it)."""
    try:
        found = [float(word) for word in (folder / SPENT).read_text().split()]
    except (FileNotFoundError, ValueError):
        found = []
    return Spent(*found) if len(found) == 2 and all(map(math.isfinite, found)) else Spent(0.0, 0.0)


def note_spent(folder: Path, cost: Spent) -> None:
    """Note what was spent so far, so that a resumed stage reports the whole."""
    write_atomic(folder / SPENT, f"{cost.seconds:.3f} {cost.memory_gib:.3f}")


class RunLock:
    """A kernel lock on the run folder: a second process gets a clear error; a killed one leaves nothing behind."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / ".lock"

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+")
        except PermissionError:
            raise
        except OSError as error:
            remedy = "give another paths.runs=<folder>, or mend this one"
            why = f"the run's folder cannot be made there ({error.strerror})"
            raise ConfigError("paths.runs", self.path.parent.parent, why, remedy) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown"
            self._file.close()
            run_dir = self.path.parent
            why = f"name={run_dir.name}: another process (pid {owner}) works in {run_dir}"
            raise BusyError(f"{why}; wait for it, or give name=<other>") from error
        self._file.seek(0)
        self._file.truncate()
        self._file.write(str(os.getpid()))
        self._file.flush()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


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
