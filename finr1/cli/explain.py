"""The command line's words: `--help`, and Hydra's multi-line errors as one line that says what to do."""

from __future__ import annotations

import dataclasses
import errno
import re
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from finr1.cli.compose import CONF
from finr1.cli.nodes import GROUPS, ROLES, close_match, keywords_of
from finr1.core.errors import Finr1Error
from finr1.settings.root import RootConfig


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what caused it, from the outside in."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def explain(error: BaseException, overrides: Sequence[str]) -> str | None:
    """One line for an error that the user can mend: `<key>=<value>: <why>; <what to do>`; None for all others."""
    chain = list(causes(error))
    for cause in chain:
        if isinstance(cause, Finr1Error):
            return _with_full_key(_one_line(str(cause)), overrides)
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            where = cause.filename or "the run folder"
            return f"{where}: no space left on the device; free some and start the same command again: it continues"
    if isinstance(error, PermissionError):
        return f"{error.filename}: permission denied; give another paths.runs=<folder>, or mend its rights"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _one_line(_hydra(error, chain, overrides))
    return None


def _with_full_key(line: str, overrides: Sequence[str]) -> str:
    """A settings class used in several places does not know its own: `sampling.n` becomes `grpo.sampling.n`."""
    key = line.partition("=")[0]
    full = [name for name, _ in map(_split, overrides) if name.endswith(f".{key}")]
    return line.replace(key, full[0], 1) if len(full) == 1 else line


def _hydra(error: BaseException, chain: Sequence[BaseException], overrides: Sequence[str]) -> str:
    text = "\n".join(str(cause) for cause in chain)
    value_of = dict(_split(override) for override in overrides)
    inner = [cause for cause in chain if isinstance(cause, OmegaConfBaseException) and "$" not in str(cause)]
    why = str(inner[-1] if inner else error).strip().splitlines()[0].rstrip(".")
    if found := re.search(r"Could not (?:find|load) '([^']+)'", text):
        return _no_choice(found[1], text)
    if found := re.search(r"Could not override '([^']+)'\.\s*(No match in the defaults list)?", text):
        key = found[1]
        if not found[2] and (full := re.search(r"full_key: (\S+)", text)):
            key = full[1]
        known = [name for name in _all_keys(RootConfig, "") if name.startswith(found[1])]
        free = key != found[1] and known == [found[1]]  # in braces, where names are the user's own
        near = f"a new one is +{key}=<value>" if free else hint(found[1]) or _near_setting(key)
        words = _unchosen(key) or f"no such setting; {near}"
        return f"{_pair(found[1], value_of)}: {words}"
    if found := re.search(r"Key '([^']+)' (?:is )?not in '[^']*'", text):
        full = re.search(r"full_key: (\S+)", text)
        key = full[1] if full else found[1]
        return f"{_pair(key, value_of)}: no such setting; {_near_setting(key)}"
    if "requires --multirun" in text or "Ambiguous value" in text:
        swept = re.search(r"'(\S*)'", text)
        return f"{swept[1] if swept else ''}: several values; add --multirun, or quote the value if it holds a comma"
    if found := re.search(r"Multiple values for (\S+?)\.? ", text):
        return f"{found[1]}: chosen twice; say {found[1]}=<choice> once (+{found[1]} only where none is chosen)"
    if isinstance(error, OverrideParseException):
        why = "not of the form key=value"
        return f"{error.override}: {why}; quote a value with blanks, commas or braces, as 'key=\"a, b\"'"
    if found := re.search(r"Could not delete from config\. '([^']+)'", text):
        return f"~{found[1]}: no such setting; {_near_setting(found[1])}"
    if found := re.search(r"[Ee]rror merging override (\S+)", text):
        key = _split(found[1])[0]
        if peer := hint(key):  # the name of a section here: grpo.loss=dapo
            return f"{_pair(key, value_of)}: no such setting; {peer}"
        return f"{_pair(key, value_of)}: {why[:1].lower()}{why[1:]}; give a value of the right type"
    full = re.search(r"full_key: (\S+)", text)
    return f"{_pair(full[1], value_of) if full else 'configuration'}: {why}; see `python -m finr1 --cfg job`"


def _no_choice(config: str, text: str) -> str:
    """A group has no such choice: Hydra lists those there are, one a line."""
    group, _, name = config.rpartition("/")
    folder = CONF / group
    known = [path.stem for path in folder.glob("*.yaml")] if group and folder.is_dir() else []
    if not known:
        groups = [path.name for path in CONF.iterdir() if path.is_dir()]
        return f"{group or config}={name}: no such group; {close_match(group or config, groups)}"
    return f"{group}={name}: no such {group}; {close_match(name, known)}"


def _near_setting(key: str) -> str:
    """The setting or group a mistyped key may have meant."""
    base = key.lstrip("+~").split("@")[0]
    if peer := hint(base):
        return peer
    known = list(_all_keys(RootConfig, "")) + [p.name for p in CONF.iterdir() if p.is_dir()]
    parent, _, last = base.rpartition(".")
    beside = {k.rpartition(".")[2]: k for k in known if k.rpartition(".")[0] == parent}
    if (near := close_match(last, beside)).startswith("did you mean"):
        return f"did you mean {beside[near.split()[-1].rstrip('?')]}?"
    if elsewhere := [k for k in known if k.rpartition(".")[2] == last]:
        return f"did you mean {' or '.join(elsewhere)}?"
    if words := _node_words(base):
        return f"write +{base}=<value>" if last in words else close_match(last, words)
    if (near := close_match(base, known)).startswith("did you mean"):
        return near
    return f"use one of {', '.join(sorted(beside.values()))}" if parent and beside else "see `python -m finr1 --help`"


def _unchosen(key: str) -> str:
    """What to say of the settings of a part that exists but was not chosen (`source.tfns`); empty for all else."""
    group, _, name = key.rpartition(".")
    if group == "engine" and name in ROLES:
        return f"no engine has this role; choose one, as in engine@{key}=http"
    folder = group.partition(".")[0]
    if group not in GROUPS or not (CONF / folder / f"{name}.yaml").is_file():
        return ""
    return f"{key} is not chosen; choose it, as in {folder if folder == group else f'{folder}@{group}'}=[{name}]"


def _node_words(key: str) -> list[str]:
    """The keywords of the part a key like `source.tfns.path` belongs to; empty where there is none."""
    *group, name, _ = ["", "", *key.split(".")]
    path = CONF / (group[2] if len(group) > 2 else "") / f"{name}.yaml"
    if not path.is_file() or len(group) < 3:
        return []
    target = OmegaConf.select(OmegaConf.load(path), f"{name}._target_")
    return keywords_of(target) if target else []


def _all_keys(kind: Any, prefix: str) -> Iterator[str]:
    types = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        yield f"{prefix}{field.name}"
        if dataclasses.is_dataclass(types[field.name]):
            yield from _all_keys(types[field.name], f"{prefix}{field.name}.")


def _split(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


def _pair(key: str, value_of: dict[str, str]) -> str:
    return f"{key}={value_of[key]}" if key in value_of else key


def _one_line(text: str) -> str:
    return " ".join(text.split())
