"""The evaluation by rules: completions a CPU second on one core; and how long the report of 10,000 scored rows takes.

    python experiments/benchmarks/evaluate.py [--completions 10000]

Completions are those of engine=worked (source `worked`, all templates, hardest numbers, a fifth Chinese, 45% with a
planted fault); `--reasoning` characters of filler go into the thinking of each, so that the texts are as long as a
reasoning model's. Scored is what `grade_completion` does to one; scored again is the reading of rows from disk, the
same, and the writing. The report is a whole process, `python -m finr1 stage=report`, from its start to its end.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from finr1.evaluation.scores.figures import figures
from finr1.evaluation.scores.rows import ScoredCompletion, grade_completion, read_rows, regrade

sys.path.insert(0, str(Path(__file__).parents[2]))

from experiments.benchmarks.figures import Figures, stage
from finr1.core.files import write_json
from finr1.core.jsonl import write_jsonl
from finr1.core.scores import Score
from finr1.core.stage_folder import MANIFEST
from finr1.core.types import Completion, Question
from finr1.evaluation.evaluate.breakdown import by_category, by_length, cost
from finr1.parts.engine.base import Request
from finr1.parts.engine.worked.engine import WorkedEngine
from finr1.parts.source.worked.source import Worked
from finr1.run.stages import STAGES
from finr1.settings.sampling import Sampling

DIFFICULTY, CHINESE_SHARE, FAULT_RATE = 3, 0.2, 0.45
FILLER = "The figure is taken from the second row of the table, and the unit is that of the question. "
MODELS, MODES = ("base", "sft", "grpo", "other"), ("greedy", "sampled")
Pairs = list[tuple[Question, Completion]]


def completions(n: int, reasoning: int) -> Pairs:
    """`n` questions, each with one completion whose thinking is longer by `reasoning` characters."""
    source = Worked(n_train=n, n_test=0, difficulty=DIFFICULTY, chinese_share=CHINESE_SHARE)
    questions = list(islice(source.load(), n))
    engine = WorkedEngine(fault_rate=FAULT_RATE)
    written = engine.generate([Request(q.prompt, q) for q in questions], Sampling())
    filler = (FILLER * (reasoning // len(FILLER) + 1))[:reasoning]
    texts = (completion.text.replace("<think>\n", f"<think>\n{filler}\n", 1) for (completion,) in written)
    return [(q, Completion(text, token_ids=range(len(text) // 4))) for q, text in zip(questions, texts, strict=True)]


def scored(pairs: Pairs) -> tuple[list[ScoredCompletion], float]:
    """The rows, and the CPU seconds that grading took."""
    began = time.process_time()
    rows = [grade_completion(question, 0, completion) for question, completion in pairs]
    return rows, time.process_time() - began


def scored_again(pairs: Pairs, rows: list[ScoredCompletion], folder: Path) -> float:
    """CPU seconds of reading the rows, grading them anew and writing them."""
    by_id = {question.id: question for question, _ in pairs}
    path = folder / "rows.jsonl"
    write_jsonl(path, (row.to_json() for row in rows))
    began = time.process_time()
    write_jsonl(path, [regrade(by_id[row.question_id], row, "content").to_json() for row in read_rows(path)])
    return time.process_time() - began


def make_run(folder: Path, pairs: Pairs, rows: list[ScoredCompletion]) -> None:
    """An evaluated run whose rows are divided over models and modes, as the stage would have left it."""
    scores = folder / STAGES["evaluate"].folder
    write_jsonl(scores / "worked" / "questions.jsonl", (question.to_json() for question, _ in pairs))
    category = {question.id: str(question.meta["group"]) for question, _ in pairs}
    table, unknown = [], {"state": "unknown", "note": ""}
    for number, (model, mode) in enumerate(_cells()):
        mine = rows[number :: len(MODELS) * len(MODES)]
        write_jsonl(scores / "worked" / f"{model}.{mode}.jsonl", (row.to_json() for row in mine))
        cell = figures(mine, 0.95, 1000, 0)
        parts = {"length": by_length(mine, 0.95), "cost": cost(mine), "categories": by_category(mine, category, 0.95)}
        table.append(Score("worked", model, mode, "accuracy_strict", len(pairs), unknown, cell | parts).to_json())
    write_json(scores / "scores.json", table)
    spent = {"began": time.time(), "seconds": 1.0, "counts": {}, "settings": {}, "versions": {}}
    write_json(scores / MANIFEST, {"fingerprint": "made", **spent})


def _cells() -> Iterator[tuple[str, str]]:
    return ((model, mode) for model in MODELS for mode in MODES)


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--completions", type=int, default=10_000)
    parser.add_argument("--reasoning", type=int, default=4000)
    arguments = parser.parse_args()
    n = arguments.completions
    figures = Figures("evaluate")
    short, _ = completions(n, 0), scored(completions(50, 0))  # the second warms up
    _, seconds = scored(short)
    figures.add("scored", n / seconds, ">= 5000", "completions a CPU second on one core")
    pairs = completions(n, arguments.reasoning)
    rows, seconds = scored(pairs)
    figures.add(
        "scored_long", n / seconds, ">= 5000", f"the same with {arguments.reasoning} characters more of thinking"
    )
    with tempfile.TemporaryDirectory() as folder:
        seconds = scored_again(pairs, rows, Path(folder))
        figures.add("scored_again", n / seconds, ">= 5000", "completions a CPU second, read from disk and written")
        make_run(Path(folder) / "run", pairs, rows)
        wall, memory = stage("stage=report", "name=run", f"paths.runs={folder}")
        assert (Path(folder) / "run" / STAGES["report"].folder / "report.html").stat().st_size > 10_000
    figures.add("report", wall, "<= 10", f"seconds of stage=report, start-up included, on {n} scored rows")
    figures.add("report_memory", memory, "", "GB at the peak")
    figures.write()


if __name__ == "__main__":
    main()
