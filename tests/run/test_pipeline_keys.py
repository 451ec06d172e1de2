"""Inputs and fingerprints of the stages with the real configuration; rows and ranks that training refuses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from finr1.cli import check, compose, launch
from finr1.core import contamination as guard
from finr1.core.errors import ConfigError
from finr1.core.files import read_json, write_json
from finr1.run.fingerprints import key_of
from finr1.run.inputs import data_paths
from finr1.run.stages import STAGES, inputs_of
from finr1.settings.root import RootConfig


def real(tmp_path: Path, *overrides: str) -> tuple[RootConfig, dict[str, Any], Path]:
    """The real configuration as dataclasses and as plain values, and its run folder."""
    cfg = compose.compose([f"paths.runs={tmp_path}", *overrides])
    return compose.typed(cfg), compose.plain(cfg), tmp_path / cfg.name


WORKED: Mapping[str, int] = {"worked": 9}


def finish(run: Path, *names: str, checked: Mapping[str, int] | None = WORKED) -> None:
    """Mark these stages as done."""
    counts = {"checked": checked}
    for name in names:
        (run / STAGES[name].folder).mkdir(parents=True, exist_ok=True)
        write_json(run / STAGES[name].folder / "manifest.json", {"fingerprint": f"{run.name}/{name}", "counts": counts})


def test_grpo_reads_the_folders_its_settings_name(tmp_path: Path) -> None:
    cfg, values, run = real(tmp_path)
    assert list(inputs_of(STAGES["grpo"], cfg, run)) == ["questions", "filter", "sft"]
    other, start = tmp_path / "other", tmp_path / "start"
    finish(other, "questions", "filter")
    start.mkdir()
    (start / "model.safetensors").write_text("weights")
    cfg, values, run = real(tmp_path, f"grpo.rows={other}", f"grpo.init_from={start}")
    key = key_of(STAGES["grpo"], cfg, values, run)
    assert {**key.inputs, "grpo.init_from": ""} == {
        "questions": "other/questions",
        "filter": "other/filter",
        "grpo.init_from": "",
    }
    (start / "model.safetensors").write_text("other weights")
    assert key_of(STAGES["grpo"], cfg, values, run).fingerprint != key.fingerprint
    cfg, values, run = real(tmp_path, f"grpo.rows={other}", "grpo.init_from=Qwen/Qwen2.5-7B-Instruct")
    assert set(key_of(STAGES["grpo"], cfg, values, run).inputs) == {"questions", "filter"}


def test_sft_takes_another_runs_rows(tmp_path: Path) -> None:
    cfg, values, run = real(tmp_path, f"sft.rows={tmp_path / 'other'}")
    with pytest.raises(ConfigError, match=r"sft.rows=.*other: no rows to train on \(.*1_questions does not exist\)"):
        key_of(STAGES["sft"], cfg, values, run)
    finish(tmp_path / "other", "questions", "filter")
    assert key_of(STAGES["sft"], cfg, values, run).inputs == {"questions": "other/questions", "filter": "other/filter"}


@pytest.mark.parametrize(
    ("checked", "words"),
    [(None, "any benchmark"), ({}, "benchmark worked"), ({"finqa": 5}, "benchmark worked"), ({"worked": 0}, "")],
)
def test_training_refuses_rows_not_checked_against_its_benchmarks_unless_allowed(
    tmp_path: Path, checked: dict[str, int] | None, words: str
) -> None:
    finish(tmp_path / "other", "questions", "filter", checked=checked)
    finish(tmp_path / "quickstart", "questions", "filter", "sft", checked=checked)
    stages = ("sft", "grpo")
    for place in (tmp_path / "other", "null"):
        rows = [f"{stage}.rows={place}" for stage in stages]
        told = [f"{stage}.allow_unchecked={'true' if words else 'false'}" for stage in stages]
        (cfg, values, run), allowing = real(tmp_path, *rows), real(tmp_path, *rows, *told)
        for stage in stages:
            if words:
                with pytest.raises(
                    ConfigError, match=rf"{stage}\.allow_unchecked=false: .* not checked against {words}; "
                ):
                    key_of(STAGES[stage], cfg, values, run)
            assert "questions" in key_of(STAGES[stage], *allowing).inputs


def test_a_pipeline_whose_rows_would_be_refused_does_not_start(tmp_path: Path) -> None:
    cfg, values, _ = real(tmp_path, "questions.decontaminate=false")
    with pytest.raises(ConfigError, match=r"questions\.decontaminate=false: stage sft refuses unchecked rows"):
        check.check(cfg, values, tuple(STAGES.values()))


def test_a_pipeline_reports_missing_rows_before_its_first_stage(tmp_path: Path) -> None:
    cfg, values, _ = real(tmp_path, "grpo.rows=/nowhere")
    with pytest.raises(ConfigError, match=r"grpo\.rows=/nowhere"):
        check.check(cfg, values, tuple(STAGES.values()))


def test_evaluate_reads_only_the_models_it_names(tmp_path: Path) -> None:
    for models, reads in (("[base]", []), ("[base,grpo]", ["grpo"]), ("[base,sft,grpo]", ["sft", "grpo"])):
        cfg, _, run = real(tmp_path, f"evaluate.models={models}")
        assert list(inputs_of(STAGES["evaluate"], cfg, run)) == reads


def test_the_report_reads_the_finished_stages(tmp_path: Path) -> None:
    cfg, values, run = real(tmp_path)
    finish(run, "questions", "evaluate")
    assert key_of(STAGES["report"], cfg, values, run).inputs == {
        "questions": "quickstart/questions",
        "evaluate": "quickstart/evaluate",
    }


def test_data_files_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    data = tmp_path / "data" / "tfns"
    data.mkdir(parents=True)
    (data / "sent_train.csv").write_text("text,label\n")
    over = [f"paths.data={tmp_path / 'data'}", "source=[tfns]", "benchmark=[tfns]"]
    cfg, values, run = real(tmp_path, *over)
    key = key_of(STAGES["questions"], cfg, values, run)
    assert set(key.inputs) == {"source.tfns.path", "benchmark.tfns.source.path"}
    (data / "sent_train.csv").write_text("text,label\nmore,1\n")
    again = key_of(STAGES["questions"], cfg, values, run)
    assert again.changes(key.to_json()) == "input source.tfns.path, input benchmark.tfns.source.path"


def test_a_setting_affects_only_the_stages_that_depend_on_it(tmp_path: Path) -> None:
    run = tmp_path / "quickstart"
    finish(run, *STAGES)

    def fingerprints(*overrides: str) -> dict[str, str]:
        cfg, values, _ = real(tmp_path, *overrides)
        return {name: key_of(stage, cfg, values, run).fingerprint for name, stage in STAGES.items()}

    before = fingerprints()
    changed: dict[str, set[str]] = {}
    overrides = (
        "seed=1",
        "reward=[format]",
        "trainer.fit.precision=bf16-true",  # another than the default, which is fp32 on a CPU without bf16
        "report.samples=3",
        "logger=wandb",
        "name=x",
    )
    for override in overrides:
        after = fingerprints(override)
        changed[override] = {name for name in STAGES if after[name] != before[name]}
    assert changed["seed=1"] >= {"questions", "distil", "sft", "grpo", "evaluate"}
    assert changed["reward=[format]"] == {"grpo"}
    assert changed["trainer.fit.precision=bf16-true"] == {"sft", "grpo"}
    assert changed["report.samples=3"] == {"report"}
    assert changed["logger=wandb"] == changed["name=x"] == set()


@pytest.mark.parametrize(
    ("overrides", "world", "message"),
    [
        (["devices=2", "strategy=deepspeed"], 1, r"trainer\.fit\.strategy=deepspeed: no such strategy"),
        (
            ["devices=2", "strategy=fsdp", "precision=bf16-mixed"],
            1,
            r"trainer\.fit\.precision=bf16-mixed: autocast would keep a copy of all",
        ),
        (["devices=[0,1]"], 1, r"trainer\.fit\.devices=\[0, 1\]: rank k takes GPU k; give the number of GPUs"),
        (["devices=0"], 1, r"trainer\.fit\.devices=0: not a number of ranks"),
        (["devices=many"], 1, r"trainer\.fit\.devices=many: not a number of ranks"),
        (["devices=2", "num_nodes=2"], 1, r"trainer\.fit\.num_nodes=2: ranks of other machines are started there"),
        (["devices=1"], 2, r"WORLD_SIZE=2: trainer\.fit asks for 1 devices on 1 machines; start 1 ranks"),
        (["devices=2", "num_nodes=2"], 2, r"WORLD_SIZE=2: trainer\.fit asks for 2 devices on 2 machines; start 4"),
        (["devices=8"], 1, r"sft\.rows_per_step=4: fewer than the 8 ranks that share them"),
        (["accelerator=gpu"], 1, r"trainer\.fit\.accelerator=gpu: no GPU is found here"),
    ],
)
def test_impossible_ranks_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: list[str], world: int, message: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(world))
    cfg, *_ = real(tmp_path, "sft.rows_per_step=4", *(f"++trainer.fit.{override}" for override in overrides))
    with pytest.raises(ConfigError, match=message):
        launch.check_ranks(cfg, ["sft"])


def test_only_full_fine_tuning_can_be_sharded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    pieces = ("trainer=cpu_bf16", "trainer.fit.devices=2", "trainer.fit.strategy=fsdp", "sft.rows_per_step=2")
    cfg, *_ = real(tmp_path, *pieces)
    launch.check_ranks(cfg, ["sft"])
    cfg, *_ = real(tmp_path, *pieces, "model.adapter=lora")
    with pytest.raises(ConfigError, match=r"trainer\.fit\.strategy=fsdp: with model\.adapter=lora .* use ddp"):
        launch.check_ranks(cfg, ["sft"])


def test_every_rank_needs_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg, *_ = real(tmp_path, "trainer.fit.devices=2", "sft.rows_per_step=2", "grpo.questions_per_step=1")
    launch.check_ranks(cfg, ["sft"])  # the command starts them
    with pytest.raises(ConfigError, match=r"grpo\.questions_per_step=1: fewer than the 2 ranks"):
        launch.check_ranks(cfg, ["sft", "grpo"])
    monkeypatch.setenv("WORLD_SIZE", "2")
    launch.check_ranks(cfg, ["sft"])  # torchrun has
    cfg, *_ = real(tmp_path, "trainer.fit.devices=2", "+engine.policy.tensor_parallel_size=2")
    with pytest.raises(ConfigError, match=r"engine\.policy\.tensor_parallel_size=2: each of 2 ranks has its own"):
        launch.check_ranks(cfg, ["grpo"])
    cfg, *_ = real(tmp_path, "stage=filter")
    with pytest.raises(ConfigError, match="WORLD_SIZE=2: stage=filter does not train"):
        launch.check_ranks(cfg, ["filter"])
    for one in ("auto", "-1", "[0]", "1"):
        cfg, *_ = real(tmp_path, f"trainer.fit.devices={one}")
        monkeypatch.setenv("WORLD_SIZE", "1")
        launch.check_ranks(cfg, ["sft", "grpo"])


def test_a_path_on_the_hub_is_not_a_file() -> None:
    node = {"_target_": "x.Y", "path": "hub:owner/name@main"}
    assert list(data_paths({"a": node, "b": {**node, "path": "/data/b"}}, "source")) == [
        ("source.b.path", Path("/data/b"))
    ]


def test_rows_without_a_manifest_need_allow_unchecked(tmp_path: Path) -> None:
    other = tmp_path / "other"
    for name, file in (("questions", "questions.jsonl"), ("filter", "good.jsonl")):
        (other / STAGES[name].folder).mkdir(parents=True)
        (other / STAGES[name].folder / file).write_text("{}\n")
    cfg, values, run = real(tmp_path, f"sft.rows={other}")
    with pytest.raises(ConfigError, match=r"sft\.rows=.*: no rows to train on \(.*1_questions is not finished\)"):
        key_of(STAGES["sft"], cfg, values, run)
    cfg, values, run = real(tmp_path, f"sft.rows={other}", "sft.allow_unchecked=true")
    key = key_of(STAGES["sft"], cfg, values, run)
    (other / STAGES["filter"].folder / "good.jsonl").write_text("{}\n{}\n")
    assert key_of(STAGES["sft"], cfg, values, run).changes(key.to_json()) == "input filter"
    (other / STAGES["filter"].folder / "good.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"no rows to train on \(.*3_filtered is not finished\)"):
        key_of(STAGES["sft"], cfg, values, run)
    # this run's own stages are never taken unfinished
    cfg, values, run = real(tmp_path, "name=other", "sft.allow_unchecked=true")
    with pytest.raises(ConfigError, match="is not finished; run stage=questions first"):
        key_of(STAGES["sft"], cfg, values, run)


@pytest.mark.parametrize(
    ("then", "now", "covered"),
    [
        ({"limit": 4, "seed": 0}, {"limit": 4, "seed": 0}, True),
        ({"limit": 4, "seed": 0}, {"limit": 4, "seed": 1}, False),  # other rows
        ({"limit": 4, "seed": 0}, {"limit": 5, "seed": 0}, False),
        ({"limit": 4, "seed": 0}, {"limit": None, "seed": 0}, False),
        ({"limit": None, "seed": 0}, {"limit": 5, "seed": 3}, True),  # some of all
        ({"source": {"path": "/a", "wording": "w"}}, {"source": {"path": "/b", "wording": "w"}}, True),
        ({"source": {"path": "/a", "wording": "w"}}, {"source": {"path": "/a", "wording": "x"}}, False),
        ({"split": "test"}, {"split": "train"}, False),
    ],
)
def test_a_benchmark_is_identified_by_its_settings_not_its_name(
    tmp_path: Path, then: dict[str, Any], now: dict[str, Any], covered: bool
) -> None:
    assert guard.covers(then, now) is covered


def test_training_refuses_rows_checked_against_other_rows_of_the_benchmark(tmp_path: Path) -> None:
    cfg, values, run = real(tmp_path)
    finish(run, "questions", "filter", "sft")
    path = run / STAGES["questions"].folder / "manifest.json"
    write_json(path, {**read_json(path), "settings": {"benchmark": values["benchmark"]}})
    key_of(STAGES["sft"], cfg, values, run)
    cfg, values, run = real(tmp_path, "benchmark.worked.source.seed=5")
    with pytest.raises(ConfigError, match="not checked against benchmark worked with its current settings; run"):
        key_of(STAGES["sft"], cfg, values, run)
