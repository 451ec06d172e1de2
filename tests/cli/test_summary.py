"""The tables at the end of a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from finr1.cli.summary import headline, read_scores, show
from finr1.core.files import write_json
from finr1.core.scores import Score
from finr1.core.stage_folder import Spent
from finr1.settings.root import RootConfig

VALUES = {"format": 1.0, "accuracy_strict": 0.725, "accuracy_scaled": None, "n": 1024, "low": 0.69, "high": 0.75}


def score(benchmark: str, model: str, mode: str = "greedy", headline: str = "accuracy_strict", **more: Any) -> Score:
    return Score(benchmark, model, mode, headline, 1024, {}, {**VALUES, **more})


def write(run_dir: Path, *scores: Score) -> None:
    write_json(run_dir / "6_scores" / "scores.json", [one.to_json() for one in scores])


@pytest.fixture
def cfg(tmp_path: Path) -> RootConfig:
    """A run whose report is done: two benchmarks, one of them with labels."""
    cfg = RootConfig(name="r", stage="pipeline")
    cfg.paths.runs = str(tmp_path)
    labelled = score("b", "base", figures={"macro_f1": 0.41, "majority_accuracy": 0.65})
    write(tmp_path / "r", score("a", "sft"), labelled)
    (tmp_path / "r" / "7_report").mkdir()
    (tmp_path / "r" / "7_report" / "report.html").write_text("<html>")
    return cfg


def test_the_tables_show_seconds_scores_and_the_report(cfg: RootConfig, capsys: pytest.CaptureFixture[str]) -> None:
    show(cfg, {"evaluate": Spent(12.34, 7.25), "report": Spent(0.5, 0.0)}, 13.0)
    out = capsys.readouterr().out
    evaluate, report = (line.split() for line in out.splitlines() if "6_scores" in line or "7_report  " in line)
    assert (evaluate, report) == (["evaluate", "6_scores", "12.3", "7.2"], ["report", "7_report", "0.5", "–"])
    (sft,) = (line for line in out.splitlines() if line.lstrip().startswith("sft"))
    assert sft.split() == ["sft", "greedy", "0.725", "–", "1.000", "–", "–", "0.69–0.75", "1,024"]
    (base,) = (line for line in out.splitlines() if line.lstrip().startswith("base"))
    assert "0.410" in base and "0.650" in base
    assert out.splitlines()[-1].endswith("report.html")
    assert max(map(len, out.splitlines()[:-1])) <= 80


def test_no_figure_is_cut_at_eighty_columns(cfg: RootConfig, capsys: pytest.CaptureFixture[str]) -> None:
    every = {"accuracy_scaled": 0.73, "undecided": 0.5, "truncated": 0.25}
    write(Path(cfg.paths.runs) / "r", score("a", "base", "sampled", **every))
    show(cfg, {"evaluate": Spent(1.0, 1.0)}, 1.0)
    (base,) = (line for line in capsys.readouterr().out.splitlines() if line.lstrip().startswith("base"))
    assert base.split() == ["base", "sampled", "0.725", "0.730", "1.000", "0.500", "0.250", "0.69–0.75", "1,024"]


def test_a_light_stage_alone_shows_no_table(cfg: RootConfig, capsys: pytest.CaptureFixture[str]) -> None:
    show(cfg, {"filter": Spent(1.0, 1.0)}, 1.0)
    assert capsys.readouterr().out == ""


def test_a_run_without_scores_has_no_scores(tmp_path: Path) -> None:
    assert read_scores(tmp_path) == [] and headline([]) == ""
    undecided = score("a", "sft", "sampled", accuracy_strict=None)
    assert headline([score("a", "sft"), undecided, score("b", "sft")]) == "sft 0.725/–"


def test_where_a_judge_scored_its_accuracy_is_shown_and_leads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = RootConfig(name="r", stage="evaluate")
    cfg.paths.runs = str(tmp_path)
    judged = score("a", "sft", headline="accuracy_judged", accuracy_judged=0.875)
    write(tmp_path / "r", judged)
    assert read_scores(tmp_path / "r") == [judged]
    show(cfg, {"evaluate": Spent(1.0, 1.0)}, 1.0)
    out = capsys.readouterr().out
    assert " judged " in out and " scaled " not in out and "0.875" in out and "0.725" in out
    assert max(map(len, out.splitlines())) <= 80
    assert "stage=report writes it" in out.splitlines()[-1]
    page = tmp_path / "r" / "7_report" / "report.html"
    page.parent.mkdir()
    page.write_text("old")
    os.utime(page, (1, 1))  # of scores before these
    show(cfg, {"evaluate": Spent(1.0, 1.0)}, 1.0)
    assert "stage=report writes it" in capsys.readouterr().out.splitlines()[-1]
    os.utime(page)
    show(cfg, {"report": Spent(1.0, 1.0)}, 1.0)
    assert capsys.readouterr().out.splitlines()[-1].endswith("report.html")
    assert headline([judged]) == "sft 0.875"
