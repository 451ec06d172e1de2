"""Checks keys against the schema, and `_target_` nodes against the signatures of their constructors."""

import dataclasses
import difflib
import importlib
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from finr1.cli.compose import LISTS
from finr1.cli.peer_words import hint
from finr1.core.errors import ConfigError
from finr1.run.fingerprints import subtree

ROLES = ("teacher", "judge", "policy")
GROUPS = ("engine", *LISTS)  # hold nodes by name
_RESERVED = ("_target_", "_partial_", "_convert_", "_recursive_", "_args_")


def close_match(word: str, known: Iterable[str]) -> str:
    """`did you mean x?`, or else the known names; empty when there are none."""
    names = sorted(known)
    if near := difflib.get_close_matches(word.lower(), names, 1, 0.55):
        return f"did you mean {near[0]}?"
    return f"use one of {', '.join(names)}" if names else ""


def check_keys(values: Any, schema: type, prefix: str = "") -> None:
    """Refuse keys that the schema lacks: Hydra accepts them with a `+` before them."""
    types = typing.get_type_hints(schema)
    for name, value in values.items():
        key = f"{prefix}{name}"
        if name not in types:
            groups = () if prefix else ("experiment",)
            remedy = hint(key) or close_match(name, (*types, *groups)).replace("mean ", f"mean {prefix}")
            raise ConfigError(key, value, "no such setting", remedy)
        if isinstance(value, Mapping) and dataclasses.is_dataclass(types[name]):
            check_keys(value, typing.cast(type, types[name]), f"{key}.")
    if not prefix:
        known = (*ROLES, *(subtree(values, "evaluate.models") or ()))
        for role in values.get("engine", {}):
            if role not in known:
                raise ConfigError(f"engine.{role}", "{…}", "no such role of an engine", close_match(role, ROLES))


def check_nodes(node: Any, key: str) -> None:
    """Check every `_target_` node at and below this one; in a group of parts each entry must be such a node."""
    if not isinstance(node, Mapping):
        return
    if "_target_" in node:
        check_node(node, key)
    elif key.rpartition(".")[0] in GROUPS:
        raise ConfigError(key, "{…}", "values for a part that was not chosen", f"choose it, or drop them: '~{key}'")
    for name, child in node.items():
        check_nodes(child, f"{key}.{name}")


def check_node(node: Mapping[str, Any], key: str) -> None:
    """Check one node's keywords against the signature of its target."""
    target = node["_target_"]
    function = resolve_target(target, f"{key}._target_")
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # built in C: it has no readable signature
        return
    keywords = {name: p for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    given = [name for name in node if name not in _RESERVED]
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for name in given:
            if name not in keywords:
                remedy = close_match(name, keywords) or "drop it"
                raise ConfigError(f"{key}.{name}", node[name], f"{target} has no such setting", remedy)
    for name, p in keywords.items():
        if p.default is p.empty and name not in given and not node.get("_partial_"):
            raise ConfigError(f"{key}.{name}", None, f"{target} needs it", f"set {key}.{name}=<value>")


def check_engine(node: Any, key: str) -> None:
    """Let an engine's class check its settings (`check_settings`), before anything is started."""
    if key.startswith("engine.") and isinstance(node, Mapping):
        check_settings = getattr(resolve_target(node.get("_target_"), f"{key}._target_"), "check_settings", None)
        if check_settings:
            check_settings(node, key)


def keywords_of(target: str) -> list[str]:
    """The keywords that a target takes; empty if its signature cannot be read."""
    try:
        return list(inspect.signature(resolve_target(target, "_target_")).parameters)
    except (TypeError, ValueError):
        return []


def resolve_target(target: object, key: str) -> Callable[..., Any]:
    """The class or function at a dotted path; ConfigError if there is none."""
    if not isinstance(target, str) or "." not in target:
        raise ConfigError(key, target, "not a dotted path", "give <module>.<name>")
    path, _, name = target.rpartition(".")
    try:
        module = importlib.import_module(path)
    except ImportError as error:
        raise ConfigError(key, target, f"cannot be imported ({error})", "fix the path, or install it") from error
    function = getattr(module, name, None)
    if not callable(function):
        classes = [n for n, value in vars(module).items() if inspect.isclass(value)]
        raise ConfigError(key, target, f"{path} has no {name}", close_match(name, classes) or "fix the path")
    return function  # type: ignore[no-any-return]
