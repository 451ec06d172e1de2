"""experiments/quickstart/record.py on a run folder made by hand."""

from __future__ import annotations

import importlib.util
import re
import struct
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType

import pytest
import yaml

from finr1.core.files import read_json, write_json
from finr1.core.jsonl import JsonlWriter
from finr1.core.tracking import read_metrics
from tests.evaluation.report import test_report
from tests.helpers import browser
from tests.helpers.runner import REPO

KEPT = {"regex": r"<answer>\d</answer>", "model": "embedded:x/y", "runs": "runs"}
FILES = ["config.yaml", "curves.svg", "metrics.jsonl", "summary.json"]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("record", REPO / "experiments" / "quickstart" / "record.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run whose config names places of one machine, and whose mirror holds an older attempt."""
    run = tmp_path / "here" / "first"
    test_report.build(run)
    test_report.make_report(run)
    settings = {"path": "/home/someone/data/tfns", **KEPT}
    (run / "config.yaml").write_text(yaml.safe_dump({"seed": 3, "source": [settings], "paths": {"runs": str(run)}}))
    with JsonlWriter(run / "metrics.jsonl") as writer:
        writer.write({"stage": "sft", "step": 0, "time": 1.0, "metrics": {"loss": 99.0}})
    return run


def test_the_record_holds_what_the_run_says(tool: ModuleType, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main([str(run), "--to", str(run.parent / "to")]) == 0
    folder = run.parent / "to" / "first"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    summary = read_json(folder / "summary.json")
    assert summary == read_json(run / "7_report" / "summary.json")
    assert read_metrics(folder, "sft") == read_metrics(run, "sft", since=2.0) != []
    assert "99.0" not in (folder / "metrics.jsonl").read_text()
    text = capsys.readouterr().out
    assert text.startswith("## unit-run, seed 3\n")
    sft = summary["scores"]["sft"]["sampled"]
    assert f"| {sft['accuracy_strict']:.3f} [{sft['low']:.3f}, {sft['high']:.3f}] |" in text
    test = summary["paired"]["grpo_vs_sft"]["greedy"]
    (row,) = re.findall(r"\| grpo vs sft \| greedy, accuracy \(strict\) \| (\S+) \|", text)
    assert float(row.replace("−", "-")) == pytest.approx(100 * test["diff"], abs=0.05)
    assert "| sft | 12 | 1.5 GiB |" in text and "| total | 75 | 1.5 GiB |" in text


def test_accuracy_and_step_by_step_share_by_template(tool: ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "6_scores" / "worked"
    texts = (("q1", "Take the sum at once.", 1.0), ("q1", "First the sum.", 0.0), ("q2", "So it is 4.", None))
    with JsonlWriter(folder / "questions.jsonl") as writer:
        writer.write({"id": "q1", "meta": {"template": "trend"}}, {"id": "q2", "meta": {"template": "cash"}})
    with JsonlWriter(folder / "sft.sampled.jsonl") as writer:
        writer.write(*({"question_id": q, "text": text, "strict": strict} for q, text, strict in texts))
    write_json(folder.parent / "scores.json", [{"model": "sft"}])
    *_, row = tool.by_template(tmp_path).splitlines()
    assert row == "| sft | 0.67 | 0.00 | 0.50 |"  # cash, trend


def test_no_place_of_a_machine_is_kept(tool: ModuleType, run: Path) -> None:
    tool.record(run, run.parent / "to")
    for path in (run.parent / "to").iterdir():
        assert "/home" not in path.read_text() and str(run.parent) not in path.read_text()
    config = yaml.safe_load((run.parent / "to" / "config.yaml").read_text())
    assert config["paths"]["runs"] == "<path>/first"
    assert config["source"] == [{"path": "<path>/tfns", **KEPT}]
    assert tool.without_places(["3 of 4 / day, a/b, ~/x", "in /tmp/a/b: why"]) == [
        "3 of 4 / day, a/b, <path>/x",
        "in <path>/b: why",
    ]


def test_the_curves_are_one_svg(tool: ModuleType, run: Path) -> None:
    summary = tool.record(run, run.parent / "to")
    root = ElementTree.parse(run.parent / "to" / "curves.svg").getroot()
    name = "{http://www.w3.org/2000/svg}"
    titles = [text.text or "" for text in root.iter(f"{name}text") if text.get("class") == "title"]
    drawn = [" ".join(title.split(":")[0].split(" ")[1:]).replace(" ", "_") for title in titles]
    assert drawn == [metric for stage, metric in tool.CURVES if metric in summary["training"][stage]]
    assert titles[0].startswith("SFT loss: ") and len(titles) >= 3
    assert len(list(root.iter(f"{name}polyline"))) >= len(titles)
    _, _, width, height = map(int, root.attrib["viewBox"].split())
    places = [tuple(map(int, re.findall(r"\d+", g.attrib["transform"]))) for g in root.findall(f"{name}g")]
    assert len(set(places)) == len(titles) and all(x < width and y < height for x, y in places)


def test_what_cannot_be_recorded_is_one_line(tool: ModuleType, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main([str(run / "none")]) == 2
    assert re.fullmatch(r"error: .*summary\.json: no such file; run the stage .*\n", capsys.readouterr().err)
    (run / "config.yaml").unlink()
    assert tool.main([str(run), "--to", str(run)]) == 2
    assert "config.yaml: no such file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        tool.main([str(run), str(run)])


def test_the_picture_is_a_png(tool: ModuleType, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for Chromium, which writes where it is told to."""
    fake = run.parent / "chromium"
    fake.write_text('#!/bin/sh\nfor a; do case $a in --screenshot=*) printf PNG > "${a#--screenshot=}";; esac; done\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(run.parent), prepend=":")
    assert tool.main([str(run), "--to", str(run.parent / "to"), "--picture"]) == 0
    assert (run.parent / "to" / "first" / "report.png").read_text() == "PNG"


@pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium: apt-get install chromium")
def test_chromium_makes_the_picture(tool: ModuleType, run: Path) -> None:
    tool.picture(run / "7_report" / "report.html", run / "report.png")
    image = (run / "report.png").read_bytes()
    assert image.startswith(b"\x89PNG") and struct.unpack(">II", image[16:24]) == tool.PICTURE


def test_without_chromium_the_picture_is_one_line(
    tool: ModuleType, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(run))
    assert tool.main([str(run), "--to", str(run.parent / "to"), "--picture"]) == 2
    assert re.fullmatch(
        r"error: .*report\.png: no Chromium .*; run apt-get install chromium, .*\n", capsys.readouterr().err
    )
