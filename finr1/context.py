"""What every stage is handed: settings, its folder and those it reads, engines by role, tracker, progress bar."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from finr1.engine.base import Engine, PolicyEngine
from finr1.errors import ConfigError
from finr1.store import canonical, take_rows
from finr1.tracking import Tracker
from finr1.types import Question

if TYPE_CHECKING:
    from finr1.config import RootConfig

RUN_MODELS = ("base", "sft", "grpo")  # what the policy engine is asked as
console = Console(stderr=True, highlight=False)


def build(node: Mapping[str, Any], **more: Any) -> Any:
    """Instantiate a `_target_` node; dataclass settings inside it arrive as dataclass instances."""
    return instantiate(dict(node), **more, _convert_="object")


def is_role(name: str, engines: Mapping[str, Any]) -> bool:
    """Whether a name in `evaluate.models` is that of an engine; the policy is asked by the names of its weights."""
    return name in engines and name not in (*RUN_MODELS, "policy")


def identity(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """An engine's settings without its `operational` ones: what decides its completions."""
    if "_target_" not in node:
        return node
    module, _, name = node["_target_"].rpartition(".")
    operational = getattr(getattr(importlib.import_module(module), name), "operational", ())
    return {setting: value for setting, value in node.items() if setting not in operational}


def build_all(nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Instantiate every node of a group that composes as a list, by name."""
    return {name: build(node) for name, node in nodes.items()}


class Engines:
    """Engines by role (teacher, judge, policy, any that is scored), built when first asked for; equal nodes are one.

    The in-process vLLM engine lives as long as the process: its weights are replaced, it is never built twice.
    """

    def __init__(self, nodes: Mapping[str, Mapping[str, Any]]) -> None:
        self._nodes = nodes
        self._built: dict[str, Engine] = {}

    def get(self, role: str) -> Engine:
        """The engine of this role."""
        if role not in self._nodes:
            raise ConfigError(f"engine.{role}", None, "no engine has this role", f"add engine@engine.{role}=<name>")
        node = self._nodes[role]
        key = canonical(node)
        if key not in self._built:
            in_process = [e for e in self._built.values() if isinstance(e, PolicyEngine)]
            if in_process and node["_target_"].startswith("finr1.engine.vllm"):
                raise ConfigError(
                    f"engine.{role}",
                    node["_target_"],
                    "a second in-process vLLM engine with other settings",
                    "give both roles the same settings",
                )
            self._built[key] = build(node)
        return self._built[key]

    def policy(self) -> PolicyEngine:
        """The engine whose weights the run replaces."""
        engine = self.get("policy")
        if not isinstance(engine, PolicyEngine):
            raise ConfigError("engine.policy", engine.name, "its weights cannot be replaced", "use engine.policy=vllm")
        return engine

    def close(self) -> None:
        """Close all that were built."""
        for engine in self._built.values():
            engine.close()
        self._built.clear()


@dataclass
class Context:
    """A stage's surroundings."""

    cfg: RootConfig
    run_dir: Path
    stage: str
    folder: Path
    inputs: Mapping[str, Path]
    tracker: Tracker
    engines: Engines
    notes: list[str] = field(default_factory=list)

    def questions(self) -> dict[str, Question]:
        """The run's questions by id, in their order; DataError names the line of one that lacks something."""
        rows = take_rows(self.inputs["questions"] / "questions.jsonl", ["id", *Question.needed()])
        return {row["id"]: Question.from_json(row) for row in rows}

    def note(self, text: str) -> None:
        """Tell the user something they should know; it is kept for the report too."""
        self.notes.append(text)
        console.print(f"  {self.stage}: {text}")

    @contextmanager
    def progress(self, what: str, total: int, done: int = 0) -> Iterator[Bar]:
        """A progress bar on a terminal; elsewhere a plain line every half minute."""
        bar = Bar(f"{self.stage}: {what}", total, done)
        with bar:
            yield bar


class Bar:
    """One progress bar."""

    def __init__(self, title: str, total: int, done: int) -> None:
        self.title, self.total, self.done, self.text = title, total, done, ""
        self._before, self._began = done, time.monotonic()
        self._last_line = self._began
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
        )
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task(title, total=total, completed=done, text="")

    def advance(self, n: int = 1, text: str | None = None) -> None:
        """Count `n` more as done; `text` is shown at the end of the line."""
        self.done += n
        self.text = self.text if text is None else text
        self._progress.update(self._task, advance=n, text=self.text)
        if not console.is_terminal and time.monotonic() - self._last_line > 30:
            self._last_line = time.monotonic()
            left_s = (self.total - self.done) * (self._last_line - self._began) / max(1, self.done - self._before)
            words = ", ".join(filter(None, (self.text, f"{left_s / 60:.1f} min left")))
            console.print(f"  {self.title} {self.done}/{self.total} {words}")

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
