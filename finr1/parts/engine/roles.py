"""Engines by the role they play in a run: teacher, judge, policy, or any that is scored."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from finr1.core.build import build
from finr1.core.errors import ConfigError
from finr1.core.files import canonical
from finr1.parts.engine.base import Engine, PolicyEngine
from finr1.parts.engine.cached import AnswerCache, CachedEngine

RUN_MODELS = ("base", "sft", "grpo")  # what the policy engine is asked as


def is_role(name: str, engines: Mapping[str, Any]) -> bool:
    """Whether a name in `evaluate.models` is that of an engine; the policy is asked by the names of its weights."""
    return name in engines and name not in (*RUN_MODELS, "policy")


def identity(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """An engine's settings without its `operational` ones: what decides its completions."""
    operational = _declared(node, "operational") or ()
    return {setting: value for setting, value in node.items() if setting not in operational}


def in_process(node: Mapping[str, Any] | None) -> bool:
    """Whether the engine of these settings lives in this process, where its weights are replaced."""
    return bool(_declared(node or {}, "in_process"))


def _declared(node: Mapping[str, Any], name: str) -> Any:
    """What the class of a `_target_` node declares under this name; None where it does not."""
    if "_target_" not in node:
        return None
    module, _, kind = node["_target_"].rpartition(".")
    return getattr(getattr(importlib.import_module(module), kind), name, None)


class Engines:
    """Engines by role (teacher, judge, policy, any that is scored), built when first asked for; equal nodes are one.

    The in-process vLLM engine lives as long as the process: its weights are replaced, it is never built twice.
    `on_built` is told the role of each one that is built.
    """

    def __init__(
        self, nodes: Mapping[str, Mapping[str, Any]], on_built: Callable[[str, Engine], None] = lambda *_: None
    ) -> None:
        self._nodes, self._on_built = nodes, on_built
        self._built: dict[str, Engine] = {}
        self._cached: list[CachedEngine] = []

    def node(self, role: str) -> Mapping[str, Any]:
        """The settings of the engine of this role; ConfigError where there is none."""
        if role not in self._nodes:
            raise ConfigError(f"engine.{role}", None, "no engine has this role", f"add engine@engine.{role}=<name>")
        return self._nodes[role]

    def get(self, role: str) -> Engine:
        """The engine of this role."""
        node = self.node(role)
        key = canonical(node)
        if key not in self._built:
            if in_process(node) and any(isinstance(engine, PolicyEngine) for engine in self._built.values()):
                raise ConfigError(
                    f"engine.{role}",
                    node["_target_"],
                    "a second in-process vLLM engine with other settings",
                    "give both roles the same settings",
                )
            self._built[key] = build(node)
            self._on_built(role, self._built[key])
        return self._built[key]

    def policy(self) -> PolicyEngine:
        """The engine whose weights the run replaces."""
        engine = self.get("policy")
        if not isinstance(engine, PolicyEngine):
            raise ConfigError("engine.policy", engine.name, "its weights cannot be replaced", "use engine.policy=vllm")
        return engine

    def cached(self, role: str, start: Callable[[], Engine], cache: Path | None, **more: Any) -> CachedEngine:
        """The engine of this role behind a cache of its answers; `start` is called when it is first needed."""
        engine = CachedEngine(start, dict(identity(self.node(role))), AnswerCache(cache), **more)
        self._cached.append(engine)
        return engine

    def close(self) -> None:
        """Close all that were built."""
        for engine in (*self._cached, *self._built.values()):
            engine.close()
        self._cached.clear()
        self._built.clear()
