"""What every stage is handed: settings, its folder and those it reads, engines by role, tracker, progress bar."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from finr1.cache import AnswerCache, CachedEngine
from finr1.engine.base import Engine, PolicyEngine
from finr1.errors import ConfigError
from finr1.judge.base import AsksModel
from finr1.ranks import ALONE, Ranks
from finr1.store import BEGUN, canonical, read_json, take_rows
from finr1.tracking import Tracker
from finr1.types import Question

if TYPE_CHECKING:
    from finr1.config import RootConfig

RUN_MODELS = ("base", "sft", "grpo")  # what the policy engine is asked as
_INNER_SOURCE = re.compile(r"(?<![\w.])source\.\w+\.")
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
    """Instantiate every node of a group that composes as a list, by name.

    A source inside a benchmark speaks of `source.<its name>`: ConfigError names the key where it stands.
    """
    parts: dict[str, Any] = {}
    for name, node in nodes.items():
        try:
            parts[name] = build(node)
        except InstantiationException as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, ConfigError):
                cause = cause.__cause__
            if cause is None or "source" not in node:
                raise
            raise ConfigError(*(_INNER_SOURCE.sub(f"benchmark.{name}.source.", str(w)) for w in cause.words)) from error
    return parts


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
            in_process = [e for e in self._built.values() if isinstance(e, PolicyEngine)]
            if in_process and node["_target_"].startswith("finr1.engine.vllm"):
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
    ranks: Ranks = ALONE  # those that walk this stage together
    _judge: CachedEngine | None = None

    def parts(self, nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """`build_all`, with the judge's engine given to those that ask a model."""
        built = build_all(nodes)
        for part in built.values():
            if isinstance(part, AsksModel):
                part.ask_through(self.judge)
        return built

    @property
    def judge(self) -> CachedEngine:
        """The engine of role `judge` behind `paths.judge_cache`; started when it must answer.

        An in-process engine judges with the model as it came, never with weights of this run.
        """
        if self._judge is None:
            in_process = self.engines.node("judge")["_target_"].startswith("finr1.engine.vllm")
            if in_process and self.stage == "grpo":
                why = "the engine in this process samples from the policy, whose weights change"
                raise ConfigError("engine.judge", "vllm", why, "serve the judge, and choose engine@engine.judge=http")
            begun = self.folder / BEGUN
            began = read_json(begun)["began"] if begun.exists() else ""
            self._judge = self.engines.cached(
                "judge",
                self._start_judge,
                Path(self.cfg.paths.judge_cache) if self.cfg.paths.judge_cache else None,
                payer=f"{self.run_dir.name}/{self.stage}/{began}",
                stop_after=self.cfg.judge.stop_after_failed_calls,
            )
        return self._judge

    def _start_judge(self) -> Engine:
        engine = self.engines.get("judge")
        if isinstance(engine, PolicyEngine):
            from finr1.model.load import resolve

            engine.load_folder(resolve(self.cfg.model))
        return engine

    @property
    def judge_fails(self) -> bool:
        """Whether the last call of the judge's engine failed."""
        return self._judge is not None and self._judge.failed_in_a_row > 0

    def count_judge(self) -> dict[str, int]:
        """What the judge's engine was asked, over all attempts at this stage; empty where no judge asks a model."""
        if self._judge is None:
            return {}
        account = self._judge.account
        if account.failed:
            why = "what they would have decided is undecided"
            self.note(f"{account.failed} of {account.asked} calls of the judge failed: {why}")
        counts = {"judge_asked": account.asked, "judge_failed": account.failed}
        paid = (account.prompt_tokens, account.completion_tokens)
        return counts | ({"paid_prompt_tokens": paid[0], "paid_completion_tokens": paid[1]} if any(paid) else {})

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
