"""`--multirun`: every job in its own process, so that an engine's memory never leaks into the next job.

Hydra composes all jobs first, so a mistake in the last one is found before the first one starts. Each job's folder is
named by its overrides, so the same command again resumes the sweep and skips what is done.
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from hydra.types import RunMode
from omegaconf import OmegaConf
from rich import box
from rich.console import Console
from rich.table import Table

from finr1.cli.summary import headline, read_scores
from finr1.core.files import digest, write_json
from finr1.run.progress import console

_BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
_LONGEST = 100  # characters of a folder name


class SweepFailed(Exception):
    """Some jobs failed; the message names them."""


class Job(NamedTuple):
    """One job: its overrides, the folder of the sweep, and whether a launcher other than Hydra's default runs it."""

    overrides: tuple[str, ...]
    sweep_dir: Path
    swept: bool
    elsewhere: bool


def job_of(hydra_config: Any) -> Job:
    """The job that Hydra has just composed; `hydra_config` is `HydraConfig.get()`."""
    overrides = tuple(map(str, cast("list[str]", OmegaConf.to_container(hydra_config.overrides.task))))
    if hydra_config.mode is not RunMode.MULTIRUN:
        return Job(overrides, Path(), swept=False, elsewhere=False)
    return Job(overrides, Path(hydra_config.sweep.dir), swept=True, elsewhere=hydra_config.launcher._target_ != _BASIC)


def folder_name(overrides: Sequence[str]) -> str:
    """A folder name made of overrides, such as `reward=format+accuracy`; long names end in a hash."""
    text = ",".join(override.lstrip("+") for override in overrides) or "job"
    name = re.sub(r"[^\w=.,+@-]+", "_", re.sub(r"[\[\]{}'\"]", "", text.replace(",", "+")).strip("_+"))
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}-{digest(text)[:8]}"


def names_of(jobs: Sequence[Job]) -> list[str]:
    """A folder name per job, from the overrides that not all jobs share; equal names get a number."""
    common = set(jobs[0].overrides).intersection(*(job.overrides for job in jobs)) if len(jobs) > 1 else set()
    names: list[str] = []
    for job in jobs:
        name = folder_name([override for override in job.overrides if override not in common])
        names.append(name if name not in names else f"{name}-{len(names)}")
    return names


def run_jobs(jobs: Sequence[Job]) -> None:
    """Run the jobs one after another; SweepFailed at the end names the failed ones."""
    sweep_dir = jobs[0].sweep_dir
    results: list[dict[str, Any]] = []
    for name, job in zip(names_of(jobs), jobs, strict=True):
        console.print(f"[bold]job {len(results) + 1}/{len(jobs)}[/] {name}")
        started = time.monotonic()
        code = subprocess.run(command(job, name, sweep_dir), check=False).returncode
        scores = read_scores(sweep_dir / name)
        results.append(
            {
                "name": name,
                "overrides": list(job.overrides),
                "exit_code": code,
                "seconds": round(time.monotonic() - started, 1),
                "headline": headline(scores),
                "scores": [score.to_json() for score in scores],
            }
        )
        write_json(sweep_dir / "sweep.json", {"jobs": results})
    _show(results, sweep_dir)
    if failed := [result["name"] for result in results if result["exit_code"]]:
        names = ", ".join(failed)
        raise SweepFailed(f"{len(failed)} of {len(jobs)} jobs failed: {names}; fix the cause and repeat the command")


def command(job: Job, name: str, sweep_dir: Path) -> list[str]:
    """The command of one job; the sweep's folder replaces the user's `name` and `paths.runs`."""
    own = [override for override in job.overrides if override.split("=")[0].lstrip("+") not in ("name", "paths.runs")]
    return [sys.executable, "-m", "finr1", *own, f"paths.runs={_quoted(sweep_dir)}", f"name={_quoted(name)}"]


def _quoted(value: object) -> str:
    escaped = str(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _show(results: Sequence[Mapping[str, Any]], sweep_dir: Path) -> None:
    table = Table(title=os.fspath(sweep_dir), box=box.SIMPLE)
    for column in ("job", "seconds", "result"):
        table.add_column(column, overflow="fold")
    for result in results:
        outcome = f"failed ({result['exit_code']})" if result["exit_code"] else result["headline"] or "done"
        table.add_row(result["name"], f"{result['seconds']:.0f}", outcome)
    Console().print(table)
