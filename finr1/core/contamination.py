"""What may be trained on: rows that were checked against the held-out rows of the run's benchmarks."""

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
    """ConfigError unless the questions stage of this folder has checked its rows against these benchmarks."""
    manifest = read_json(folder / MANIFEST)
    checked = manifest["counts"].get("checked")
    then = manifest.get("settings", {}).get("benchmark") or {}
    missing = [f"benchmark {name}" for name in benchmark if name not in (checked or {})]
    missing += [
        f"benchmark {name} with the settings it has now"
        for name, node in benchmark.items()
        if name in then and not covers(then[name], node)
    ]
    if checked is None:
        missing = ["anything held out"]
    if missing:
        key, why = f"{stage}.allow_unchecked", f"the rows of {folder} were not checked against {missing[0]}"
        raise ConfigError(key, "false", why, f"run stage=questions with these benchmarks, or say {key}=true")


def refuse_chats(place: Path) -> NoReturn:
    """ConfigError: chats from outside a run were checked against nothing."""
    key, why = "sft.allow_unchecked", f"the chats of {place} were not checked against any benchmark"
    raise ConfigError(key, "false", why, f"say {key}=true, and do not trust scores on rows that could be among them")


def covers(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether what a benchmark held out when rows were checked holds all that it asks now, as far as settings tell.

    Where its files lie does not matter; a choice of some rows (`limit`, `seed`) is among all of them (`limit=null`).
    """
    chosen = ("limit", "seed") if "limit" in then and then["limit"] is None else ()
    before, after = (_asked({k: v for k, v in node.items() if k not in chosen}) for node in (then, now))
    return canonical(before) == canonical(after)


def _asked(node: Any) -> Any:
    """Settings without those that do not change which rows there are."""
    if isinstance(node, Mapping):
        return {name: _asked(value) for name, value in node.items() if name not in ("path", "licence")}
    return node


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
