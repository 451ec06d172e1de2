"""The benchmarks' scripts still fit the code that they measure; what they find is theirs to say."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

from experiments.benchmarks import distil_http, export, figures, questions
from experiments.benchmarks import evaluate as evaluate_bench
from experiments.benchmarks import filter as filter_bench
from experiments.benchmarks.training import finr1_side, rows
from finr1.core.errors import ConfigError
from finr1.core.jsonl import read_jsonl
from finr1.parts.model.folder import resolve
from finr1.parts.model.tokens import load_tokenizer, prompt_ids
from finr1.settings.model import ModelSettings
from finr1.training.rows.rows import RowGroup
from tests.helpers.fault_server import good, serve
from tests.helpers.stages import stage_context
from tests.helpers.tiny_model import tiny


def test_a_figure_is_a_line_with_its_ratio_and_the_last_ones_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(figures, "RESULTS", tmp_path / "results")
    for value in (3.0, 6.0):
        found = figures.Figures("b")
        found.add("speed", value, "> 1", "rows/s", peer=4.0)
        found.write()
    expected = {"bench": "b.speed", "finr1": 6.0, "peer": 4.0, "ratio": 1.5, "goal": "> 1", "unit": "rows/s"}
    kept = (tmp_path / "results" / "b.jsonl").read_text()
    assert json.loads(kept) == expected
    assert capsys.readouterr().out.endswith(kept)


def test_distil_http_times_the_stage_and_the_peer() -> None:
    with serve(good) as server:
        assert 0 < distil_http.stage_seconds(server.url, 12) < 60
        assert len(server.answered) == 12
        assert 0 < distil_http.peer_seconds(server.url, 5) < 60
        assert len(server.answered) == 17


def test_pages_plants_what_it_says() -> None:
    rows = [q for q in questions.Pages(2000).load() if q.split == "train"]
    planted = Counter(q.meta["planted"] for q in rows)
    for kind, share in questions.SHARES.items():
        assert planted[kind] / 2000 == pytest.approx(share, abs=0.015)
    held = [q.text for q in questions.Pages(0).load()]
    leak = next(q.text for q in rows if q.meta["planted"] == "leak").split()[50:70]
    assert any(" ".join(leak) in text for text in held)


def test_the_export_benchmark_makes_a_run_that_the_stage_reads(tmp_path: Path) -> None:
    from finr1.data.export.run import run

    export.make_run(tmp_path, 5)
    with stage_context(tmp_path, "export") as ctx:
        assert run(ctx)["rows"] == 5
    assert export.cpu_s() >= 0


def test_filter_measures_the_stage_on_its_own_rows(tmp_path: Path) -> None:
    filter_bench.make(tmp_path, 40)
    seconds, memory = filter_bench.measure(tmp_path)
    assert 0 < seconds < 60 and 0.01 < memory < 64
    rows = (tmp_path / "3_filtered" / "verdicts.jsonl").read_text().splitlines()
    assert len(rows) == 40 and len({json.loads(row)["question_id"] for row in rows}) == 4


def test_evaluate_scores_its_own_completions_and_the_report_reads_its_run(tmp_path: Path) -> None:
    pairs = evaluate_bench.completions(24, 1000)
    rows, seconds = evaluate_bench.scored(pairs)
    assert seconds > 0 and len(rows) == 24 and {row.strict for row in rows} == {0.0, 1.0}
    assert all(len(row.text) > 1000 for row in rows) and evaluate_bench.scored_again(pairs, rows, tmp_path) > 0
    evaluate_bench.make_run(tmp_path / "run", pairs, rows)
    wall, memory = figures.stage("stage=report", "name=run", f"paths.runs={tmp_path}")
    assert wall > 0 and memory > 0
    page = (tmp_path / "run" / "7_report" / "report.html").read_text(encoding="utf-8")
    assert "By category" in page and "Accuracy by length" in page


def test_a_figure_that_was_not_measured_again_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    for names in (("one", "two"), ("two", "three")):
        found = figures.Figures("b")
        for name in names:
            found.add(name, len(names) * len(names[0]), "> 1", "s")
        found.write()
    kept = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert [row["bench"] for row in kept] == ["b.one", "b.two", "b.three"]


def test_padded_rows_of_the_training_bench_are_the_same_work_as_shared_ones() -> None:
    group = RowGroup([5, 4, 3], [[1, 2], [7, 8], [9, 9]], range(3))
    models = tiny(), tiny(attention="sdpa")
    finr1_side.shared(models[0], group)
    finr1_side.padded(models[1], 2, group)
    for mine, theirs in zip(*(m.parameters() for m in models), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=2e-6, rtol=1e-5)


@pytest.mark.slow
def test_the_training_bench_writes_rows_of_the_tokens_it_says(tmp_path: Path) -> None:
    try:
        model = resolve(ModelSettings())
    except ConfigError as error:
        pytest.skip(str(error))
    rows.write(tmp_path, model, "short", 5, 7)
    tokenizer = load_tokenizer(model)
    prompts = [row["messages"] for row in read_jsonl(tmp_path / "prompts_short.jsonl")]
    assert len(prompts) == 5 and all(90 <= len(prompt_ids(tokenizer, list(m))) <= 115 for m in prompts)
    pairs = [row["prompt"] + row["completion"] for row in read_jsonl(tmp_path / "rows_short.jsonl")]
    lengths = [len(tokenizer.apply_chat_template(m, tokenize=True, return_dict=False)) for m in pairs]
    assert len(lengths) == 7 and all(140 <= n - 1 <= 180 for n in lengths)  # the template ends with a line break
