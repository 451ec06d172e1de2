"""Stage folders: done, resumed or restarted, by fingerprint.

A stage is *done* when the fingerprint in its `manifest.json` equals the current one: a hash of the stage's settings, of
its inputs' fingerprints and of the source files it imports. A folder started with the same fingerprint (`begun.json`)
is *resumed*; one with another fingerprint is moved to `.old/`, and the stage starts afresh.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from finr1.core.errors import DataError
from finr1.core.files import canonical, digest, read_json, write_atomic, write_json

MANIFEST = "manifest.json"
BEGUN = "begun.json"
SPENT = ".spent"
State = Literal["done", "resume", "fresh"]


class Spent(NamedTuple):
    """Cost of a stage over all attempts: wall seconds, and peak resident memory in GiB (0: unknown)."""

    seconds: float
    memory_gib: float


@dataclass(frozen=True)
class StageKey:
    """Everything that decides whether a stage must rerun, part by part, so that a change can be named."""

    stage: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]  # stage folder or data file -> its fingerprint
    code: str

    @property
    def fingerprint(self) -> str:
        """Hash of all parts, 16 hex digits."""
        return digest([self.stage, self.settings, self.inputs, self.code])

    def changes(self, other: Mapping[str, Any]) -> str:
        """Names of the parts that differ from the key in a manifest, for the user: `n_train, its code`."""
        names = [f"input {k}" for k, v in self.inputs.items() if other.get("inputs", {}).get(k) != v]
        before = other.get("settings", {})
        now = json.loads(canonical(self.settings))
        names += [k for k in sorted({*now, *before}) if now.get(k) != before.get(k)]
        if other.get("code") != self.code:
            names.append("its code")
        return ", ".join(names) or "nothing that is known"

    def to_json(self) -> dict[str, Any]:
        """The key as written in the manifest."""
        return {
            "stage": self.stage,
            "fingerprint": self.fingerprint,
            "settings": json.loads(canonical(self.settings)),
            "inputs": dict(self.inputs),
            "code": self.code,
        }


def state_of(folder: Path, key: StageKey) -> State:
    """Whether the folder is done, can be resumed, or must be started afresh."""
    for name, state in ((MANIFEST, "done"), (BEGUN, "resume")):
        path = folder / name
        if path.exists():
            return state if read_json(path).get("fingerprint") == key.fingerprint else "fresh"  # type: ignore[return-value]
    return "fresh"


def is_done(folder: Path) -> bool:
    """Whether a stage has finished in this folder, under any settings."""
    return (folder / MANIFEST).is_file()


def check_rows_whole(folder: Path) -> None:
    """Raise DataError for a JSONL file of this folder that has lost rows since it was written.

    A finished stage's manifest has the size of each file; in any other folder the last line must be complete.
    """
    sizes = read_json(folder / MANIFEST).get("files", {}) if is_done(folder) else {}
    remedy = f"restore it, or delete {folder} and run its stage again"
    for name, size in sizes.items():
        now = (folder / name).stat().st_size if (folder / name).is_file() else 0
        if name.endswith(".jsonl") and now != size:
            raise DataError(folder / name, f"{now:,} bytes, but {size:,} when its stage finished", remedy)
    for path in folder.glob("*.jsonl") if not sizes else ():
        with path.open("rb") as file:
            if file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read())[1] != b"\n":
                raise DataError(path, "its last line does not end", "complete or delete that line")


def begin(folder: Path, key: StageKey) -> tuple[State, str]:
    """Prepare the folder; returns its state and, if an older one was moved to `.old/`, what has changed."""
    state = state_of(folder, key)
    changed = ""
    if state == "fresh":
        if folder.exists() and any(folder.iterdir()):
            older = folder / MANIFEST if (folder / MANIFEST).exists() else folder / BEGUN
            changed = key.changes(read_json(older)) if older.exists() else "a folder without a manifest"
            _set_aside(folder)
        write_json(folder / BEGUN, {**key.to_json(), "began": time.time()})
    return state, changed


def reopen(folder: Path) -> None:
    """Make a done stage one to resume; its result gets another name, so that what was made of it is stale."""
    manifest = read_json(folder / MANIFEST)
    write_json(folder / BEGUN, {**manifest, "reopened": manifest.get("reopened", 0) + 1})
    (folder / MANIFEST).unlink()


def result_of(folder: Path) -> str:
    """Name the result of a done stage: its fingerprint, and how often it was reopened."""
    manifest = read_json(folder / MANIFEST)
    return ".".join(str(manifest[key]) for key in ("fingerprint", "reopened") if key in manifest)


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
    """Write the manifest: the stage is skipped from now on, as long as its fingerprint stays the same."""
    files = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".") and path.name != BEGUN
    }
    begun = read_json(folder / BEGUN)
    body = {
        **key.to_json(),
        **{name: begun[name] for name in ("began", "reopened") if name in begun},
        "seconds": cost.seconds,
        "memory_gib": cost.memory_gib,
        "counts": counts,
        "files": files,
        "versions": versions,
    }
    write_json(folder / MANIFEST, body)
    (folder / BEGUN).unlink(missing_ok=True)


def spent(folder: Path) -> Spent:
    """Read the cost of earlier, killed attempts at this stage (written by `note_spent`)."""
    try:
        numbers = [float(word) for word in (folder / SPENT).read_text().split()]
    except (FileNotFoundError, ValueError):
        numbers = []
    return Spent(*numbers) if len(numbers) == 2 and all(map(math.isfinite, numbers)) else Spent(0.0, 0.0)


def note_spent(folder: Path, cost: Spent) -> None:
    """Save the cost so far, so that a resumed stage reports the total."""
    write_atomic(folder / SPENT, f"{cost.seconds:.3f} {cost.memory_gib:.3f}")
