"""The command line: help, one-line errors, dry runs, multirun."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import finr1.__main__ as entry
from finr1.cli import compose, sweep
from finr1.cli.compose import CONF
from finr1.cli.explain import explain
from finr1.cli.help import help_text
from finr1.core.errors import BusyError, ConfigError, DataError
from finr1.core.files import read_json
from finr1.core.lock import RunLock
from finr1.run.stages import STAGES
from tests.helpers.runner import REPO, Runner

FEW = ("source.worked.n_train=12", "benchmark.worked.limit=4")  # enough for stages without a model


def test_help_is_quick_and_lists_stages_experiments_groups_and_settings(finr1: Runner) -> None:
    started = time.monotonic()
    done = finr1("--help")
    assert time.monotonic() - started < 3 and done.returncode == 0 and not done.stderr
    for name in STAGES:
        assert f"\n  {name:<11}" in done.stdout
    for path in (CONF / "experiment").glob("*.yaml"):
        assert f"\n  {path.stem}" in done.stdout
    for words in ("reward=[...]", "trainer=", "grpo.group_size=8", "evaluate.models=[base,sft,grpo]", "--multirun"):
        assert words in done.stdout


def test_help_lines_fit_a_wide_terminal() -> None:
    assert max(map(len, help_text().splitlines())) <= 140


MISTAKES = [  # (arguments, pattern of the error line)
    (["grpo.lerning_rate=1"], r"grpo\.lerning_rate=1: no such setting; did you mean grpo\.learning_rate\?"),
    (
        ["learning_rate=1"],
        r"learning_rate=1: no such setting; did you mean sft\.learning_rate or grpo\.learning_rate\?",
    ),
    (["grpo.steps=many"], r"grpo\.steps=many: value 'many' of type 'str' could not be converted to Integer; "),
    (
        ["evaluate.samples={sft: 8}"],
        r"evaluate\.samples=\{sft: 8\}: no such setting; a new one is \+evaluate\.samples\.sft=<v",
    ),
    (["+experimnt=tiny"], r"experimnt=tiny: no such setting; did you mean experiment\?"),
    (["+experiment=quikstart"], r"experiment=quikstart: no such experiment; did you mean quickstart\?"),
    (["stage=grop"], r"stage=grop: no such stage; did you mean grpo\?"),
    (["model=smollm"], r"model=smollm: no such model; did you mean smollm2_135m\?"),
    (["reward=[formt,accuracy]"], r"reward=formt: no such reward; did you mean format\?"),
    (["reward=[format],[accuracy]"], r"reward=\[format\],\[accuracy\]: several values; add --multirun"),
    (
        ["grpo.workers.rewards=[formt]"],
        r"grpo\.workers\.rewards=formt: no such reward is chosen; did you mean format\?",
    ),
    (["reward.format.wieght=2"], r"reward\.format\.wieght=2: no such setting; did you mean weight\?"),
    (
        ["+reward.format.wieght=2"],
        r"reward\.format\.wieght=2: finr1\.parts\.reward\.format\.Format has no such setting; did",
    ),
    (["+grpo.lerning_rate=1"], r"grpo\.lerning_rate=1: no such setting; did you mean grpo\.learning_rate\?"),
    (["engine@engine.polcy=vllm"], r"engine@engine\.polcy=vllm: no such setting"),
    (
        ["source=[tfns]", "paths.data=/nowhere"],
        r"source\.tfns\.path=/nowhere/tfns: no such file or folder; set paths\.data",
    ),
    (["grpo.sampling.temperature=0"], r"grpo\.sampling\.temperature=0: greedy groups have no spread"),
    (["grpo.learning_rate=nan"], r"grpo\.learning_rate=nan: not a finite number"),
    (["sft.learning_rate=inf"], r"sft\.learning_rate=inf: not a finite number"),
    (["sft.learning_rate=-1e-4"], r"sft\.learning_rate=-0\.0001: must be above 0"),
    (["sft.max_grad_norm=0"], r"sft\.max_grad_norm=0\.0: must be above 0"),
    (["model.path=/nowhere/model"], r"model\.path=/nowhere/model: no such folder"),
    (["grpo.sampling.repetition_penalty=1.1"], r"grpo\.sampling\.repetition_penalty=1\.1: the policy gradient"),
    (["evaluate.sampling.n=0"], r"evaluate\.sampling\.n=0: must be at least 1; use 1 or more"),
    (
        ["grpo.sampling.max_new_tokens=5000"],
        r"grpo\.sampling\.max_new_tokens=5000: with model\.max_model_len=512 it leaves",
    ),
    (["judge@judge.reasoning=[]"], r"filter\.reasoning=true: no reasoning judge is chosen; "),
    (["source=[]"], r"source=\[\]: stage questions needs one; choose, as in source=\[worked\]"),
    (
        ["stage=filter"],
        r"stage=filter: its input runs/quickstart/1_questions does not exist; run stage=questions f",
    ),
    (["stage=report"], r"stage=report: no stage has finished in runs/quickstart"),
    (["+experiment=grpo_fin"], r"grpo\.rows=runs/data_fin: no rows to train on"),
    (
        ["+experiment=grpo_fin", "grpo.rows=null"],
        r"grpo\.init_from=runs/sft_fin/4_sft/model: no such model folder",
    ),
    (["+experiment=sft_fin"], r"sft\.rows=runs/data_fin: no rows to train on .* and filter, a file or folder of chats"),
    (["sft.turns=first"], r"sft\.turns=first: no such choice; use one of last, all"),
    (["trainer.fit.devices=2"], r"sft\.rows_per_step=1: fewer than the 2 ranks that share them"),
    (
        ["+experiment=eval_cpu", "benchmark=[worked]", "benchmark.financeiq.limit=3"],
        r"benchmark\.financeiq=\{…\}: values for a part that was not chosen; choose it, or drop them: '~benchmark",
    ),
    (
        ["source.tfns.path=x"],
        r"source\.tfns\.path=x: source\.tfns is not chosen; choose it, as in source=\[tfns\]",
    ),
    (
        ["judge.answer.answer_llm.prompt=x"],
        r"judge\.answer\.answer_llm\.prompt=x: .* is not chosen; choose it, as in judge@judge\.answer=\[answer_llm\]",
    ),
    (
        ["engine.judge.model=m"],
        r"engine\.judge\.model=m: no engine has this role; choose one, as in engine@engine\.jud",
    ),
    (["name="], r"name=: not the name of a folder"),
    (["name=", "dry_run=true"], r"name=: not the name of a folder"),
    (["seed=-1"], r"seed=-1: must be within 0 to 4294967295"),
    (["paths.runs=/proc/none"], r"paths.runs=/proc/none: the run folder cannot be created there"),
    (["engine.policy.kv_cache_gib=0"], r"engine.policy.kv_cache_gib=0: must be above 0"),
    (["name=../x"], r"name=\.\./x: not the name of a folder"),
    (["name=${nope}"], r"name=\$\{nope\}: Interpolation key 'nope' not found"),
    (["seed 3"], r"seed 3: not of the form key=value"),
    (["a=b=c{"], r"a=b=c\{: not of the form key=value"),
    (["--dry"], r"unrecognized arguments: --dry; see"),
    (["--cfg", "nonsense"], r"argument --cfg/-c: invalid choice: 'nonsense'"),
    (["~nothing"], r"~nothing: no such setting"),
    (
        ["engine@engine.teacher=http"],
        r"engine\.teacher\.model=None: the server needs a model name; set eng",
    ),
    (
        ["engine@engine.teacher=http", "engine.teacher.model=m", "engine.teacher.api_key_env=NO_SUCH_KEY"],
        r"engine\.teacher\.api_key_env=NO_SUCH_KEY: no such environment variable, or it is empty; export it",
    ),
    (["prompt.system=nope"], r"prompt\.system=nope: no such prompt text; use one of"),
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, and an environment that `main` may change."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["finr1"])
    monkeypatch.delenv("FINR1_DATA", raising=False)
    for name, value in entry.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.mark.parametrize(("arguments", "pattern"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_a_mistake_is_one_line_and_writes_nothing(
    arguments: list[str], pattern: str, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert entry.main(arguments) == 2
    out, err = capfd.readouterr()
    (line,) = err.splitlines()
    assert re.match(f"error: {pattern}", line), line
    assert not out and not list(here.iterdir())


def test_a_mistake_is_one_line_in_its_own_process_too(tmp_path: Path, finr1: Runner) -> None:
    done = finr1("grpo.sampling.temperature=0")
    assert (done.returncode, done.stdout, list(tmp_path.iterdir())) == (2, "", [])
    assert done.stderr == "error: grpo.sampling.temperature=0: greedy groups have no spread; use a value above 0\n"


def test_finr1_debug_shows_the_traceback(finr1: Runner) -> None:
    assert "Traceback" in finr1("stage=filter", FINR1_DEBUG="1").stderr


def test_a_busy_run_folder_is_one_line(tmp_path: Path, finr1: Runner) -> None:
    with RunLock(tmp_path / "runs" / "quickstart"):
        done = finr1("stage=questions", *FEW)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "name=quickstart: another process (pid" in line and "give name=<other>" in line


def test_errors_of_disk_and_data_are_one_line_but_bugs_are_not() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "/x/traces.jsonl")
    assert (explain(full, []) or "").startswith("/x/traces.jsonl: no space left on the device; free some")
    assert explain(DataError("f", "broken\nJSON", "repair it"), []) == "f: broken JSON; repair it"
    assert explain(BusyError("busy"), []) == "busy"
    assert explain(PermissionError(errno.EACCES, "denied", "/x"), []) == (
        "/x: permission denied; give another paths.runs=<folder>, or fix its permissions"
    )
    assert explain(ZeroDivisionError("a bug"), []) is None


def test_a_user_error_is_found_behind_the_error_that_wraps_it() -> None:
    try:
        try:
            raise ConfigError("a.b", 1, "why", "what")
        except ConfigError as inner:
            raise RuntimeError("Error in call to target 'x':\nmany\nlines") from inner
    except RuntimeError as outer:
        assert explain(outer, []) == "a.b=1: why; what"


def test_ctrl_c_is_one_line(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(entry, "collect", stop)
    assert entry.main([]) == 130
    assert capsys.readouterr().err == "stopped; start the same command again to continue\n"


def test_cfg_job_prints_what_the_bare_command_runs(tmp_path: Path, finr1: Runner) -> None:
    bare, named = finr1("--cfg", "job"), finr1("+experiment=quickstart", "--cfg", "job")
    assert bare.returncode == 0 and bare.stdout == named.stdout and "\nname: quickstart" in f"\n{bare.stdout}"
    mixed = finr1("seed=5", "--cfg", "job", "name=x")
    assert mixed.returncode == 0 and "seed: 5" in mixed.stdout and "name: x" in mixed.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_options_and_hydras_own_help_pass_through(finr1: Runner) -> None:
    assert "Hydra" in finr1("--hydra-help").stdout
    assert "stage/pipeline" in finr1("--info", "defaults").stdout


def test_a_dry_run_builds_the_full_size_experiment_without_weights(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert entry.main(["+experiment=grpo_fin", "dry_run=true"]) == 0
    out = capfd.readouterr().out
    # Qwen2.5-7B: 152064 * 3584 twice (untied), 28 layers of 233,057,792, a last norm of 3584
    assert f"{2 * 152_064 * 3_584 + 28 * 233_057_792 + 3_584:,} parameters" in out
    for words in (
        "reward: format, accuracy",
        "grpo rows: from grpo.rows=runs/data_fin: MISSING",
        "a real run would",
    ):
        assert words in out
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("name", "sources"), [("sft_fin", []), pytest.param("sft_fin_two", ["finqa", "convfinqa"], marks=pytest.mark.slow)]
)
def test_a_dry_run_builds_both_sft_mixes(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, sources: list[str]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert compose.compose([f"+experiment={name}"]).sft.sources == sources
    assert entry.main([f"+experiment={name}", "dry_run=true"]) == 0
    out = capfd.readouterr().out
    for words in (
        "Qwen/Qwen2.5-7B-Instruct: 7,615,616,512 parameters, full",
        "sft rows: from sft.rows=runs/data_fin: MISSING",
        f"stage=sft of runs/{name} composes and validates",
    ):
        assert words in out
    (here / "chats.jsonl").write_text('{"messages": []}\n')
    assert entry.main([f"+experiment={name}", "dry_run=true", "sft.rows=chats.jsonl", "sft.turns=all"]) == 0
    out = capfd.readouterr().out
    assert "sft rows: chats of sft.rows=chats.jsonl, loss on all of the assistant's turns: found" in out
    assert "a real run would stop: sft.allow_unchecked=false: the chats in chats.jsonl" in out


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("+trainer.fit.acelerator=gpu", "trainer.fit.acelerator=gpu: pytorch_lightning.Trainer has no"),
        ("logger.wandb.mode=ofline", "logger.wandb.mode=ofline: no such mode"),
    ],
)
def test_a_dry_run_finds_mistakes(capfd: pytest.CaptureFixture[str], fault: str, words: str) -> None:
    assert entry.main(["+experiment=sft_fin", "dry_run=true", fault]) == 2
    assert capfd.readouterr().err.splitlines()[-1].startswith(f"error: {words}")


@pytest.mark.slow
def test_a_stage_alone_writes_only_the_run_folder(tmp_path: Path, finr1: Runner) -> None:
    done = finr1("stage=questions", *FEW)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    run = tmp_path / "runs" / "quickstart"
    assert "n_train: 12" in (run / "config.yaml").read_text()
    manifest = read_json(run / "1_questions" / "manifest.json")
    assert manifest["counts"]["questions"] <= 12 and manifest["versions"]["finr1"]
    again = finr1("stage=questions", *FEW)
    assert "questions  done before" in again.stderr


@pytest.mark.slow
def test_multirun_gives_each_job_a_process_and_a_folder_and_resumes(tmp_path: Path, finr1: Runner) -> None:
    sweep_of = ("--multirun", "+experiment=quickstart", "stage=questions", *FEW, "reward=[format],[format,accuracy]")
    done = finr1(*sweep_of)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["quickstart.sweep"]
    folder = tmp_path / "runs" / "quickstart.sweep"
    jobs = [folder / "reward=format", folder / "reward=format+accuracy"]
    assert sorted(path for path in folder.iterdir() if path.is_dir()) == jobs
    pids = [(job / ".lock").read_text() for job in jobs]
    assert pids[0] != pids[1]
    rewards = [("accuracy:" in (job / "config.yaml").read_text().split("reward:")[1].split("grpo:")[0]) for job in jobs]
    assert rewards == [False, True]
    table = json.loads((folder / "sweep.json").read_text())["jobs"]
    assert [(job["name"], job["exit_code"]) for job in table] == [("reward=format", 0), ("reward=format+accuracy", 0)]
    assert finr1(*sweep_of).stderr.count("done before") == 2


@pytest.mark.slow
def test_a_failed_job_does_not_stop_the_next_and_is_named_at_the_end(tmp_path: Path, finr1: Runner) -> None:
    done = finr1("--multirun", "stage=filter,questions", "name=mine", *FEW)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: 1 of 2 jobs failed: stage=filter;")
    assert (tmp_path / "runs" / "mine.sweep" / "stage=questions" / "1_questions" / "manifest.json").exists()


def test_a_mistake_in_the_last_job_is_found_before_the_first_starts(tmp_path: Path, finr1: Runner) -> None:
    done = finr1("--multirun", "stage=questions", "seed=1,x")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("runs/*/seed=*"))


def job(*overrides: str) -> sweep.Job:
    return sweep.Job(overrides, Path("s"), swept=True, elsewhere=False)


def test_jobs_are_named_by_the_overrides_that_differ() -> None:
    jobs = [job("+experiment=tiny", "seed=1", "reward=[a]"), job("+experiment=tiny", "seed=2", "reward=[a]")]
    assert sweep.names_of(jobs) == ["seed=1", "seed=2"]
    assert sweep.names_of([job("a='x y/z'")]) == ["a=x_y_z"]
    assert sweep.names_of([job("+a=1"), job("a=1")]) == ["a=1", "a=1-1"]
    long = [job(f"prompt=[{'x' * 300}{i}]") for i in range(2)]
    assert len({*sweep.names_of(long)}) == 2 and max(map(len, sweep.names_of(long))) < 120


def test_the_folder_of_the_sweep_replaces_the_users_name_and_folder() -> None:
    command = sweep.command(job("name=mine", "paths.runs=/x", "seed=1"), "it's", Path("/a b/s"))
    assert command == [sys.executable, "-m", "finr1", "seed=1", "paths.runs='/a b/s'", "name='it\\'s'"]


def test_the_console_script_is_the_same_function() -> None:
    code = "import sys; sys.argv = ['finr1', '--help']; from finr1.__main__ import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith("finr1: ")
