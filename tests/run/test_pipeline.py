"""Walking the stages: which are run, skipped, resumed and rerun, with small stages made for these tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from finr1.cli import compose
from finr1.core.errors import ConfigError
from finr1.core.files import read_json
from finr1.core.stage_folder import Spent
from finr1.run import fingerprints
from finr1.run import stages as stages_of_a_run
from finr1.run.context import Context
from finr1.run.fingerprints import versions
from finr1.run.stages import PIPELINE, STAGES, Stage
from finr1.run.walk import walk
from finr1.settings.root import RootConfig
from tests.helpers.runner import REPO

CALLS: list[str] = []
FAIL: set[str] = set()
FAILED_CALLS: list[str] = []  # what a stage counts as failed


def stage_run(ctx: Context) -> dict[str, Any]:
    """Writes a file and returns the number of calls; a stage named in FAIL raises half-way."""
    CALLS.append(ctx.stage)
    (ctx.folder / "half").write_text("x")
    if ctx.stage in FAIL:
        raise RuntimeError(f"{ctx.stage} broke")
    for name, folder in ctx.inputs.items():
        assert (folder / "manifest.json").exists(), f"{ctx.stage} reads {name} before it is done"
    ctx.note("a note")
    ctx.tracker.log(ctx.stage, {"traces": 1}, 0)
    return {"rows": len(CALLS), **({"failed": len(FAILED_CALLS)} if FAILED_CALLS else {})}


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Stage]]:
    """Three stages in a row, each with its own source file."""
    CALLS.clear()
    FAIL.clear()
    FAILED_CALLS.clear()
    table: dict[str, Stage] = {}
    plan: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
        ("questions", (), ("questions", "seed")),
        ("distil", ("questions",), ("distil",)),
        ("filter", ("questions", "distil"), ("filter",)),
    ]
    for name, reads, settings in plan:
        (tmp_path / f"code_of_{name}.py").write_text("from tests.run.test_pipeline import stage_run\n")
        table[name] = Stage(name, STAGES[name].folder, f"code_of_{name}.stage_run", settings, reads)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(
        fingerprints, "path_of", lambda module: tmp_path / f"{module}.py" if "code_of" in module else None
    )
    monkeypatch.setattr(stages_of_a_run, "STAGES", table)
    monkeypatch.setattr(stages_of_a_run, "WALKS", {PIPELINE: tuple(table)})
    yield table


Go = Callable[..., dict[str, Spent]]


@pytest.fixture
def go(tmp_path: Path) -> Go:
    """Walk the stages with these settings; returns the cost of each."""

    def run(**settings: Any) -> dict[str, Spent]:
        cfg = config(tmp_path, **settings)
        return walk(OmegaConf.to_object(cfg), compose.plain(cfg))  # type: ignore[arg-type]

    return run


def config(tmp_path: Path, **settings: Any) -> Any:
    """The schema's defaults with these dotted settings (`__` for the dot)."""
    cfg = OmegaConf.structured(RootConfig)
    for key, value in {"stage": "pipeline", "paths__runs": str(tmp_path / "runs"), "name": "r", **settings}.items():
        OmegaConf.update(cfg, key.replace("__", "."), value)
    return cfg


def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "r"


@pytest.mark.usefixtures("stages")
def test_stages_run_in_order_once_and_are_skipped_afterwards(tmp_path: Path, go: Go) -> None:
    spent = go()
    assert CALLS == list(spent) == ["questions", "distil", "filter"]
    assert all(cost.memory_gib > 0.01 for cost in spent.values())  # no Python fits into 10 MiB
    manifest = read_json(run_dir(tmp_path) / "2_traces" / "manifest.json")
    assert manifest["counts"] == {"rows": 2, "notes": ["a note"]}
    questions = read_json(run_dir(tmp_path) / "1_questions" / "manifest.json")
    assert manifest["inputs"] == {"questions": questions["fingerprint"]}
    assert Spent(manifest["seconds"], manifest["memory_gib"]) == spent["distil"]
    assert go() == spent and len(CALLS) == 3


@pytest.mark.usefixtures("stages")
def test_a_changed_setting_reruns_its_stage_and_all_later_ones_and_says_why(
    tmp_path: Path, go: Go, capfd: pytest.CaptureFixture[str]
) -> None:
    go()
    CALLS.clear()
    go(distil__chunk=7)
    assert CALLS == ["distil", "filter"]
    said = capfd.readouterr().err
    assert "questions  done before" in said
    assert "distil     runs again, changed: distil" in said
    assert "filter     runs again, changed: input distil" in said
    assert sorted(path.name.split(".")[0] for path in (run_dir(tmp_path) / ".old").iterdir()) == [
        "2_traces",
        "3_filtered",
    ]
    CALLS.clear()
    go(distil__chunk=7, filter__criteria_needed=5)
    assert CALLS == ["filter"]
    CALLS.clear()
    go(distil__chunk=7, filter__criteria_needed=5, sft__epochs=9, name="r")  # no stage here depends on sft
    assert CALLS == []


@pytest.mark.usefixtures("stages")
def test_changed_code_reruns_only_the_stages_that_import_it(tmp_path: Path, go: Go) -> None:
    go()
    CALLS.clear()
    (tmp_path / "code_of_filter.py").write_text("from tests.run.test_pipeline import stage_run  # changed\n")
    go()
    assert CALLS == ["filter"]


@pytest.mark.usefixtures("stages")
def test_a_failed_stage_is_resumed_in_its_folder(tmp_path: Path, go: Go, capfd: pytest.CaptureFixture[str]) -> None:
    FAIL.add("distil")
    with pytest.raises(RuntimeError, match="distil broke"):
        go()
    folder = run_dir(tmp_path) / "2_traces"
    assert (folder / "begun.json").exists() and not (folder / "manifest.json").exists()
    FAIL.clear()
    go()
    assert CALLS == ["questions", "distil", "distil", "filter"]
    assert "distil     resumes" in capfd.readouterr().err
    assert not (run_dir(tmp_path) / ".old").exists()


@pytest.mark.usefixtures("stages")
def test_failed_calls_are_asked_again_in_the_same_folder_and_what_read_it_runs_again(tmp_path: Path, go: Go) -> None:
    FAILED_CALLS.append("quota")
    go()
    go(distil__retry_failed=False)
    folder = run_dir(tmp_path) / "2_traces"
    (folder / "kept").write_text("paid for")
    CALLS.clear()
    go(distil__retry_failed=True)
    assert CALLS == ["distil", "filter"] and (folder / "kept").exists(), "still failing: next time again"
    FAILED_CALLS.clear()
    go(distil__retry_failed=True, distil__stop_after_failed_calls=7)
    assert CALLS == ["distil", "filter"] * 2 and (folder / "kept").exists()
    for retry in (True, False):
        go(distil__retry_failed=retry)
    assert CALLS == ["distil", "filter"] * 2, "nothing failed any more"


@pytest.mark.usefixtures("stages")
def test_a_stage_alone_needs_its_inputs(tmp_path: Path, go: Go) -> None:
    with pytest.raises(
        ConfigError, match=r"stage=distil: its input .*1_questions does not exist; run stage=questions first"
    ):
        go(stage="distil")
    assert not run_dir(tmp_path).exists()
    go(stage="questions")
    go(stage="distil")
    assert CALLS == ["questions", "distil"]
    FAIL.add("questions")
    with pytest.raises(RuntimeError):
        go(stage="questions", seed=5)
    with pytest.raises(ConfigError, match="1_questions is not finished; run stage=questions first"):
        go(stage="distil")


@pytest.mark.usefixtures("stages")
def test_the_resolved_config_is_saved_and_a_failure_closes_the_loggers_as_failed(tmp_path: Path, go: Go) -> None:
    from tests.core import test_tracking

    loggers: list[test_tracking.ListSink] = []

    class Logger(test_tracking.ListSink):
        def __init__(self) -> None:
            super().__init__()
            loggers.append(self)

    globals()["Logger"] = Logger
    logger = {"list": {"_target_": f"{__name__}.Logger"}}
    go(logger=logger, seed=3)
    assert OmegaConf.load(run_dir(tmp_path) / "config.yaml").seed == 3
    assert loggers[0].closed == [False] and [row[1] for row in loggers[0].rows] == [f"{n}/step" for n in CALLS]
    go(logger=logger, seed=3)
    assert len(loggers) == 1, "nothing to do, so no logger is started"
    FAIL.add("filter")
    with pytest.raises(RuntimeError):
        go(logger=logger, seed=3, filter__criteria_needed=6)
    assert loggers[1].closed == [True]


def test_versions_are_those_of_the_installed_packages() -> None:
    found = versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3])) and "torch" in found and "hydra-core" in found
    assert "wandb" not in found


@pytest.mark.slow
def test_a_killed_run_resumes_and_a_second_process_is_kept_out(tmp_path: Path) -> None:
    """SIGKILL while the teacher answers: answers on disk are not requested again; the time of both attempts counts."""
    repo = REPO
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import time\nfrom pathlib import Path\nfrom finr1.parts.engine.scripted import ScriptedEngine\n"
        "class Slow(ScriptedEngine):\n"
        "    calls = 0\n"
        "    def generate(self, *a, **k):\n"
        "        Slow.calls += 1\n"
        "        while Slow.calls > 5 and not Path('go').exists():\n            time.sleep(0.05)\n"
        "        return super().generate(*a, **k)\n"
    )
    few = [
        "source.worked.n_train=40",
        "benchmark.worked.limit=4",
        "distil.chunk=2",
        "engine.teacher._target_=slow.Slow",
    ]
    command = [sys.executable, "-m", "finr1", "engine@engine.teacher=scripted", *few]
    env = {**os.environ, "PYTHONPATH": f"{repo}:{tmp_path}"}

    def start(*more: str) -> subprocess.Popen[str]:
        return subprocess.Popen([*command, *more], cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)

    assert start("stage=questions").wait(60) == 0
    traces = tmp_path / "runs" / "quickstart" / "2_traces" / "traces.jsonl"
    with start("stage=distil") as first:
        deadline = time.monotonic() + 60
        while (not traces.exists() or traces.read_text().count("\n") < 6) and time.monotonic() < deadline:
            time.sleep(0.02)
        with start("stage=distil") as second:
            assert second.stderr is not None and f"(pid {first.pid})" in second.stderr.read()
        assert second.returncode == 2
        first.send_signal(signal.SIGKILL)
    (tmp_path / "go").touch()
    kept = traces.read_text().splitlines()[:6]
    with start("stage=distil") as third, contextlib.suppress(subprocess.TimeoutExpired):
        assert third.wait(120) == 0
    rows = traces.read_text().splitlines()
    assert rows[:6] == kept
    manifest = read_json(traces.parent / "manifest.json")
    assert manifest["counts"]["traces"] == manifest["counts"]["questions"] == len(rows) == len(set(rows))
    assert not (tmp_path / "runs" / "quickstart" / ".old").exists()
