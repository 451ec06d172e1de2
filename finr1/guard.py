"""What may be trained on: rows that were checked against the held-out rows of the run's benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from finr1 import store
from finr1.errors import ConfigError


def check_rows(stage: str, benchmark: Mapping[str, Any], folder: Path) -> None:
    """ConfigError unless the questions stage of this folder has checked its rows against these benchmarks."""
    manifest = store.read_json(folder / store.MANIFEST)
    checked = manifest["counts"].get("checked")
    then = manifest.get("settings", {}).get("benchmark") or {}
    missing = [f"benchmark {name}" for name in benchmark if name not in (checked or {})]
    missing += [
        f"benchmark {name} with the settings it has now"
        for name, node in benchmark.items()
        if name in then and not covers(then[name], node)
    ]
    if checked is None:
        missing = ["anything held out"]
    if missing:
        key, why = f"{stage}.allow_unchecked", f"the rows of {folder} were not checked against {missing[0]}"
        raise ConfigError(key, "false", why, f"run stage=questions with these benchmarks, or say {key}=true")


def refuse_chats(place: Path) -> NoReturn:
    """ConfigError: chats from outside a run were checked against nothing."""
    key, why = "sft.allow_unchecked", f"the chats of {place} were not checked against any benchmark"
    raise ConfigError(key, "false", why, f"say {key}=true, and do not trust scores on rows that could be among them")


def covers(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether what a benchmark held out when rows were checked holds all that it asks now, as far as settings tell.

    Where its files lie does not matter; a choice of some rows (`limit`, `seed`) is among all of them (`limit=null`).
    """
    chosen = ("limit", "seed") if "limit" in then and then["limit"] is None else ()
    before, after = (_asked({k: v for k, v in node.items() if k not in chosen}) for node in (then, now))
    return store.canonical(before) == store.canonical(after)


def _asked(node: Any) -> Any:
    """Settings without those that do not change which rows there are."""
    if isinstance(node, Mapping):
        return {name: _asked(value) for name, value in node.items() if name not in ("path", "licence")}
    return node
