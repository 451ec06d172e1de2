"""The text of `python -m finr1 --help`, read from `conf/`."""

import textwrap
from operator import attrgetter
from pathlib import Path
from typing import Any

from finr1.cli.compose import CONF
from finr1.run.stages import COMMANDS, STAGES, WALKS
from finr1.settings.root import RootConfig

WIDTH = 120  # characters per line
KEYS = (  # the settings that --help shows
    "name",
    "seed",
    "dry_run",
    "paths.runs",
    "paths.data",
    "model.path",
    "questions.limit_per_source",
    "distil.sampling.n",
    "sft.epochs",
    "sft.learning_rate",
    "grpo.steps",
    "grpo.questions_per_step",
    "grpo.group_size",
    "grpo.learning_rate",
    "grpo.rows",
    "grpo.init_from",
    "evaluate.models",
    "evaluate.sampling.n",
)


def help_text() -> str:
    """What `python -m finr1 --help` prints."""
    lines = [
        "finr1: distil, filter, fine-tune, reinforce and evaluate language models for finance.",
        "",
        "  python -m finr1                           run the whole pipeline of the experiment `quickstart`",
        "  python -m finr1 +experiment=<name>        run another experiment",
        "  python -m finr1 stage=<stage>             run one stage, on the output of the stages before it",
        "  python -m finr1 <group>=<choice> <key>=<value> ...    choose parts, override settings",
        "  python -m finr1 dry_run=true              check and build everything but weights and data",
        "  python -m finr1 --multirun <key>=<a>,<b>  run one job per value, each in its own process",
        "  python -m finr1 --cfg job                 print the composed configuration (--hydra-help: Hydra's options)",
        "",
        "Stages (finished stages are skipped, interrupted ones resumed):",
    ]
    lines += [f"  {name:<11}{stage.does}  ->  {stage.folder}" for name, stage in STAGES.items()]
    lines += [f"  {name:<11}runs {', '.join(walk)}" for name, walk in WALKS.items()]
    lines += ["", "Commands (stage=<command>):"]
    lines += [f"  {name:<11}{command.does}" for name, command in COMMANDS.items()]
    lines += ["", "Experiments:"]
    lines += [f"  {path.stem:<15} {_first_comment(path)}" for path in sorted((CONF / "experiment").glob("*.yaml"))]
    lines += ["", "Groups (those with brackets take a list):"]
    for group in sorted(path for path in CONF.iterdir() if path.is_dir() and path.name not in ("experiment", "stage")):
        choices = ", ".join(sorted(path.stem for path in group.glob("*.yaml")))
        lines += textwrap.wrap(
            choices, WIDTH, initial_indent=f"  {_example(group.name):<44}", subsequent_indent=" " * 46
        )
    lines += ["", "Common settings and their defaults (an experiment may set others; all: --cfg job):"]
    lines += [f"  {key}={_show(attrgetter(key)(RootConfig()))}" for key in KEYS]
    return "\n".join(lines)


def _example(group: str) -> str:
    examples = {
        "engine": "engine@engine.<teacher|judge|policy>=",
        "judge": "judge@judge.<answer|reasoning>=[...]",
        **{name: f"{name}=[...]" for name in ("source", "reward", "benchmark")},
    }
    return examples.get(group, f"{group}=")


def _first_comment(path: Path) -> str:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and "@package" not in line:
            return line.lstrip("# ").rstrip()
    return ""


def _show(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value).replace("'", "").replace(" ", "")
