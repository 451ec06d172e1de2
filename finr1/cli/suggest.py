"""What a mistyped setting, group or choice may have meant."""

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

from omegaconf import OmegaConf

from finr1.cli.compose import CONF
from finr1.cli.nodes import GROUPS, ROLES, close_match, keywords_of
from finr1.cli.peer_words import hint
from finr1.settings.root import RootConfig


def all_keys(schema: Any = RootConfig, prefix: str = "") -> Iterator[str]:
    """The dotted keys of all settings."""
    types = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        yield f"{prefix}{field.name}"
        if dataclasses.is_dataclass(types[field.name]):
            yield from all_keys(types[field.name], f"{prefix}{field.name}.")


def near_setting(key: str) -> str:
    """The setting or group that a mistyped key may have meant; at least where to look."""
    base = key.lstrip("+~").split("@")[0]
    if peer := hint(base):
        return peer
    known = [*all_keys(), *(path.name for path in CONF.iterdir() if path.is_dir())]
    parent, _, last = base.rpartition(".")
    siblings = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == parent}
    if (near := close_match(last, siblings)).startswith("did you mean"):
        return f"did you mean {siblings[near.split()[-1].rstrip('?')]}?"
    if same_name := [k for k in known if k.rpartition(".")[2] == last]:
        return f"did you mean {' or '.join(same_name)}?"
    if keywords := _keywords_of_part(base):
        return f"write +{base}=<value>" if last in keywords else close_match(last, keywords)
    if (near := close_match(base, known)).startswith("did you mean"):
        return near
    if parent and siblings:
        return f"use one of {', '.join(sorted(siblings.values()))}"
    return "see `python -m finr1 --help`"


def choose_first(key: str) -> str:
    """The error for settings of a part that exists but was not chosen (`source.tfns`); empty for any other key."""
    group, _, name = key.rpartition(".")
    if group == "engine" and name in ROLES:
        return f"no engine has this role; choose one, as in engine@{key}=http"
    folder = group.partition(".")[0]
    if group not in GROUPS or not (CONF / folder / f"{name}.yaml").is_file():
        return ""
    return f"{key} is not chosen; choose it, as in {folder if folder == group else f'{folder}@{group}'}=[{name}]"


def near_choice(config: str) -> str:
    """The error for a choice that a group lacks, or a group that does not exist; `config` is `<group>/<choice>`."""
    group, _, name = config.rpartition("/")
    folder = CONF / group
    choices = [path.stem for path in folder.glob("*.yaml")] if group and folder.is_dir() else []
    if choices:
        return f"{group}={name}: no such {group}; {close_match(name, choices)}"
    groups = [path.name for path in CONF.iterdir() if path.is_dir()]
    return f"{group or config}={name}: no such group; {close_match(group or config, groups)}"


def _keywords_of_part(key: str) -> list[str]:
    """The keywords of the part that a key like `source.tfns.path` belongs to; empty if there is none."""
    if key.count(".") < 2:
        return []
    group, *_, name, _ = key.split(".")
    path = CONF / group / f"{name}.yaml"
    if not path.is_file():
        return []
    target = OmegaConf.select(OmegaConf.load(path), f"{name}._target_")
    return keywords_of(target) if target else []
