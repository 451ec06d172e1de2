"""Stage `export`: the judged traces as a Hugging Face data set, `export/<layout>/<split>-*.parquet`, with its card.

`datasets.load_dataset("<run>/export", "messages")` reads it without a network: the card's header names the files. Rows
are read and written one after the other; of the questions only their places in the file are held.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finr1.core.errors import DataError
from finr1.core.files import read_json, write_atomic
from finr1.core.jsonl import each_row
from finr1.core.stage_folder import MANIFEST
from finr1.core.types import Question, Trace
from finr1.data.export.counts import Cell, Exported
from finr1.data.export.layouts import LAYOUTS, Count, Judged, schema
from finr1.data.export.shards import Shards
from finr1.settings.export import SPLITS

if TYPE_CHECKING:
    from finr1.run.context import Context

_NEEDED = ("question_id", "outcome", "answer", "answer_strict", "answer_scaled", "criteria", "trace.id")


class Questions:
    """The rows of `questions.jsonl` by id, read from the file when asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cells: dict[str, Cell] = {}
        self.wordings: Counter[str] = Counter()
        self._starts: dict[str, int] = {}
        known: dict[Cell, Cell] = {}
        start = 0
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                row = _parsed(path, number, line)
                cell = Cell(row["source"], row["module"], row["language"])
                self.cells[row["id"]] = known.setdefault(cell, cell)
                self.wordings.update(filter(None, [row.get("meta", {}).get("wording")]))
                self._starts[row["id"]] = start
                start += len(line)
        self._file = path.open("rb")

    def get(self, question_id: str) -> Question:
        """The question of this id."""
        self._file.seek(self._starts[question_id])
        return Question.from_json(json.loads(self._file.readline()))

    def close(self) -> None:
        self._file.close()


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
        missing = [key for key in ("id", *Question.needed()) if key not in row]
    except (ValueError, TypeError) as error:
        raise DataError(path, f"broken JSON in line {number}", "run stage=questions again") from error
    if missing:
        raise DataError(path, f"line {number} has no `{missing[0]}`", "run stage=questions again")
    return row  # type: ignore[no-any-return]


def run(ctx: Context) -> dict[str, Any]:
    """Write the shards and `README.md`; returns the counts. DataError where traces were lost on the way."""
    from finr1.data.export.card import write_card

    settings = ctx.cfg.export
    for layout in LAYOUTS:  # what a killed attempt left
        shutil.rmtree(ctx.folder / layout, ignore_errors=True)
    manifests = {name: read_json(folder / MANIFEST) for name, folder in ctx.inputs.items()}
    traces = manifests["distil"]["counts"]["traces"]
    count = _counter(settings.tokenizer)
    found = Exported()
    questions = Questions(ctx.inputs["questions"] / "questions.jsonl")
    with ExitStack() as stack:
        stack.callback(questions.close)
        bar = stack.enter_context(ctx.progress("traces", traces))
        for outcome in SPLITS:
            path = ctx.inputs["filter"] / f"{outcome}.jsonl"
            with ExitStack() as files:
                shards = {}
                if outcome in settings.outcomes:
                    for name in LAYOUTS:
                        made = Shards(ctx.folder / name, SPLITS[outcome], schema(name), settings.shard_rows)
                        shards[name] = files.enter_context(made)
                for row in _judged(path, outcome, questions, found):
                    if shards:
                        judged = Judged(questions.get(row["question_id"]), row)
                        found.cells[questions.cells[judged.question.id]]["out"] += 1
                        for name, made in shards.items():
                            made.write(LAYOUTS[name].row(judged, count))
                    bar.advance()
            if shards:
                found.rows[SPLITS[outcome]] = shards["messages"].rows
                found.files += sum(made.files for made in shards.values())
    seen = sum(cell["traces"] for cell in found.cells.values())
    if seen != traces:
        why = f"{seen} rows of {traces} traces"
        raise DataError(ctx.inputs["filter"], why, "run stage=filter again")
    found.wordings = questions.wordings
    if not sum(found.rows.values()):
        ctx.note(f"no trace is {' or '.join(settings.outcomes)}: the data set is empty")
    write_atomic(ctx.folder / "README.md", write_card(settings.title or ctx.cfg.name, settings, manifests, found))
    return {"rows": sum(found.rows.values()), "files": found.files, "traces": traces, "splits": dict(found.rows)}


def _judged(path: Path, outcome: str, questions: Questions, found: Exported) -> Iterator[dict[str, Any]]:
    """The rows of one outcome, counted."""
    for number, row in enumerate(each_row(path, (*_NEEDED, *Trace.needed("trace."))), 1):
        cell = questions.cells.get(row["question_id"])
        if cell is None:
            why = f"line {number} has an unknown question {row['question_id']}"
            raise DataError(path, why, "run stage=filter again")
        found.cells[cell].update((outcome, "traces"))
        found.teachers[row["trace"]["teacher"]] += 1
        nobody = "not judged" if outcome == "bad" and row["answer"]["value"] is None else "nobody could tell"
        found.answer_judges[row["answer"]["judge"] or nobody] += 1
        found.reasoning_judges.update({v["judge"] for v in row["criteria"].values() if v["judge"]})
        if row["why"]:
            found.reasons[row["why"]] += 1
        yield row


def _counter(tokenizer: str | None) -> Count:
    """What counts the tokens of a text."""
    if tokenizer is None:
        return lambda text: None
    from transformers import AutoTokenizer

    from finr1.parts.model.folder import EMBEDDED, from_hub, resolve
    from finr1.settings.model import ModelSettings

    if tokenizer.startswith(EMBEDDED):
        folder = resolve(ModelSettings(path=tokenizer))
    else:
        folder = Path(tokenizer) if Path(tokenizer).is_dir() else from_hub("export.tokenizer", tokenizer)
    tokens = AutoTokenizer.from_pretrained(folder)
    return lambda text: len(tokens(text, add_special_tokens=False)["input_ids"])
