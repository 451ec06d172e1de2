"""The command line: compose, check, run. `python -m finr1 --help` lists stages, experiments and settings."""

import os
import sys
import time
from collections.abc import Sequence

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from finr1.cli import arguments, compose, launch, sweep
from finr1.cli.check import check
from finr1.cli.dryrun import dry_run
from finr1.cli.explain import explain
from finr1.cli.help import help_text
from finr1.cli.nodes import check_keys
from finr1.cli.summary import show
from finr1.core import ranks
from finr1.core.errors import ConfigError
from finr1.run.stages import COMMANDS, TRAINING, chosen, command_of
from finr1.run.walk import follow, walk
from finr1.settings.root import RootConfig

ENVIRONMENT = {
    "GOMP_SPINCOUNT": "20000",  # unbounded spinning of waiting threads beside other work costs a factor of ten
    "TOKENIZERS_PARALLELISM": "false",  # forked workers warn otherwise
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "HYDRA_FULL_ERROR": "1",  # Hydra raises its errors, and `explain` turns them into one line
}

JOBS: list[tuple[DictConfig, sweep.Job]] = []  # run after Hydra has composed all of them


@hydra.main(config_path=str(compose.CONF.resolve()), config_name="config", version_base="1.3")
def collect(cfg: DictConfig) -> None:
    """Called by Hydra with each composed configuration: one, or one per job of a sweep."""
    job = sweep.job_of(HydraConfig.get())
    compose.without_leftovers(cfg, job.overrides)
    if job.elsewhere:  # another launcher (submitit, ray) runs each job in its own process, such as this one
        cfg.paths.runs, cfg.name = str(job.sweep_dir), sweep.folder_name(job.overrides)
        run(cfg)
    else:
        JOBS.append((cfg, job))


def run(cfg: DictConfig, command_line: Sequence[str] | None = None) -> int:
    """Check the whole configuration, then walk its stages; returns the exit code.

    A run on several ranks starts them with `command_line`; each rank then calls this function again.
    """
    check_keys(OmegaConf.to_container(cfg), RootConfig)
    settings, values = compose.typed(cfg), compose.plain(cfg)
    stages = chosen(settings.stage)
    if settings.dry_run:
        dry_run(settings, values, stages)
        return 0
    if settings.model.path.startswith("embedded:") or os.path.isdir(settings.model.path):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if settings.stage in COMMANDS:
        command_of(settings.stage)(settings)
        return 0
    if ranks.number() == 0:
        check(settings, values, stages)
    trains = any(stage.name in TRAINING for stage in stages)
    wanted = launch.per_machine(settings.trainer["fit"]) if trains else 1
    if wanted > 1 and ranks.world() == 1:
        if command_line is None:
            why = "a job of this launcher is one process"
            raise ConfigError("trainer.fit.devices", wanted, why, "use 1, or Hydra's default launcher")
        return launch.launch(wanted, ["-m", "finr1", *command_line])
    together = ranks.init_ranks()
    if not together.first:
        follow(settings, together)
        return 0
    started = time.monotonic()
    spent = walk(settings, values, together)
    show(settings, spent, time.monotonic() - started)
    return 0


def main(command_line: Sequence[str] | None = None) -> int:
    """Entry point of `python -m finr1` and of the console script `finr1`; returns the exit code.

    An error that the user can fix is printed as one line; any other keeps its traceback.
    """
    return ranks.leave(_main(sys.argv[1:] if command_line is None else command_line))


def _main(command_line: Sequence[str]) -> int:
    if {"--help", "-h"} & set(command_line):
        print(help_text())
        return 0
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    JOBS.clear()
    overrides = list(command_line)
    try:
        overrides, options = arguments.split(command_line)
        compose.register()
        sys.argv[1:] = [*compose.with_default(overrides), *options]
        collect()
        if any(job.swept for _, job in JOBS):
            sweep.run_jobs([job for _, job in JOBS])
        elif JOBS:
            return run(JOBS[0][0], command_line)
    except KeyboardInterrupt:
        if ranks.number() == 0:
            print("stopped; start the same command again to continue", file=sys.stderr)
        return 130
    except ranks.LostRank:
        return ranks.LOST
    except sweep.SweepFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        line = explain(error, overrides)
        if line is None or os.environ.get("FINR1_DEBUG") == "1":
            raise
        print(f"error: {line}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
