"""What a stage reads: folders of this run or another's, weights and data files; the hooks of `stages.STAGES`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from finr1.core.errors import ConfigError
from finr1.core.stage_folder import is_done
from finr1.parts.engine.roles import is_role
from finr1.parts.source.reading import HUB

if TYPE_CHECKING:
    from finr1.settings.grpo import GrpoSettings
    from finr1.settings.root import RootConfig
    from finr1.settings.sft import SftSettings


class Input(NamedTuple):
    """A stage's folder, or chats; and the setting that names it where it is not this run's."""

    folder: Path
    key: str = ""
    value: str = ""
    bare: bool = False  # read without a manifest: chats, or rows made by hand that `allow_unchecked` accepts

    @property
    def state(self) -> str:
        """Why it cannot be read yet."""
        return "not finished" if self.folder.is_dir() else "not there yet"


Own = dict[str, Input]  # stage name -> its folder in this run
Inputs = Callable[[Own, "RootConfig"], dict[str, Input]]
Outside = Callable[["RootConfig"], dict[str, Path]]  # config key -> folder or file
MoreSettings = Callable[["RootConfig"], tuple[str, ...]]


def of_this_run(own: Own, cfg: RootConfig) -> dict[str, Input]:
    """The folders of this run that the stage names."""
    return own


def of_sft(own: Own, cfg: RootConfig) -> dict[str, Input]:
    """Rows of this run, of another (`sft.rows`), or chats."""
    if cfg.sft.chats:
        return {"chats": Input(cfg.sft.chats, "sft.rows", str(cfg.sft.rows), bare=True)}
    return _rows(own, "sft", cfg.sft)


def of_grpo(own: Own, cfg: RootConfig) -> dict[str, Input]:
    """Rows of this run or another (`grpo.rows`); the SFT model unless `grpo.init_from` names other weights."""
    found = _rows(own, "grpo", cfg.grpo)
    return {name: read for name, read in found.items() if not (name == "sft" and cfg.grpo.init_from)}


def _rows(own: Own, stage: str, settings: SftSettings | GrpoSettings) -> dict[str, Input]:
    found = dict(own)
    for name in ("questions", "filter") if settings.rows else ():
        folder = Path(str(settings.rows)) / own[name].folder.name
        bare = settings.allow_unchecked and not is_done(folder) and any(folder.glob("*.jsonl"))
        found[name] = Input(folder, f"{stage}.rows", str(settings.rows), bare)
    return found


def of_evaluate(own: Own, cfg: RootConfig) -> dict[str, Input]:
    """The trained models among `evaluate.models`."""
    return {name: read for name, read in own.items() if name in cfg.evaluate.models}


def of_report(own: Own, cfg: RootConfig) -> dict[str, Input]:
    """Whatever has finished."""
    return {name: read for name, read in own.items() if is_done(read.folder)}


def nothing(cfg: RootConfig) -> dict[str, Path]:
    """No weights from outside the run."""
    return {}


def model_folders(cfg: RootConfig) -> dict[str, Path]:
    """The model folders among `evaluate.models`."""
    folders = {name: Path(name).expanduser() for name in cfg.evaluate.models if not is_role(name, cfg.engine)}
    return {f"evaluate.models.{name}": folder for name, folder in folders.items() if folder.is_dir()}


def first_weights(cfg: RootConfig) -> dict[str, Path]:
    """The folder of `grpo.init_from`; ConfigError where it is neither there nor could be a hub id."""
    start = cfg.grpo.init_from
    if start and Path(start).exists():
        return {"grpo.init_from": Path(start)}
    if start and not is_hub_id(start):
        remedy = "give a model folder (such as a run's 4_sft/model) or a hub id"
        raise ConfigError("grpo.init_from", start, "the weights to start from are not there", remedy)
    return {}


def no_more(cfg: RootConfig) -> tuple[str, ...]:
    """The settings of the table decide the result."""
    return ()


def engines_and_judge(cfg: RootConfig) -> tuple[str, ...]:
    """The engines that are scored by their roles, and the judge where a model scores."""
    judge = ("judge.answer", "engine.judge") if cfg.evaluate.scorer != "rules" else ()
    return (*judge, *(f"engine.{name}" for name in cfg.evaluate.models if is_role(name, cfg.engine)))


def is_hub_id(name: str) -> bool:
    """Whether a name that is no folder could be `organisation/model`, or a model that a package carries."""
    return name.startswith("embedded:") or bool(re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name))


def data_paths(node: Any, key: str) -> Iterator[tuple[str, Path]]:
    """The `path` settings inside `_target_` nodes, with their full keys: data files from outside the run."""
    if not isinstance(node, Mapping):
        return
    for name, value in node.items():
        if name == "path" and "_target_" in node and isinstance(value, str):
            if value.startswith(HUB):  # nothing here to look at: its name is in the settings
                continue
            yield f"{key}.path", Path(value)
        else:
            yield from data_paths(value, f"{key}.{name}")
