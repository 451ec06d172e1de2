"""What is known of a model's training rows against a benchmark: said beside its score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from finr1.store import MANIFEST, read_json, read_jsonl
from finr1.types import Question

UNKNOWN = "unknown"


class Leakage(NamedTuple):
    """`state`: checked | not checked | shares documents | unknown; `note` says it in words."""

    state: str
    note: str


def leakage(folder: Path | None, benchmark: str, questions: Sequence[Question]) -> Leakage:
    """What the manifests beside a model folder say of its training rows; None: a model that came from elsewhere.

    The questions stage notes which benchmarks its rows were checked against, and how many questions those had. Rows
    that were not are looked at here: which of them are on a document of the benchmark.
    """
    stage = None if folder is None else folder.parent
    if stage is None or not (stage / MANIFEST).is_file():
        return Leakage(UNKNOWN, "what it was trained on is not known here")
    runs = _runs(stage)
    missing = [run for run in runs if not _manifest_of(run)]
    if missing or not runs:
        return Leakage(UNKNOWN, f"its training rows are not at hand ({missing[0].name if missing else stage.name})")
    checked = [(_manifest_of(run)["counts"].get("checked") or {}).get(benchmark) for run in runs]
    if all(checked):
        least = min(n for n in checked if n)
        if least >= len(questions):
            return Leakage("checked", "its training rows were checked against these questions and share none")
        return Leakage("not checked", f"its training rows were checked against {least:,} questions of it only")
    asked = {question.document_id for question in questions}
    trained = {row.get("document_id") for run in runs for row in read_jsonl(_questions(run) / "questions.jsonl")}
    if shared := len(asked & trained):
        return Leakage("shares documents", f"{shared:,} of {len(asked):,} documents asked were there to train on")
    return Leakage("not checked", "its training rows were not checked against it; they share no document")


def _runs(stage: Path) -> list[Path]:
    """The runs whose questions a training stage could see, those of the stage that its first weights came from too."""
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
    found: Mapping[str, Any] = read_json(path) if path.is_file() else {}
    return found
