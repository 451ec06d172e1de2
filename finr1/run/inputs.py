"""What a stage reads: folders of this run or another, weights, data files. The functions of the rows of `STAGES`."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from finr1.core.errors import ConfigError
from finr1.core.stage_folder import is_done
from finr1.parts.engine.roles import is_role
from finr1.parts.source.hub import HUB
from finr1.settings.grpo import GrpoSettings
from finr1.settings.root import RootConfig
from finr1.settings.sft import SftSettings


class Input(NamedTuple):
    """A folder (or file of chats) that a stage reads; `key=value` is the setting that names it if outside this run."""

    folder: Path
    key: str = ""
    value: str = ""
    bare: bool = False  # has no manifest: chats, or rows made by hand that `allow_unchecked` accepts

    @property
    def ready(self) -> bool:
        return self.folder.exists() if self.bare else is_done(self.folder)

    @property
    def problem(self) -> str:
        return "is not finished" if self.folder.is_dir() else "does not exist"


Inputs = Callable[[dict[str, Input], RootConfig], dict[str, Input]]  # folders of this run by stage -> those read
Outside = Callable[[RootConfig], dict[str, Path]]  # -> config key: folder or file
MoreSettings = Callable[[RootConfig], tuple[str, ...]]  # -> config keys


def finished(own: dict[str, Input], cfg: RootConfig) -> dict[str, Input]:
    """The folders of this run that are finished."""
    return {name: entry for name, entry in own.items() if entry.ready}


def sft_inputs(own: dict[str, Input], cfg: RootConfig) -> dict[str, Input]:
    """Rows of this run, rows of another run (`sft.rows`), or chats."""
    if cfg.sft.chats:
        return {"chats": Input(cfg.sft.chats, "sft.rows", str(cfg.sft.rows), bare=True)}
    return {**own, **_rows(own, "sft", cfg.sft)}


def grpo_inputs(own: dict[str, Input], cfg: RootConfig) -> dict[str, Input]:
    """Rows of this run or another (`grpo.rows`), and the SFT model unless `grpo.init_from` names other weights."""
    inputs = {**own, **_rows(own, "grpo", cfg.grpo)}
    if cfg.grpo.init_from:
        del inputs["sft"]
    return inputs


def _rows(own: dict[str, Input], stage: str, settings: SftSettings | GrpoSettings) -> dict[str, Input]:
    """The folders of the run that `<stage>.rows` names; empty for this run's own."""
    inputs = {}
    for name in ("questions", "filter") if settings.rows else ():
        folder = Path(str(settings.rows)) / own[name].folder.name
        bare = settings.allow_unchecked and not is_done(folder) and any(folder.glob("*.jsonl"))
        inputs[name] = Input(folder, f"{stage}.rows", str(settings.rows), bare)
    return inputs


def evaluate_inputs(own: dict[str, Input], cfg: RootConfig) -> dict[str, Input]:
    """The trained models among `evaluate.models`."""
    return {name: entry for name, entry in own.items() if name in cfg.evaluate.models}


def evaluated_folders(cfg: RootConfig) -> dict[str, Path]:
    """The model folders among `evaluate.models`."""
    folders = {name: Path(name).expanduser() for name in cfg.evaluate.models if not is_role(name, cfg.engine)}
    return {f"evaluate.models.{name}": folder for name, folder in folders.items() if folder.is_dir()}


def grpo_weights(cfg: RootConfig) -> dict[str, Path]:
    """The folder of `grpo.init_from`; ConfigError if it neither exists nor could be a hub id."""
    weights = cfg.grpo.init_from
    if weights and Path(weights).exists():
        return {"grpo.init_from": Path(weights)}
    if weights and not is_hub_id(weights):
        remedy = "give a model folder (such as a run's 4_sft/model) or a hub id"
        raise ConfigError("grpo.init_from", weights, "no such model folder", remedy)
    return {}


def evaluate_engines(cfg: RootConfig) -> tuple[str, ...]:
    """The engines named in `evaluate.models`, and the judge if it scores."""
    judge = ("judge.answer", "engine.judge") if cfg.evaluate.scorer != "rules" else ()
    return (*judge, *(f"engine.{name}" for name in cfg.evaluate.models if is_role(name, cfg.engine)))


def is_hub_id(name: str) -> bool:
    """Whether a name looks like `organisation/model`, or is a model that a Python package carries (`embedded:…`)."""
    return name.startswith("embedded:") or bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name))


def data_paths(node: Any, key: str) -> Iterator[tuple[str, Path]]:
    """The `path` settings of `_target_` nodes, with their full keys: data files; paths on the hub are left out."""
    if not isinstance(node, Mapping):
        return
    for name, value in node.items():
        if name == "path" and "_target_" in node and isinstance(value, str):
            if not value.startswith(HUB):
                yield f"{key}.path", Path(value)
        else:
            yield from data_paths(value, f"{key}.{name}")
