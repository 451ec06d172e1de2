"""Make a run scored by a judge model behind real servers, with long names and texts, for the report's tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finr1.answer.tags import render
from finr1.core.files import read_json, write_json
from finr1.core.types import Question
from finr1.evaluation.evaluate.run import run as run_evaluate
from finr1.evaluation.report.run import run as run_report
from finr1.parts.benchmark.base import Outcome
from finr1.run.stages import STAGES
from finr1.settings.evaluate import EvaluateSettings
from finr1.settings.report import ReportSettings
from finr1.settings.root import JudgeSettings, PathsSettings
from finr1.settings.sampling import Sampling
from tests.helpers.fault_server import Reply, Seen, chat, serve
from tests.helpers.stages import question, stage_context

MODELS = ("r1", "a_model_with_a_rather_long_name_behind_some_gateway")
LONG = "".join("无空格的长句子" for _ in range(30)) + "x" * 300  # no place to break a line


class Mixed:
    """Questions in categories with long names; the gold of every third one is text."""

    name = "mixed"

    def __init__(self, n: int = 48, categories: int = 12) -> None:
        self.n, self.categories = n, categories

    def load(self) -> Sequence[Question]:
        kinds = ("number", "number", "text")
        return [
            question(f"question {i} {LONG}", str(i) if i % 3 < 2 else f"about {i} shares", kind=kinds[i % 3])
            for i in range(self.n)
        ]

    def category(self, asked: Question) -> str:
        return f"category_{int(asked.text.split()[1]) % self.categories}_of_conditional_variance_and_其他的类别名称"

    def figures(self, outcomes: Sequence[Outcome]) -> Mapping[str, float]:
        return {f"a_figure_of_some_length_{i}": i / 10 for i in range(10)}


def answers(seen: Seen) -> Reply:
    """Longer completions for higher numbers; every fifth is wrong, every eleventh ten times too large."""
    i = int(seen.text.split()[1])
    given = i + 1 if i % 5 == 4 else f"{10 * i}%" if i % 11 == 10 else i
    return Reply(body=chat(render(f"{LONG} {'step ' * i}", f"\\boxed{{{given}}}"), usage=(40, 10 + 3 * i)))


def judges(seen: Seen) -> Reply:
    """Judge answers right unless they contain a 3; inconsistent on answers with a 7; the call fails on 31."""
    answer = seen.body["messages"][0]["content"].split("Answer to be Scored: ")[1].split("\n")[0]
    if answer == "31":
        return Reply(500, b"boom")
    return Reply(body=chat(f"\\boxed{{{int('3' not in answer and ('7' not in answer or seen.number % 2))}}}"))


def make(run_dir: Path, n_benchmarks: int = 2) -> tuple[dict[str, Any], Path]:
    """Evaluate and report; returns the summary and the page's path."""
    with serve(answers) as models, serve(judges) as judge:
        node = {
            "_target_": "finr1.parts.engine.http.engine.HttpEngine",
            "backoff_s": 0.001,
            "retries": 0,
            "price_out": 2.0,
        }
        role = {**node, "model": "m", "base_url": models.url}
        names = [f"mixed_{i}_with_a_long_name" for i in range(n_benchmarks)]
        sampling = Sampling(n=2, max_new_tokens=64)
        values = {
            "engine": {
                **dict.fromkeys(MODELS, role),
                "judge": {**node, "model": "j", "base_url": judge.url, "concurrency": 1},
            },
            "judge": JudgeSettings({"model": {"_target_": "finr1.parts.judge.answer_llm.AnswerLlm", "retries": 0}}),
            "paths": PathsSettings(judge_cache=str(run_dir / "cache.sqlite")),
            "benchmark": {name: {"_target_": f"{__name__}.Mixed"} for name in names},
            "evaluate": EvaluateSettings(
                models=list(MODELS), sampling=sampling, bootstrap_samples=50, scorer="llm", judge_repeats=2
            ),
        }
        with stage_context(run_dir, "evaluate", **values) as ctx:
            counts = run_evaluate(ctx)
            began = {"began": 1.0, "seconds": 12.5, "memory_gib": 0.5, "versions": {"torch": "2.13.0"}}
            settings = {"evaluate": {"scorer": "llm", "judge_repeats": 2}, "model": {"name": LONG[:60]}}
            write_json(ctx.folder / "manifest.json", {**began, "counts": counts, "settings": settings})
    with stage_context(run_dir, "report", report=ReportSettings(samples=40)) as ctx:
        run_report(ctx)
    folder = run_dir / STAGES["report"].folder
    return read_json(folder / "summary.json"), folder / "report.html"
