"""Engines by their role in a run: teacher, judge, policy, or a model to score."""

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

RUN_MODELS = ("base", "sft", "grpo")  # models that the policy engine loads


def is_role(name: str, engines: Mapping[str, Any]) -> bool:
    """Whether a name in `evaluate.models` is an engine's role; the policy is scored under the names of its models."""
    return name in engines and name not in (*RUN_MODELS, "policy")


def identity(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an engine's settings without its `operational` ones: those that determine its completions."""
    operational = _declared(node, "operational") or ()
    return {setting: value for setting, value in node.items() if setting not in operational}


def in_process(node: Mapping[str, Any] | None) -> bool:
    """Whether the engine of these settings runs in this process, where its weights can be replaced."""
    return bool(_declared(node or {}, "in_process"))


def _declared(node: Mapping[str, Any], name: str) -> Any:
    """Return this attribute of the class of a `_target_` node; None if it has none."""
    if "_target_" not in node:
        return None
    module, _, kind = node["_target_"].rpartition(".")
    return getattr(getattr(importlib.import_module(module), kind), name, None)


class Engines:
    """Engines by role, built when first needed; roles with equal settings share an engine.

    The in-process vLLM engine is built once per process, and its weights are replaced. `on_built(role, engine)` is
    called for each engine built.
    """

    def __init__(
        self, nodes: Mapping[str, Mapping[str, Any]], on_built: Callable[[str, Engine], None] = lambda *_: None
    ) -> None:
        self._nodes, self._on_built = nodes, on_built
        self._built: dict[str, Engine] = {}
        self._cached: list[CachedEngine] = []

    def node(self, role: str) -> Mapping[str, Any]:
        """Return the settings of this role's engine; ConfigError if no engine has the role."""
        if role not in self._nodes:
            raise ConfigError(f"engine.{role}", None, "no engine has this role", f"add engine@engine.{role}=<name>")
        return self._nodes[role]

    def get(self, role: str) -> Engine:
        """Return the engine of this role."""
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
        """Return the engine whose weights the run replaces."""
        engine = self.get("policy")
        if not isinstance(engine, PolicyEngine):
            raise ConfigError("engine.policy", engine.name, "its weights cannot be replaced", "use engine.policy=vllm")
        return engine

    def cached(self, role: str, start: Callable[[], Engine], cache: Path | None, **more: Any) -> CachedEngine:
        """Return the engine of this role behind a cache of its completions; `start` builds it when first needed."""
        engine = CachedEngine(start, dict(identity(self.node(role))), AnswerCache(cache), **more)
        self._cached.append(engine)
        return engine

    def close(self) -> None:
        """Close every engine built."""
        for engine in (*self._cached, *self._built.values()):
            engine.close()
        self._cached.clear()
        self._built.clear()
