"""The rule-based filter: traces per CPU second on one core, and whether memory stays flat up to a million traces.

    python experiments/benchmarks/filter.py [--traces 50000 --many 1000000]

Measures the whole stage, file I/O included, on traces of engine=worked (source `worked`, all templates, difficulty 3, a
fifth Chinese, 45% of the traces with a planted fault, ten per question), each size in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from experiments.benchmarks.figures import Figures
from finr1.cli import compose
from finr1.core.jsonl import JsonlWriter
from finr1.core.tracking import Tracker
from finr1.data.distil.run import to_trace
from finr1.parts.engine.base import Request
from finr1.parts.engine.roles import Engines
from finr1.parts.engine.worked.engine import WorkedEngine
from finr1.parts.source.worked.source import Worked
from finr1.run.context import Context
from finr1.run.stages import STAGES, function_of
from finr1.settings.root import RootConfig
from finr1.settings.sampling import Sampling

TRACES_PER_QUESTION = 10
DIFFICULTY = 3
CHINESE_SHARE = 0.2
FAULT_RATE = 0.45


def make(folder: Path, n_traces: int) -> None:
    """Write questions and traces as the stages before the filter do."""
    n_questions = n_traces // TRACES_PER_QUESTION
    source = Worked(n_train=n_questions, n_test=0, difficulty=DIFFICULTY, chinese_share=CHINESE_SHARE)
    engine, sampling = WorkedEngine(fault_rate=FAULT_RATE), Sampling(n=TRACES_PER_QUESTION)
    with (
        JsonlWriter(folder / STAGES["questions"].folder / "questions.jsonl") as questions,
        JsonlWriter(folder / STAGES["distil"].folder / "traces.jsonl") as traces,
    ):
        for question in source.load():
            questions.write(question.to_json())
            (completions,) = engine.generate([Request(question.prompt, question)], sampling)
            rows = (to_trace(question, i, c, engine.name, sampling, "") for i, c in enumerate(completions))
            traces.write(*(trace.to_json() for trace in rows))


def measure(folder: Path) -> tuple[float, float]:
    """CPU seconds and peak memory (GB, imports included) of the stage in this process."""
    cfg: RootConfig = compose.typed(compose.compose(["stage=filter"]))
    stage = STAGES["filter"]
    inputs = {name: folder / STAGES[name].folder for name in stage.reads}
    tracker = Tracker(folder, [])
    context = Context(cfg, folder, stage.name, folder / stage.folder, inputs, tracker, Engines(cfg.engine))
    (folder / stage.folder).mkdir(exist_ok=True)
    began = time.process_time()
    counts = function_of(stage)(context)
    seconds = time.process_time() - began
    tracker.close()
    assert counts["good"] + counts["bad"] + counts["undecided"] == counts["traces"]
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def filtered(n_traces: int) -> tuple[float, float]:
    """`measure` in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), n_traces)
        command = [sys.executable, __file__, "--measure", folder]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    seconds, memory = json.loads(done.stdout.splitlines()[-1])
    return seconds, memory


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=int, default=50_000)
    parser.add_argument("--many", type=int, default=1_000_000)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure)))
        return
    figures = Figures("filter")
    memories = []
    for n in (arguments.traces, arguments.many // 2, arguments.many):
        seconds, memory = filtered(n)
        figures.add(f"traces_a_second_{n}", n / seconds, "> 2000", f"traces per CPU second on one core, of {n}")
        figures.add(f"memory_{n}", memory, "", f"GB at {n} traces")
        memories.append(memory)
    # the judges' caches fill up within some 400,000 traces; a leak would grow beyond
    growth = memories[-1] / memories[-2]
    figures.add("memory_growth", growth, "< 1.05", f"memory at {arguments.many} traces over that at half of them")
    figures.write()


if __name__ == "__main__":
    main()
