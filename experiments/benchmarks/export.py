"""The export stage at Fin-R1's size: CPU seconds for 60,000 good traces, and memory that stays flat.

    python experiments/benchmarks/export.py [--rows 60000]

Synthetic rows: questions of 200 random words, reasoning of 800 (some 6 kB per trace, 0.4 GB in all).
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from experiments.benchmarks.figures import Figures, stage
from finr1.core.files import write_json
from finr1.core.jsonl import JsonlWriter
from finr1.core.stage_folder import MANIFEST
from finr1.core.types import Message, Question, Trace


def rows_of(n: int, seed: int = 0) -> Iterator[tuple[Question, dict[str, Any]]]:
    """Questions, each with one good trace as written by the filter."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 10))) for _ in range(20_000)]
    right = {"value": 1.0, "answer": "5", "why": ""}
    for i in range(n):
        prompt = [Message(role="user", content=" ".join(rng.choices(words, k=200)))]
        of = Question("made", f"made/{i}", "en", "reasoning business", "number", prompt, "5")
        trace = Trace(of.id, 0, "t", " ".join(rng.choices(words, k=800)), "\\boxed{5}", "")
        verdicts = {"answer": {**right, "judge": "exact"}, "answer_strict": right, "answer_scaled": right}
        row = {"trace_id": trace.id, "question_id": of.id, "outcome": "good", "why": "", **verdicts, "criteria": {}}
        yield of, {"trace": trace.to_json(), **row}


def make_run(run_dir: Path, n: int) -> None:
    """The folders that the stage reads."""
    counts: dict[str, dict[str, Any]] = {"1_questions": {}, "2_traces": {"traces": n}, "3_filtered": {}}
    for folder, its in counts.items():
        write_json(run_dir / folder / MANIFEST, {"fingerprint": folder, "counts": its, "settings": {}})
    with (
        JsonlWriter(run_dir / "1_questions" / "questions.jsonl") as questions,
        JsonlWriter(run_dir / "3_filtered" / "good.jsonl") as good,
    ):
        for question, row in rows_of(n):
            questions.write(question.to_json())
            good.write(row)
    for outcome in ("bad", "undecided"):
        (run_dir / "3_filtered" / f"{outcome}.jsonl").write_text("")


def cpu_s() -> float:
    """CPU seconds of all runs so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    rows = parser.parse_args().rows
    figures = Figures("export")
    with tempfile.TemporaryDirectory() as folder:
        peaks = []
        for n in (rows // 10, rows):
            make_run(Path(folder) / str(n), n)
            before = cpu_s()
            _, memory = stage("stage=export", f"paths.runs={folder}", f"name={n}")
            peaks.append(memory)
        figures.add("cpu_seconds", cpu_s() - before, "< 60", f"CPU s for {rows} rows in three layouts")
        figures.add("memory", peaks[1], "< 0.6", f"GB for {rows} rows")
        figures.add("memory_growth", peaks[1] - peaks[0], "< 0.1", "GB for ten times the rows")
    figures.write()


if __name__ == "__main__":
    main()
