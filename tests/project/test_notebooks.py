"""The notebooks are executed on a finished run; in the repository they carry no outputs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest

from finr1.core.files import write_json
from tests.data.filter.test_audit import SETTINGS, TOLD, filtered
from tests.helpers.runner import REPO

FOLDER = REPO / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


@pytest.fixture(scope="session")
def finished_run(request: pytest.FixtureRequest) -> Path:
    """A run folder with every stage done: FINR1_TEST_RUN, or the tiny run."""
    given = os.environ.get("FINR1_TEST_RUN")
    return Path(given) if given else Path(request.getfixturevalue("tiny_run"))


def test_those_there_are() -> None:
    """Each has a test below that executes it."""
    assert [path.stem for path in NOTEBOOKS] == ["01_a_run_step_by_step", "02_where_judges_disagree"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_short_and_stripped(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert len(notebook.cells) <= 20 and sum(len(cell.source.splitlines()) for cell in code) <= 150


def execute(path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a notebook on a run folder; returns what its cells gave."""
    from nbclient import NotebookClient

    monkeypatch.setenv("FINR1_RUN", str(run.resolve()))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]))
    notebook = read(path)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "\n".join(str(output.get("text", "")) + str(output.get("data", {})) for output in outputs)


@pytest.mark.slow
def test_a_run_step_by_step(finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = execute(FOLDER / "01_a_run_step_by_step.ipynb", finished_run, monkeypatch)
    assert "image/png" in text, "the curves were drawn"
    for word in ("questions", "report", "outcome: good", "logical_consistency", "tokens read", "advantage", "greedy"):
        assert word in text, word


@pytest.mark.slow
def test_where_judges_disagree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = filtered(tmp_path, TOLD)
    write_json(run_dir / "3_filtered" / "manifest.json", {"settings": SETTINGS})
    text = execute(FOLDER / "02_where_judges_disagree.ipynb", run_dir, monkeypatch)
    assert "rules and judge can be compared" in text and "3 disagreements" in text
    assert "| all sources | 7 | 2 | 1 | 2 | 2 | 2 | 0.571 | 0.160 | 0.429 | 0.571 |" in text
    assert "1 of 3: rules right, judge wrong (finqa, number" in text and "says: 0.0, as told" in text
    assert "| says | tfns | rules wrong, judge right | 2 |" in text
    one = {"judge": {"answer": {"exact": SETTINGS["judge"]["answer"]["exact"]}}}
    write_json(run_dir / "3_filtered" / "manifest.json", {"settings": one})
    text = execute(FOLDER / "02_where_judges_disagree.ipynb", run_dir, monkeypatch)
    assert "Only one answer judge (exact): nothing to compare." in text and "0 disagreements" in text
