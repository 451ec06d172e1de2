"""The notebooks are executed on a finished run; in the repository they carry no outputs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


@pytest.fixture(scope="session")
def finished_run(request: pytest.FixtureRequest) -> Path:
    """A run folder with every stage done: FINR1_TEST_RUN, or the tiny run."""
    given = os.environ.get("FINR1_TEST_RUN")
    return Path(given) if given else Path(request.getfixturevalue("tiny_run"))


def test_there_is_one() -> None:
    assert "01_a_run_step_by_step.ipynb" in [path.name for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_short_and_stripped(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)
    assert len(notebook.cells) <= 20 and sum(len(cell.source.splitlines()) for cell in code) <= 150


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path: Path, finished_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbclient import NotebookClient

    monkeypatch.setenv("FINR1_RUN", str(finished_run.resolve()))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FOLDER.parent), os.environ.get("PYTHONPATH", "")]))
    notebook = read(path)
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(FOLDER)}}
    ).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    text = "\n".join(str(output.get("text", "")) + str(output.get("data", {})) for output in outputs)
    assert "image/png" in text, "the curves were drawn"
    for word in ("questions", "report", "outcome: good", "logical_consistency", "tokens read", "advantage", "greedy"):
        assert word in text, word
