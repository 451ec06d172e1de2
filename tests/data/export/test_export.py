"""The export stage: layouts that `datasets` loads, books that balance, flat memory, and the card."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from finr1.answer.tags import render
from finr1.core.errors import ConfigError, DataError
from finr1.core.files import read_json, write_json
from finr1.core.jsonl import read_jsonl
from finr1.core.stage_folder import Spent, StageKey, begin, finish
from finr1.core.types import Question, Trace
from finr1.data.export.card import cell_text, size_category, without_folders
from finr1.data.export.layouts import COLUMNS, LAYOUTS, schema
from finr1.data.export.run import run
from finr1.data.export.shards import GROUP_ROWS, Shards
from finr1.data.filter.run import run as run_filter
from finr1.data.questions.run import distribution
from finr1.settings.export import ExportSettings
from finr1.settings.filter import FilterSettings
from finr1.settings.root import JudgeSettings
from tests.helpers.stages import question, stage_context, write_rows

EXACT = JudgeSettings({"exact": {"_target_": "finr1.parts.judge.exact.Exact"}})


def done(folder: Path, stage: str, counts: dict[str, Any], settings: dict[str, Any] | None = None) -> None:
    """Mark a stage's folder as finished, with these counts in its manifest."""
    key = StageKey(stage, settings or {}, {}, "code")
    begin(folder.parent / "elsewhere", key)
    (folder / "begun.json").write_text((folder.parent / "elsewhere" / "begun.json").read_text())
    finish(folder, key, counts, Spent(1.0, 0.1), {"finr1": "9.9"})


def trace(of: Question, answer: str, sample: int = 0, **more: Any) -> Trace:
    return Trace(of.id, sample, "r1", f"thought {sample}", answer, "raw", prompt_hash="ph", n_tokens=7, **more)


def make_run(run_dir: Path, traces: Sequence[tuple[Question, list[Trace]]], **counts: Any) -> None:
    """A run whose questions, traces and verdicts are these; the filter judges answers alone, for real."""
    questions = [of for of, _ in traces]
    rows = [one for _, several in traces for one in several]
    write_rows(run_dir / "1_questions" / "questions.jsonl", questions)
    write_rows(run_dir / "2_traces" / "traces.jsonl", rows)
    settings = {"source": {"finqa": {"_target_": "x.FinQA", "path": "/secret/place/finqa"}}}
    books = {"distribution": distribution([*questions, *questions[:1]], questions), "checked": {"finqa": 12}}
    done(run_dir / "1_questions", "questions", {**books, "removed": {"duplicate": 1}, **counts}, settings)
    done(run_dir / "2_traces", "distil", {"traces": len(rows), "failed": 0, "truncated": 0, "tokens": 7 * len(rows)})
    with stage_context(run_dir, "filter", judge=EXACT, filter=FilterSettings(reasoning=False)) as ctx:
        judged = run_filter(ctx)
    done(run_dir / "3_filtered", "filter", judged, {"judge": {"answer": {"exact": {"_target_": "x.Exact"}}}})


def export(run_dir: Path, **settings: Any) -> dict[str, Any]:
    with stage_context(run_dir, "export", export=ExportSettings(**settings), name="r") as ctx:
        return run(ctx)


def load(run_dir: Path, layout: str, split: str = "train") -> list[dict[str, Any]]:
    from datasets import load_dataset

    rows = load_dataset(str(run_dir / "export"), layout, split=split, cache_dir=str(run_dir / "cache"))
    return [dict(row) for row in rows]


def card(run_dir: Path) -> str:
    return (run_dir / "export" / "README.md").read_text(encoding="utf-8")


def head(run_dir: Path) -> dict[str, Any]:
    return yaml.safe_load(card(run_dir).split("---\n")[1])  # type: ignore[no-any-return]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Three good traces, one bad, two undecided, of two sources."""
    a = question("1 + 1?", "2", source="finqa", meta={"wording": "finqa.v1"})
    b = question("二加二?", "4", source="tfns", language="zh", kind="label", choices={"4": "four"})
    c = question("why?", "because", source="tfns", kind="text", module="professional knowledge")
    traces = [
        (a, [trace(a, "\\boxed{2}"), trace(a, "\\boxed{3}", 1), trace(a, "so \\boxed{2}", 2)]),
        (b, [trace(b, "\\boxed{4}")]),
        (c, [trace(c, "x"), trace(c, "y", 1)]),
    ]
    make_run(tmp_path, traces, licences={"finqa": "MIT", "tfns": None})
    return tmp_path


def test_every_layout_loads_and_leads_back_to_question_trace_and_verdict(small: Path) -> None:
    counts = export(small)
    assert counts == {"rows": 3, "files": 3, "traces": 6, "splits": {"train": 3}}
    questions = {row["id"]: row for row in read_jsonl(small / "1_questions" / "questions.jsonl")}
    traces = {row["id"]: row for row in read_jsonl(small / "2_traces" / "traces.jsonl")}
    verdicts = {row["trace_id"]: row for row in read_jsonl(small / "3_filtered" / "verdicts.jsonl")}
    good = [row["trace"]["id"] for row in read_jsonl(small / "3_filtered" / "good.jsonl")]
    for name, layout in LAYOUTS.items():
        rows = load(small, name)
        assert [row["trace_id"] for row in rows] == good and len(rows) == 3
        for row in rows:
            assert tuple(row) == layout.columns
            asked, one, verdict = (
                questions[row["question_id"]],
                traces[row["trace_id"]],
                verdicts[row["trace_id"]],
            )
            assert one["question_id"] == asked["id"] == verdict["question_id"]
            assert (row["source"], row["language"], row["gold"]) == (asked["source"], asked["language"], asked["gold"])
            assert row["verdicts"]["answer"] == verdict["answer"]["value"] == 1.0
            assert (row["verdicts"]["answer_judge"], row["prompt_hash"], row["teacher_tokens"]) == ("exact", "ph", 7)
            assert set(row["verdicts"]["criteria"].values()) == {None}, "reasoning was not judged"


def test_what_the_layouts_hold(small: Path) -> None:
    export(small)
    first = {name: load(small, name)[0] for name in LAYOUTS}
    said = render("thought 0", "\\boxed{2}")
    chat = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": said}]
    assert first["messages"]["messages"] == first["fin_r1_sft"]["conversation"] == chat
    assert said == "<think>\nthought 0\n</think>\n<answer>\n\\boxed{2}\n</answer>"
    row = first["fin_r1"]
    assert (row["input"], row["reasoning_content"], row["content"]) == ("1 + 1?", "thought 0", "\\boxed{2}")
    assert (row["repo_name"], row["score"], row["reasoning_score"], row["input"]) == ("finqa", 1.0, None, "1 + 1?")
    assert row["prompt_tokens_len"] is row["content_tokens_len"] is row["reasoning_content_tokens_len"] is None
    sft = first["fin_r1_sft"]
    assert (sft["instruction"], sft["output"], sft["repo_name"]) == ("1 + 1?", said, "finqa")
    columns = {column for layout in LAYOUTS.values() for column in layout.columns}
    assert columns == COLUMNS.keys(), "the card explains every column, and no other"


def test_outcomes_are_splits_and_undecided_is_no_score(small: Path) -> None:
    counts = export(small, outcomes=["good", "bad", "undecided"])
    assert counts["splits"] == {"train": 3, "bad": 1, "undecided": 2} and counts["rows"] == 6
    scores = {split: [row["score"] for row in load(small, "fin_r1", split)] for split in counts["splits"]}
    assert scores == {"train": [1.0] * 3, "bad": [0.0], "undecided": [None, None]}
    assert [c["path"] for c in head(small)["configs"][1]["data_files"]] == [
        "fin_r1/train-*.parquet", "fin_r1/bad-*.parquet", "fin_r1/undecided-*.parquet",
    ]  # fmt: skip


def test_seven_criteria_become_a_score_only_when_all_are_decided(small: Path) -> None:
    from finr1.data.export.layouts import Judged

    of = question("q", "1")
    names = [*schema("fin_r1").field("verdicts").type.field("criteria").type]
    empty = {"value": None, "judge": ""}
    for values, expected in (([1.0] * 7, 7), ([1.0] * 5 + [0.0] * 2, 5), ([1.0] * 6 + [None], None)):
        criteria = {f.name: {"value": v, "judge": "j"} for f, v in zip(names, values, strict=True)}
        row = {"trace": trace(of, "1").to_json(), "outcome": "good", "answer": empty, "answer_strict": empty,
               "answer_scaled": empty, "criteria": criteria}  # fmt: skip
        made = LAYOUTS["fin_r1"].row(Judged(of, row), lambda text: len(text))
        assert made["reasoning_score"] == expected and made["verdicts"]["criteria_judges"] == ["j"]
        assert made["prompt_tokens_len"] == 1 and made["reasoning_content_tokens_len"] == len("thought 0")


@pytest.mark.parametrize(("rows", "sizes"), [(0, []), (1, [1]), (6, [3, 3]), (7, [3, 3, 1])])
def test_shards_hold_so_many_rows_and_an_empty_split_is_left_out(tmp_path: Path, rows: int, sizes: list[int]) -> None:
    import pyarrow.parquet as pq

    of = question("q", "1")
    make_run(tmp_path, [(of, [trace(of, "\\boxed{1}", i) for i in range(rows)] or [trace(of, "\\boxed{2}")])])
    counts = export(tmp_path, shard_rows=3)
    files = sorted((tmp_path / "export" / "fin_r1").glob("*"))
    assert [file.name for file in files] == [f"train-{i:05d}.parquet" for i in range(len(sizes))]
    assert [pq.ParquetFile(file).metadata.num_rows for file in files] == sizes
    assert (counts["rows"], counts["files"]) == (rows, 3 * len(sizes))
    assert [row["sample"] for file in files for row in pq.read_table(file).to_pylist()] == list(range(rows))
    if rows:  # `datasets` itself knows no split without rows
        assert [row["sample"] for row in load(tmp_path, "messages")] == list(range(rows))
    else:
        assert counts["splits"] == {} and not head(tmp_path).get("configs")


def test_failed_and_truncated_rows_say_why_and_an_empty_split_does_not_keep_the_folder_from_loading(
    tmp_path: Path,
) -> None:
    import datasets

    of = question("q", "1")
    wrong = trace(of, "\\boxed{2}", 1, finish_reason="length")
    failed = trace(of, "", 2, finish_reason="error", error="HTTP 500")
    make_run(tmp_path, [(of, [wrong, failed])], licences={"made": "MIT", "other": "MIT"})
    export(tmp_path, outcomes=["good", "bad", "undecided"])
    loaded = datasets.load_dataset(str(tmp_path / "export"), "messages", cache_dir=str(tmp_path / "cache"))
    rows = {row["finish_reason"]: row["why"] for split in loaded.values() for row in split}
    assert set(loaded) <= {"bad", "undecided"} and rows["error"] == "HTTP 500" and rows["length"]
    assert "No row came from other." in card(tmp_path)


def test_row_groups_cross_nothing(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with Shards(tmp_path, "train", pa.schema([("a", pa.int64())]), 2 * GROUP_ROWS) as shards:
        for i in range(5 * GROUP_ROWS + 1):
            shards.write({"a": i})
    sizes = [pq.ParquetFile(file).metadata.num_rows for file in sorted(tmp_path.iterdir())]
    assert sizes == [2 * GROUP_ROWS, 2 * GROUP_ROWS, GROUP_ROWS + 1] and shards.files == 3
    assert pq.read_table(tmp_path).column("a").to_pylist() == list(range(5 * GROUP_ROWS + 1))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    """Eight times the rows of 10 kB each (5 and 40 MB of traces): the peak may not grow by 5 MB."""
    import pyarrow as pa

    peaks = []
    for n in (500, 4_000):
        run_dir = tmp_path / str(n)
        made = []
        for i in range(n // 4):
            of = question(f"q{i}", "1")
            made.append((of, [Trace(of.id, s, "r1", f"{i} {s} " * 900, "\\boxed{1}", "raw") for s in range(4)]))
        make_run(run_dir, made)
        del made
        tracemalloc.start()
        assert export(run_dir)["rows"] == n
        peaks.append(tracemalloc.get_traced_memory()[1] / 1e6)
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 5, peaks
    assert pa.default_memory_pool().max_memory() < 120e6


def test_the_distribution_adds_up(small: Path) -> None:
    export(small)
    block = card(small).split("## Distribution\n\n")[1].split("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in block]
    assert cells[0] == [
        "source",
        "module",
        "language",
        "read",
        "selected",
        "traces",
        "good",
        "bad",
        "undecided",
        "rows",
    ]
    assert cells[2:] == [
        ["finqa", "reasoning business", "en", "2", "1", "3", "2", "1", "0", "2"],
        ["tfns", "professional knowledge", "en", "1", "1", "2", "0", "0", "2", "0"],
        ["tfns", "reasoning business", "zh", "1", "1", "1", "1", "0", "0", "1"],
        ["**all**", "", "", "4", "3", "6", "3", "1", "2", "3"],
    ]
    beside = card(small).split("Compared with Fin-R1's data")[1]
    assert "| finqa | 2 | 2 | 8.28k | 2,948 |" in beside and "| tfns | 2 | 1 | 11.93k | 2,451 |" in beside


def test_the_card_says_how_it_was_made_and_names_no_folder_of_this_machine(small: Path) -> None:
    from finr1.core.prompt import text_hash

    export(small)
    text = card(small)
    assert f"| finqa.v1 | {text_hash('finqa.v1')} | question prompts (1) |" in text
    assert "| same wording and choices as a kept question | 1 |" in text
    assert "Every row was checked against finqa (12 held-out questions)" in text
    assert (
        "| answer | exact | Exact | 4 |" in text
        and "| answer | undecided |  | 2 |" in text
        and "| not judged |" not in text
    )
    path = small / "3_filtered" / "manifest.json"
    made = read_json(path)
    nodes = {name: {"_target_": "x.Y"} for name in ("a", "exact", "z")}  # a manifest sorts them
    write_json(path, {**made, "settings": {**made["settings"], "judge": {"answer": nodes}}})
    judge = JudgeSettings(answer={"z": {}, "exact": {}})
    with stage_context(small, "export", judge=judge, name="r") as ctx:
        run(ctx)
    assert re.findall(r"^\| answer \| (\w+) \| Y ", card(small), re.M) == ["z", "exact", "a"]
    write_json(path, made)
    assert "| teacher | r1 (6 traces) |" in text and "| completion tokens | 42 |" in text
    assert "| answer undecided | 2 |" in text and "| answer wrong | 1 |" in text
    manifest = read_json(small / "3_filtered" / "manifest.json")
    assert f"| filter | {manifest['fingerprint']} | code | 9.9 |" in text
    assert "/secret" not in text and '"path": "finqa"' in text
    assert "5 rows of 6" not in text and not re.search(r"\bNone\b", text)


def test_licences_are_those_of_the_sources_and_unknown_says_so(small: Path) -> None:
    export(small)
    assert "| finqa | MIT |" in card(small) and "| tfns | unknown |" in card(small)
    assert head(small)["license"] == "other" and head(small)["license_name"] == "by-source"
    export(small, licences={"tfns": "mit"})
    assert "| tfns | mit |" in card(small)
    assert head(small)["license"] == "mit" and "license_name" not in head(small)
    assert head(small)["language"] == ["en", "zh"] and head(small)["size_categories"] == "n<1K"


def test_what_was_not_checked_is_said_in_bold(tmp_path: Path) -> None:
    of = question("q", "1")
    make_run(tmp_path, [(of, [trace(of, "\\boxed{1}")])], checked=None, removed={})
    export(tmp_path)
    assert "**These rows were not checked against any benchmark**" in card(tmp_path)
    assert "No question was removed." in card(tmp_path)


def test_it_can_be_written_again_over_what_a_kill_left(small: Path) -> None:
    export(small, outcomes=["bad"])
    left = small / "export" / "messages" / "bad-00007.parquet"
    left.write_bytes(b"PAR1 half a fil")
    export(small)
    assert [file.name for file in left.parent.iterdir()] == ["train-00000.parquet"]
    first = {file: file.read_bytes() for file in (small / "export").rglob("*.parquet")}
    export(small)
    assert first == {file: file.read_bytes() for file in (small / "export").rglob("*.parquet")}


def test_lost_and_unknown_rows_are_one_line(small: Path) -> None:
    bad = small / "3_filtered" / "bad.jsonl"
    kept = bad.read_text()
    bad.write_text("")
    with pytest.raises(DataError, match=r"3_filtered: 5 rows of 6 traces; run stage=filter again"):
        export(small)
    bad.write_text(kept.replace('"question_id": "', '"question_id": "x'))
    with pytest.raises(DataError, match=r"bad\.jsonl: line 1 has an unknown question x"):
        export(small)
    (small / "1_questions" / "questions.jsonl").write_text('{"id": "a"}\n')
    with pytest.raises(DataError, match=r"questions\.jsonl: line 1 has no `source`"):
        export(small)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"outcomes": ["great"]}, r"export\.outcomes=great: unknown outcome; use some of good, bad, undecided"),
        ({"outcomes": []}, r"export\.outcomes=\[\]: nothing would be exported"),
        ({"shard_rows": 0}, r"export\.shard_rows=0: must be at least 1"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ExportSettings(**settings)


def test_small_parts_of_the_card() -> None:
    assert (
        cell_text("a|b\nc <d> \\") == "a\\|b c &lt;d> \\\\" and cell_text(None) == "–" and cell_text(12345) == "12,345"
    )
    sizes = {999: "n<1K", 1_000: "1K<n<10K", 60_091: "10K<n<100K", 999_999: "100K<n<1M", 1_000_000: "1M<n<10M"}
    assert {n: size_category(n) for n in sizes} == sizes
    places = {"path": "/a/b/finqa", "x": [{"path": "hub:o/n"}, {"path": "../c/d"}], "model": {"path": "org/name"}}
    assert without_folders(places) == {
        "path": "finqa", "x": [{"path": "hub:o/n"}, {"path": "d"}], "model": {"path": "org/name"},
    }  # fmt: skip


@pytest.mark.slow
def test_a_tokenizer_counts_each_text(small: Path) -> None:
    from transformers import AutoTokenizer

    from finr1.parts.model.folder import resolve
    from finr1.settings.model import ModelSettings

    export(small, tokenizer="embedded:smollm2_135m")
    tokens = AutoTokenizer.from_pretrained(resolve(ModelSettings()))
    for row in load(small, "fin_r1"):
        for column, text in (("prompt", "input"), ("reasoning_content", "reasoning_content"), ("content", "content")):
            assert row[f"{column}_tokens_len"] == len(tokens.encode(row[text], add_special_tokens=False)) > 0
    with pytest.raises(ConfigError, match=r"export\.tokenizer=no/such: no such folder"):
        export(small, tokenizer="no/such")


def test_what_was_not_judged_is_not_called_undecided(tmp_path: Path) -> None:
    of = question("q", "1")
    traces = [
        trace(of, "\\boxed{1}"),
        trace(of, "", 1, finish_reason="length"),
        trace(of, "", 2, finish_reason="error"),
    ]
    make_run(tmp_path, [(of, traces)])
    export(tmp_path)
    text = card(tmp_path)
    assert "| answer | not judged |  | 2 |" in text and "| answer | undecided |" not in text
    assert "| truncated | 1 |" in text and "| call failed | 1 |" in text
