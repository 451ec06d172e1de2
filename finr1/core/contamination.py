"""Prevent training on benchmark questions; report whether an evaluated model may have seen them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from finr1.core.errors import ConfigError
from finr1.core.files import canonical, read_json
from finr1.core.jsonl import read_jsonl
from finr1.core.stage_folder import MANIFEST
from finr1.core.types import Question


def check_rows(stage: str, benchmark: Mapping[str, Any], folder: Path) -> None:
    """Raise ConfigError unless the questions stage in this folder checked its rows against these benchmarks."""
    manifest = read_json(folder / MANIFEST)
    checked = manifest["counts"].get("checked")
    checked_settings = manifest.get("settings", {}).get("benchmark") or {}
    missing = [f"benchmark {name}" for name in benchmark if name not in (checked or {})]
    missing += [
        f"benchmark {name} with its current settings"
        for name, node in benchmark.items()
        if name in checked_settings and not covers(checked_settings[name], node)
    ]
    if checked is None:
        missing = ["any benchmark"]
    if missing:
        key, why = f"{stage}.allow_unchecked", f"the rows of {folder} were not checked against {missing[0]}"
        raise ConfigError(key, "false", why, f"run stage=questions with these benchmarks, or set {key}=true")


def covers(checked: Mapping[str, Any], current: Mapping[str, Any]) -> bool:
    """Whether, judging by its settings, a benchmark's questions when checked include all of its current ones.

    Paths do not matter; a check of all rows (`limit=null`) covers any selection of them (`limit`, `seed`).
    """
    selection = ("limit", "seed") if "limit" in checked and checked["limit"] is None else ()
    before, after = (_deciding({k: v for k, v in node.items() if k not in selection}) for node in (checked, current))
    return canonical(before) == canonical(after)


def _deciding(node: Any) -> Any:
    """The settings that decide which rows a benchmark has."""
    if isinstance(node, Mapping):
        return {name: _deciding(value) for name, value in node.items() if name not in ("path", "licence")}
    return node


UNKNOWN = "unknown"


class Leakage(NamedTuple):
    """Whether a model saw benchmark questions (`state`: checked | not checked | shares documents | unknown) and why."""

    state: str
    note: str


def leakage(folder: Path | None, benchmark: str, questions: Sequence[Question]) -> Leakage:
    """Look up in the manifests beside a model folder whether its training rows were checked against a benchmark.

    `folder` is None for a model from elsewhere. The questions stage records which benchmarks its rows were checked
    against, and how many questions those had. Unchecked rows are searched here for documents of the benchmark.
    """
    stage = None if folder is None else folder.parent
    if stage is None or not (stage / MANIFEST).is_file():
        return Leakage(UNKNOWN, "its training data is unknown")
    runs = _runs(stage)
    missing = [run for run in runs if not _manifest_of(run)]
    if missing or not runs:
        return Leakage(UNKNOWN, f"its training rows were not found ({missing[0].name if missing else stage.name})")
    checked = [(_manifest_of(run)["counts"].get("checked") or {}).get(benchmark) for run in runs]
    if all(checked):
        least = min(n for n in checked if n)
        if least >= len(questions):
            return Leakage("checked", "its training rows were checked against these questions and share none")
        return Leakage("not checked", f"its training rows were checked against only {least:,} of its questions")
    asked = {question.document_id for question in questions}
    trained = {row.get("document_id") for run in runs for row in read_jsonl(_questions(run) / "questions.jsonl")}
    if shared := len(asked & trained):
        return Leakage(
            "shares documents", f"{shared:,} of {len(asked):,} benchmark documents were in its training data"
        )
    return Leakage("not checked", "its training rows were not checked against it, but share no document with it")


def _runs(stage: Path) -> list[Path]:
    """The runs whose questions a training stage could see, with those of the stage that its weights come from."""
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
    manifest: Mapping[str, Any] = read_json(path) if path.is_file() else {}
    return manifest
