"""The report on a run folder made here: the summary's numbers by hand, the page safe, offline and honest about gaps."""

from __future__ import annotations

import json
import random
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from finr1.core.errors import ConfigError
from finr1.core.files import read_json, write_json
from finr1.core.jsonl import write_jsonl
from finr1.core.scores import Pair, Score
from finr1.core.tracking import Tracker
from finr1.core.types import Completion, Question, Trace
from finr1.data.filter.summary import confusion
from finr1.evaluation.report import samples
from finr1.evaluation.report.run import run as run_report
from finr1.evaluation.scores.figures import compare
from finr1.evaluation.scores.figures import figures as figures_of
from finr1.evaluation.scores.rows import ScoredCompletion, grade_completion
from finr1.run.context import Context
from finr1.settings.report import ReportSettings
from finr1.settings.root import RootConfig

STAGES = {
    "questions": "1_questions",
    "distil": "2_traces",
    "filter": "3_filtered",
    "sft": "4_sft",
    "grpo": "5_grpo",
    "evaluate": "6_scores",
}
KEYS = ["name", "stages", "memory_gib", "funnel", "filter", "scores", "paired", "benchmarks", "versions", "settings"]
HOSTILE = "</script><script>window.broken = true</script><!-- <img src=x onerror=alert(1)>"
CRITERIA = ("internal_consistency", "step_count", "diversity")


def question(number: int) -> Question:
    text = f"A firm sold {number} units at 2 dollars. What did it earn? & <b>why</b>"
    return Question(
        "unit", f"d{number}", "en", "reasoning business", "number", [{"role": "user", "content": text}], str(2 * number)
    )


def completion(asked: Question, right: bool) -> str:
    return f"<think>\nTwo each. {HOSTILE}\n</think>\n<answer>\n\\boxed{{{asked.gold if right else 1}}}\n</answer>"


def filtered(asked: Question, fault: str | None, outcome: str) -> dict[str, Any]:
    trace = Trace(asked.id, 0, "worked", "Two each.", str(asked.gold), completion(asked, True), meta={"fault": fault})
    failing = {"slipped_number": "internal_consistency", "repeated_step": "diversity"}.get(fault or "", "")
    criteria = {
        c: {"value": float(c != failing or outcome == "good"), "why": f"{c} looked at", "judge": "rules"}
        for c in CRITERIA
    }
    answer = {"value": None if outcome == "undecided" else 1.0, "answer": asked.gold, "why": "", "judge": "exact"}
    return {
        "trace": trace.to_json(),
        "question_id": asked.id,
        "outcome": outcome,
        "answer": answer,
        "criteria": criteria,
    }


# fault -> how many of its traces end as good, bad, undecided
PLANTED: dict[str | None, tuple[int, int, int]] = {
    None: (20, 2, 0),
    "slipped_number": (1, 8, 1),
    "repeated_step": (0, 6, 0),
}


def build(run: Path, stages: tuple[str, ...] = tuple(STAGES), seconds: float = 12.5, memory_gib: float = 0.5) -> None:
    """A run folder as the stages leave it."""
    rng, asked = random.Random(0), [question(number) for number in range(1, 41)]
    began = time.time() - 60
    counts: dict[str, Any] = {"grpo": {"candidates": 14, "selected": 9, "steps": 20}}
    for stage in stages:
        folder = run / STAGES[stage]
        settings = {"model": {"name": "tiny", "dtype": "bfloat16"}, "seed": 3, "reward": {"format": {}, "accuracy": {}}}
        cost = {"began": began, "seconds": seconds, "memory_gib": 1.5 if stage == "sft" else memory_gib}
        manifest = {**cost, "counts": counts.get(stage, {}), "settings": settings}
        write_json(folder / "manifest.json", {**manifest, "versions": {"torch": "2.13.0"}})
    if "questions" in stages:
        write_jsonl(run / "1_questions" / "questions.jsonl", (q.to_json() for q in asked))
        removed = [{"id": str(i), "reason": "duplicate" if i else "contaminated"} for i in range(4)]
        write_jsonl(run / "1_questions" / "removed.jsonl", removed)
    if "distil" in stages:
        write_jsonl(run / "2_traces" / "traces.jsonl", ({"n": i} for i in range(38)))
    if "filter" in stages:
        rows: dict[str, list[dict[str, Any]]] = {"good": [], "bad": [], "undecided": []}
        for fault, numbers in PLANTED.items():
            for outcome, n in zip(rows, numbers, strict=True):
                rows[outcome] += [filtered(rng.choice(asked), fault, outcome) for _ in range(n)]
        for outcome, found in rows.items():
            write_jsonl(run / "3_filtered" / f"{outcome}.jsonl", found)
        judged = [(r["trace"]["meta"]["fault"], r["outcome"]) for found in rows.values() for r in found]
        write_json(run / "3_filtered" / "filter_summary.json", {"faults": confusion(judged)})
        write_jsonl(run / "3_filtered" / "rl.jsonl", ({"question_id": q.id} for q in asked[:16]))
    tracker = Tracker(run)
    if "sft" in stages:
        write_jsonl(run / "4_sft" / "rows.jsonl", ({"n": i} for i in range(19)))
        for step in range(30):
            tracker.log("sft", {"loss": 2 / (1 + step) + rng.random() / 10, "grad_norm": 1.5}, step)
    if "grpo" in stages:
        write_jsonl(run / "5_grpo" / "questions.jsonl", ({"question_id": q.id, "pass_rate": 0.5} for q in asked[:9]))
        kept = []
        for step in range(20):
            share = min(1.0, 0.4 + step / 40 + rng.random() / 10)
            metrics = {
                "reward": 1 + share,
                "format": 0.95,
                "accuracy": share,
                "entropy": 0.5 / (1 + step),
                "clip_ratio": 1e-4,
            }
            tracker.log("grpo", {**metrics, "mismatch": float("nan") if step == 3 else 0.004}, step)
            rewards = {"format": {"value": 1.0, "why": ""}, "accuracy": {"value": float(step % 2), "why": "by value"}}
            kept.append(
                {
                    "step": step,
                    "question_id": asked[0].id,
                    "prompt": [{"role": "system", "content": "Be brief."}, *asked[0].prompt],
                    "gold": asked[0].gold,
                    "completion": completion(asked[0], step % 2 == 1),
                    "truncated": False,
                    "rewards": rewards,
                    "reward": 1.0 + step % 2,
                    "advantage": None,
                    "weights_version": str(step),
                }
            )
        write_jsonl(run / "5_grpo" / "samples.jsonl", kept)
    if "evaluate" in stages:
        folder = run / "6_scores" / "unit"
        write_jsonl(folder / "questions.jsonl", (q.to_json() for q in asked))
        rate = {"base": 0.0, "sft": 0.5, "grpo": 0.9}
        rows_of: dict[tuple[str, str], list[ScoredCompletion]] = {}
        for model in rate:
            for mode, n in (("greedy", 1), ("sampled", 4)):
                texts = [
                    (q, s, "It is hard." if model == "base" else completion(q, rng.random() < rate[model]))
                    for q in asked
                    for s in range(n)
                ]
                rows_of[model, mode] = [grade_completion(q, s, Completion(t, token_ids=range(20))) for q, s, t in texts]
                write_jsonl(folder / f"{model}.{mode}.jsonl", (row.to_json() for row in rows_of[model, mode]))
        scores = {m: {mode: figures_of(rows_of[m, mode], 0.95, 200, 0) for mode in ("greedy", "sampled")} for m in rate}
        scores["sft"]["greedy"]["figures"] = {"macro_f1": 0.5}
        leads, known = "accuracy_strict", {"state": "unknown", "note": "its training data is unknown"}
        rows = [
            Score("unit", m, mode, leads, len(asked), known, row) for m in scores for mode, row in scores[m].items()
        ]
        pairs = []
        for a, b in (("base", "sft"), ("base", "grpo"), ("sft", "grpo")):
            greedy = compare(rows_of[a, "greedy"], rows_of[b, "greedy"], False, 0.95, 200, 0)
            sampled = compare(rows_of[a, "sampled"], rows_of[b, "sampled"], True, 0.95, 200, 0)
            pairs += [Pair("unit", b, a, "greedy", greedy or {}), Pair("unit", b, a, "sampled", sampled or {})]
        write_json(run / "6_scores" / "scores.json", [row.to_json() for row in rows])
        write_json(run / "6_scores" / "paired.json", [pair.to_json() for pair in pairs])


def make_report(run: Path, n_samples: int = 12) -> tuple[dict[str, Any], str]:
    cfg = RootConfig(name="unit-run", stage="report")
    cfg.report.samples = n_samples
    inputs = {stage: run / folder for stage, folder in STAGES.items() if (run / folder).exists()}
    ctx = Context(cfg, run, "report", run / "7_report", inputs, Tracker(run), None)  # type: ignore[arg-type]
    run_report(ctx)
    return read_json(run / "7_report" / "summary.json"), (run / "7_report" / "report.html").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """Summary and page of a run with every stage."""
    run = tmp_path_factory.mktemp("run")
    build(run)
    return make_report(run)


class Page(HTMLParser):
    """What a browser would make of the tags."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        assert not any(name.startswith("on") for name, _ in attrs)
        self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif not self.open or self.open[-1] != "style":
            self.text.append(data)


def test_summary_has_the_keys_that_were_asked_for(whole: tuple[dict[str, Any], str]) -> None:
    summary, _ = whole
    assert [key for key in KEYS if key not in summary] == []
    assert list(summary["scores"]) == ["base", "sft", "grpo"]
    for modes in summary["scores"].values():
        assert set(modes) == {"greedy", "sampled"}
        for figures in modes.values():
            assert {"format", "accuracy_strict", "accuracy_scaled", "n", "low", "high"} <= set(figures)
            assert figures["low"] <= figures["accuracy_strict"] <= figures["high"]
    assert {"sft_vs_base", "grpo_vs_sft"} <= set(summary["paired"])
    assert summary["benchmarks"]["unit"]["scores"] == summary["scores"]
    assert summary["stages"] == dict.fromkeys(STAGES, 12.5)
    assert summary["memory_gib"] == {**dict.fromkeys(STAGES, 0.5), "sft": 1.5}
    assert summary["versions"] == {"torch": "2.13.0"}
    assert summary["settings"] == {
        "seed": 3,
        "model.name": "tiny",
        "model.dtype": "bfloat16",
        "reward": "format, accuracy",
    }


def test_scores_stand_as_csv_markdown_and_latex_too(tmp_path: Path) -> None:
    build(tmp_path, ("evaluate",))
    scores = read_json(tmp_path / "6_scores" / "scores.json")
    note = {"state": "shares documents", "note": "2 of 40 documents asked were there to train on"}
    more = [{**row, "benchmark": "finqa", "training_rows": note} for row in scores]
    write_json(tmp_path / "6_scores" / "scores.json", scores + more)
    _, page = make_report(tmp_path)
    folder = tmp_path / "7_report"
    assert (folder / "scores.csv").read_text().startswith("benchmark,model,mode,accuracy_strict,low,high")
    assert "| Fin-R1 † | – | 76.0 | – |" in (folder / "scores.md").read_text()
    assert "toprule" in (folder / "scores.tex").read_text()
    assert "Fin-R1 †" in page and "arXiv 2503.16252" in page
    assert "sft: 2 of 40 documents asked were there to train on." in page


def test_funnel_counts_the_rows_on_disk(whole: tuple[dict[str, Any], str]) -> None:
    assert whole[0]["funnel"] == {
        "questions": 40,
        "removed": {"contaminated": 1, "duplicate": 3},
        "traces": 38,
        "good": 21,
        "bad": 16,
        "undecided": 1,
        "sft_rows": 19,
        "rl_questions": 16,
        "rl_candidates": 14,
        "rl_selected": 9,
    }


def test_filter_is_scored_against_the_planted_faults(whole: tuple[dict[str, Any], str]) -> None:
    table = whole[0]["filter"]
    assert (table["caught"], table["missed"]) == (14, 1)  # 8 + 6 of 16; one is undecided
    assert (table["precision"], table["recall"], table["false_alarms"]) == (14 / 16, 14 / 15, 2 / 22)
    assert table["intervals"]["recall"]["low"] == pytest.approx(0.7018, abs=1e-4)
    slipped = table["by_fault"]["slipped_number"]
    assert (slipped["planted"], slipped["missed"], slipped["caught"], slipped["undecided"]) == (10, 1, 8, 1)
    assert (slipped["recall"]["value"], slipped["recall"]["n"]) == (8 / 9, 9)
    assert slipped["failed_checks"] == {"internal_consistency": 8}


def test_curves_and_their_ends_are_in_the_summary(whole: tuple[dict[str, Any], str]) -> None:
    grpo = whole[0]["training"]["grpo"]
    assert (grpo["entropy"]["first"], grpo["entropy"]["last"], grpo["entropy"]["steps"]) == (0.5, 0.025, 20)
    assert grpo["mismatch"]["curve"][3] == [3, None]  # NaN is a gap, not 0
    assert len(whole[0]["training"]["sft"]["loss"]["curve"]) == 30


def test_page_asks_for_nothing_from_outside(whole: tuple[dict[str, Any], str]) -> None:
    html = whole[1]
    assert all(reference.startswith("#") for reference in Page(html).references)
    assert not re.search(r"https?://|@import|url\(", html)


def test_no_completion_can_break_out_of_the_page(whole: tuple[dict[str, Any], str]) -> None:
    html = whole[1]
    scripts = Page(html).scripts
    assert len(scripts) == 2
    assert not set("<>&") & set(scripts[0])
    data = json.loads(scripts[0])
    assert any(HOSTILE in sample["text"] for sample in data["samples"])  # whole, inside the data
    assert HOSTILE not in html and "<b>why</b>" not in html
    assert "innerHTML" not in scripts[1]


def test_page_shows_the_numbers_of_the_summary(whole: tuple[dict[str, Any], str]) -> None:
    summary, html = whole
    text = " ".join("".join(Page(html).text).split())
    for model, modes in summary["scores"].items():
        for mode, figures in modes.items():
            assert f"{100 * figures['accuracy_strict']:.1f}%" in text, (model, mode)
    lift = summary["paired"]["grpo_vs_sft"]["sampled"]["diff"]
    assert f"{100 * lift:+.1f} points" in text
    assert "grpo vs sft: accuracy (strict), sampled" in text
    assert "sft vs base: well-formed, greedy" in text
    assert "1.5 GiB peak memory" in text
    assert re.search(r"sft\s*12\.5 s\s*1\.5 GiB.*total\s*1 min 15 s\s*1\.5 GiB", text)
    assert html.count('<svg class="line"') == 2 + 6
    assert "slipped number" in text and "macro f1" in text and "not run" not in text


def test_stages_that_did_not_run_are_marked(tmp_path: Path) -> None:
    build(tmp_path, ("questions", "distil"))
    summary, html = make_report(tmp_path)
    assert list(summary["stages"]) == ["questions", "distil"]
    assert (summary["filter"], summary["scores"], summary["funnel"]["good"]) == (None, {}, None)
    text = " ".join("".join(Page(html).text).split())
    for stage in ("filter", "evaluate", "sft", "grpo"):
        assert f"{stage}: not run" in text
    assert re.search(r"SFT rows \(from good\)\s*not run", text)
    assert "no completions yet" in text


def test_memory_that_was_not_measured_is_not_shown(tmp_path: Path) -> None:
    build(tmp_path, ("questions",), memory_gib=0.0)
    summary, html = make_report(tmp_path)
    assert summary["memory_gib"] == {} and "GiB" not in html


def test_an_evaluation_alone_is_reported(tmp_path: Path) -> None:
    build(tmp_path, ("evaluate",))
    summary, html = make_report(tmp_path)
    assert summary["funnel"]["questions"] is None
    assert "well-formed" in html


def test_a_teacher_without_faults_has_no_confusion(tmp_path: Path) -> None:
    build(tmp_path, ("filter",))
    write_json(tmp_path / "3_filtered" / "filter_summary.json", {"reasons": {}})
    summary, html = make_report(tmp_path)
    assert summary["filter"] is None
    assert "plants no faults" in html


def test_undecided_values_are_shown_as_dashes(tmp_path: Path) -> None:
    build(tmp_path, ("evaluate",))
    failed = [grade_completion(question(n), 0, Completion("", "error", error="no room")) for n in range(3)]
    first, *others = Score.read(tmp_path / "6_scores" / "scores.json")
    scores = [replace(first, values=figures_of(failed, 0.95, 50, 0)), *others]
    write_json(tmp_path / "6_scores" / "scores.json", [score.to_json() for score in scores])
    sft_vs_base, *pairs = Pair.read(tmp_path / "6_scores" / "paired.json")
    pairs.insert(0, replace(sft_vs_base, values={}))
    write_json(tmp_path / "6_scores" / "paired.json", [pair.to_json() for pair in pairs])
    summary, html = make_report(tmp_path)
    assert summary["scores"]["base"]["greedy"]["accuracy_strict"] is None
    assert "<b>–</b>" in html and "None" not in "".join(Page(html).text)


def test_samples_are_balanced_and_the_same_questions_across_models(tmp_path: Path) -> None:
    build(tmp_path)
    folders = {stage: tmp_path / folder for stage, folder in STAGES.items()}
    found = samples.collect(folders, 12)
    shown = [s for s in found["samples"] if s["origin"] == "evaluation"]
    greedy = {m: [s for s in shown if s["group"] == m and s["mode"].startswith("greedy")] for m in ("sft", "grpo")}
    assert {m: len(rows) for m, rows in greedy.items()} == {"sft": 6, "grpo": 6}
    assert [s["outcome"] for s in greedy["sft"]].count("right") == 3
    training = [s for s in found["samples"] if s["origin"] == "training"]
    assert len(training) == 12 and len({s["mode"] for s in training}) == 12  # one of each of twelve steps
    outcomes = {s["outcome"] for s in found["samples"] if s["origin"] == "filter"}
    assert outcomes == {"good", "bad", "undecided"}
    assert all(s["question"] in found["questions"] for s in found["samples"])
    assert samples.collect(folders, 0) == {"questions": {}, "samples": []}


def test_a_negative_number_of_samples_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"report\.samples=-1"):
        ReportSettings(samples=-1)
