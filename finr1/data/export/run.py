"""Stage `export`: write the judged traces as a Hugging Face data set, `export/<layout>/<split>-*.parquet`, with a card.

`datasets.load_dataset("<run>/export", "messages")` reads it offline: the card's header names the files. Rows are
streamed; of the questions only 16 bytes each are held.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finr1.core.errors import DataError
from finr1.core.files import read_json, write_atomic
from finr1.core.jsonl import read_jsonl
from finr1.core.question_index import QuestionIndex
from finr1.core.stage_folder import MANIFEST
from finr1.core.types import Trace
from finr1.data.export.counts import Cell, ExportCounts
from finr1.data.export.layouts import LAYOUTS, Judged, TokenCounter, schema
from finr1.data.export.shards import Shards
from finr1.settings.export import SPLITS

if TYPE_CHECKING:
    from finr1.run.context import Context

_KEYS = ("question_id", "outcome", "answer", "answer_strict", "answer_scaled", "criteria", "trace.id")


def run(ctx: Context) -> dict[str, Any]:
    """Write the shards and `README.md`; returns the counts. DataError if the filter's rows lack a trace."""
    from finr1.data.export.card import write_card

    settings = ctx.cfg.export
    for layout in LAYOUTS:  # left by a killed attempt
        shutil.rmtree(ctx.folder / layout, ignore_errors=True)
    manifests = {name: read_json(folder / MANIFEST) for name, folder in ctx.inputs.items()}
    n_traces = manifests["distil"]["counts"]["traces"]
    count_tokens = _token_counter(settings.tokenizer)
    questions_path = ctx.inputs["questions"] / "questions.jsonl"
    counts = ExportCounts()
    with QuestionIndex(questions_path) as questions, ctx.progress("traces", n_traces) as bar:
        for outcome, split in SPLITS.items():
            with ExitStack() as open_shards:
                shards = {
                    layout: open_shards.enter_context(
                        Shards(ctx.folder / layout, split, schema(layout), settings.shard_rows)
                    )
                    for layout in (LAYOUTS if outcome in settings.outcomes else ())
                }
                for judged in _judged(ctx.inputs["filter"] / f"{outcome}.jsonl", outcome, questions, counts):
                    for layout, writer in shards.items():
                        writer.write(LAYOUTS[layout].row(judged, count_tokens))
                    counts.cells[Cell.of(judged.question)]["rows"] += bool(shards)
                    bar.advance()
            if shards and shards["messages"].rows:  # `datasets` cannot load an empty split
                counts.rows[split] = shards["messages"].rows
                counts.files += sum(writer.files for writer in shards.values())
    n_judged = sum(cell["traces"] for cell in counts.cells.values())
    if n_judged != n_traces:
        raise DataError(ctx.inputs["filter"], f"{n_judged} rows of {n_traces} traces", "run stage=filter again")
    wordings = (question.get("meta", {}).get("wording") for question in read_jsonl(questions_path))
    counts.wordings.update(wording for wording in wordings if wording)
    n_rows = sum(counts.rows.values())
    if not n_rows:
        ctx.note(f"no trace is {' or '.join(settings.outcomes)}: the data set is empty")
    cascades = {kind: list(getattr(ctx.cfg.judge, kind)) for kind in ("answer", "reasoning")}  # in the order asked
    card = write_card(settings.title or ctx.cfg.name, settings, manifests, counts, cascades)
    write_atomic(ctx.folder / "README.md", card)
    return {"rows": n_rows, "files": counts.files, "traces": n_traces, "splits": dict(counts.rows)}


def _judged(path: Path, outcome: str, questions: QuestionIndex, counts: ExportCounts) -> Iterator[Judged]:
    """Read and count the rows of one outcome."""
    for number, row in enumerate(read_jsonl(path, (*_KEYS, *Trace.needed("trace."))), 1):
        if row["question_id"] not in questions:
            why = f"line {number} has an unknown question {row['question_id']}"
            raise DataError(path, why, "run stage=filter again")
        question = questions[row["question_id"]]
        counts.cells[Cell.of(question)].update((outcome, "traces"))
        counts.teachers[row["trace"]["teacher"]] += 1
        no_judge = "not judged" if outcome == "bad" and row["answer"]["value"] is None else "undecided"
        counts.answer_judges[row["answer"]["judge"] or no_judge] += 1
        counts.reasoning_judges.update({v["judge"] for v in row["criteria"].values() if v["judge"]})
        if row["why"]:
            counts.reasons[row["why"]] += 1
        yield Judged(question, row)


def _token_counter(tokenizer: str | None) -> TokenCounter:
    """A function that counts the tokens of a text."""
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
