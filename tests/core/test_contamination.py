"""What a model folder's manifests say of its training rows against a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finr1.core.contamination import leakage
from finr1.core.files import write_json
from tests.helpers.stages import question, write_rows

ASKED = [question(f"asked {i}", document_id=f"d{i}") for i in range(10)]


def run_of(folder: Path, checked: dict[str, int] | None, documents: tuple[str, ...] = ("x",), **grpo: Any) -> Path:
    """A run with an SFT and a GRPO model; returns the folder of the GRPO stage."""
    rows = [question(f"trained {n}", document_id=document) for n, document in enumerate(documents)]
    (folder / "1_questions" / "questions.jsonl").unlink(missing_ok=True)
    write_rows(folder / "1_questions" / "questions.jsonl", rows)
    write_json(folder / "1_questions" / "manifest.json", {"counts": {"checked": checked}})
    write_json(folder / "4_sft" / "manifest.json", {"settings": {"sft": {"rows": None}}})
    settings = {"rows": None, "init_from": None, **grpo}
    write_json(folder / "5_grpo" / "manifest.json", {"settings": {"grpo": settings}})
    return folder / "5_grpo"


def test_models_from_elsewhere_are_not_known(tmp_path: Path) -> None:
    assert leakage(None, "finqa", ASKED).state == "unknown"
    assert leakage(tmp_path / "some" / "model", "finqa", ASKED).state == "unknown"
    stage = run_of(tmp_path, {"finqa": 10}, init_from="Qwen/Qwen2.5-7B")
    assert leakage(stage / "model", "finqa", ASKED).state == "unknown"
    stage = run_of(tmp_path, {"finqa": 10}, rows=str(tmp_path / "gone"))
    assert leakage(stage / "model", "finqa", ASKED) == ("unknown", "its training rows were not found (gone)")


def test_rows_are_checked_against_as_many_questions_as_they_were(tmp_path: Path) -> None:
    stage = run_of(tmp_path, {"finqa": 10})
    assert leakage(stage / "model", "finqa", ASKED).state == "checked"
    assert leakage(tmp_path / "4_sft" / "model", "finqa", ASKED).state == "checked"
    partly = leakage(stage / "model", "finqa", [*ASKED, question("more")])
    assert partly == ("not checked", "its training rows were checked against only 10 of its questions")


def test_unchecked_rows_are_looked_at(tmp_path: Path) -> None:
    for checked in ({"tfns": 5}, None, {}):
        stage = run_of(tmp_path, checked, ("x", "d3", "d4", "d4"))
        found = leakage(stage / "model", "finqa", ASKED)
        assert found == ("shares documents", "2 of 10 benchmark documents were in its training data")
    stage = run_of(tmp_path, None)
    assert leakage(stage / "model", "finqa", ASKED).state == "not checked"


def test_the_rows_of_the_first_weights_count_too(tmp_path: Path) -> None:
    before = run_of(tmp_path / "before", None, ("d1",)).parent / "4_sft" / "model"
    stage = run_of(tmp_path / "after", {"finqa": 10}, init_from=str(before))
    assert leakage(stage / "model", "finqa", ASKED).state == "shares documents"
