"""Contamination: were training rows checked against the held-out rows of the benchmarks?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from finr1.core.errors import ConfigError
from finr1.core.files import canonical, read_json
from finr1.core.jsonl import read_jsonl
from finr1.core.stage_folder import MANIFEST
from finr1.core.types import Question


def check_rows(stage: str, benchmark: Mapping[str, Any], folder: Path) -> None:
    """Raise ConfigError unless the questions stage of this folder has checked its rows against these benchmarks."""
    manifest = read_json(folder / MANIFEST)
    checked = manifest["counts"].get("checked")
    then = manifest.get("settings", {}).get("benchmark") or {}
    missing = [f"benchmark {name}" for name in benchmark if name not in (checked or {})]
    missing += [
        f"benchmark {name} with its current settings"
        for name, node in benchmark.items()
        if name in then and not covers(then[name], node)
    ]
    if checked is None:
        missing = ["any benchmark"]
    if missing:
        key, why = f"{stage}.allow_unchecked", f"the rows of {folder} were not checked against {missing[0]}"
        raise ConfigError(key, "false", why, f"run stage=questions with these benchmarks, or set {key}=true")


def refuse_chats(place: Path) -> NoReturn:
    """Raise ConfigError: chats from outside a run were not checked against any benchmark."""
    key, why = "sft.allow_unchecked", f"the chats of {place} were not checked against any benchmark"
    raise ConfigError(
        key, "false", why, f"set {key}=true, and do not trust scores on benchmarks that these chats may contain"
    )


def covers(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a benchmark's settings when rows were checked (`then`) cover all the rows that it has now.

    The location of its files does not matter; a subset of rows (`limit`, `seed`) is covered by all rows (`limit=null`).
    """
    chosen = ("limit", "seed") if "limit" in then and then["limit"] is None else ()
    before, after = (_row_settings({k: v for k, v in node.items() if k not in chosen}) for node in (then, now))
    return canonical(before) == canonical(after)


def _row_settings(node: Any) -> Any:
    """The settings of a node that decide which rows there are."""
    if isinstance(node, Mapping):
        return {name: _row_settings(value) for name, value in node.items() if name not in ("path", "licence")}
    return node


UNKNOWN = "unknown"


class Leakage(NamedTuple):
    """Contamination of a model's training rows by a benchmark; `note` explains the state.

    `state`: checked | not checked | shares documents | unknown.
    """

    state: str
    note: str


def leakage(folder: Path | None, benchmark: str, questions: Sequence[Question]) -> Leakage:
    """Contamination of a model's training rows, from the manifests beside its folder (None: a model from outside).

    The questions stage records which benchmarks its rows were checked against, and how many questions these had.
    Unchecked rows are compared here by document.
    """
    stage = None if folder is None else folder.parent
    if stage is None or not (stage / MANIFEST).is_file():
        return Leakage(UNKNOWN, "its training rows are unknown")
    runs = _runs(stage)
    missing = [run for run in runs if not _manifest_of(run)]
    if missing or not runs:
        return Leakage(UNKNOWN, f"its training rows are not available ({missing[0].name if missing else stage.name})")
    checked = [(_manifest_of(run)["counts"].get("checked") or {}).get(benchmark) for run in runs]
    if all(checked):
        least = min(n for n in checked if n)
        if least >= len(questions):
            return Leakage("checked", "its training rows were checked against these questions and contain none of them")
        return Leakage("not checked", f"its training rows were checked against only {least:,} of its questions")
    held_out = {question.document_id for question in questions}
    trained = {row.get("document_id") for run in runs for row in read_jsonl(_questions(run) / "questions.jsonl")}
    if shared := len(held_out & trained):
        return Leakage("shares documents", f"{shared:,} of its {len(held_out):,} documents are in the training rows")
    return Leakage("not checked", "its training rows were not checked against it; they share no document with it")


def _runs(stage: Path) -> list[Path]:
    """The runs whose questions a training stage could see, the stage of its initial weights included."""
    settings: Mapping[str, Any] = read_json(stage / MANIFEST).get("settings", {})
    for name in ("grpo", "sft"):
        if name not in settings:
            continue
        own = [Path(settings[name].get("rows") or stage.parent)]
        start = settings[name].get("init_from")
        if name == "sft":
            return own
        before = Path(start).parent if start else next(stage.parent.glob("*_sft"), stage.parent / "sft")
        return [*own, *(_runs(before) if (before / MANIFEST).is_file() else [before])]
    return []


def _questions(run: Path) -> Path:
    return next(run.glob("*_questions"), run / "questions")


def _manifest_of(run: Path) -> Mapping[str, Any]:
    path = _questions(run) / MANIFEST
    return read_json(path) if path.is_file() else {}
