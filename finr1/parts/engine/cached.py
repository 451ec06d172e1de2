"""Answers that are asked for once: a file of them, and an engine that looks there first.

The file is SQLite in WAL mode, so that threads and processes share it and a SIGKILL loses nothing that was reported. A
row is found by the hash of the prompt, the name of the model, and the hash of all else that decides the answer (the
engine's deciding settings and the sampling). It holds the model's words and what they cost: no prompt, no key.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from finr1.core.errors import ConfigError, Finr1Error
from finr1.core.files import canonical, digest
from finr1.core.types import Completion, Message
from finr1.parts.engine.base import Engine, OnDone, Request, StreamEngine
from finr1.settings.sampling import Sampling

SETTING = "paths.judge_cache"
VERSION = 1
_BUSY_S = 120.0  # how long a process waits for another one's write
_TABLES = """
    CREATE TABLE IF NOT EXISTS answers (
        prompt TEXT NOT NULL, model TEXT NOT NULL, settings TEXT NOT NULL,
        text TEXT NOT NULL, finish_reason TEXT NOT NULL,
        prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL,
        PRIMARY KEY (prompt, model, settings)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS accounts (
        payer TEXT PRIMARY KEY, asked INTEGER NOT NULL, failed INTEGER NOT NULL,
        prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL
    ) WITHOUT ROWID;
"""


class Key(NamedTuple):
    """What decides an answer: hash of the prompt, name of the model, hash of everything else."""

    prompt: str
    model: str
    settings: str


class Account(NamedTuple):
    """Calls that were made for a payer, those that failed, and the tokens that all of them cost."""

    asked: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class AnswerCache:
    """The file; None keeps the answers in this process alone.

    Safe between threads and between processes, on a local disk (SQLite's WAL needs shared memory: no NFS). ConfigError
    for a file that is no cache of this version.
    """

    def __init__(self, path: Path | None) -> None:
        self.path, self._lock = path, Lock()
        try:
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                path or ":memory:", timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            remedy = f"give another file, or {SETTING}=null to do without"
            raise ConfigError(SETTING, path, f"not usable as a cache ({error})", remedy) from error

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last answers, a SIGKILL none
        with self._writing():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version not in (0, VERSION):
                raise sqlite3.DatabaseError(f"its version is {version}, not {VERSION}")
            for statement in filter(str.strip, _TABLES.split(";")):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {VERSION}")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction, begun as a writer: two that began as readers could not both go on."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def get(self, key: Key) -> Completion | None:
        """The answer kept under this key; None where there is none."""
        with self._lock:
            return self._get(key)

    def _get(self, key: Key) -> Completion | None:
        query = "SELECT text, finish_reason FROM answers WHERE prompt = ? AND model = ? AND settings = ?"
        row = self._db.execute(query, key).fetchone()
        return Completion(*row) if row else None

    def put(self, key: Key, completion: Completion, payer: str = "") -> Completion:
        """Keep an answer, and what it cost, before it counts; returns the one that is kept: the first one stays.

        A failed call is charged to its payer and not kept: it comes back as it is.
        """
        prompt, completed = completion.meta.get("paid", (0, 0))
        failed = completion.finish_reason == "error"
        with self._lock, self._writing():
            if not failed:
                self._db.execute(
                    "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (*key, _writable(completion.text), completion.finish_reason, prompt, completed),
                )
            self._db.execute(
                "INSERT INTO accounts VALUES (?, 1, ?, ?, ?) ON CONFLICT (payer) DO UPDATE SET "
                "asked = asked + 1, failed = failed + excluded.failed, "
                "prompt_tokens = prompt_tokens + excluded.prompt_tokens, "
                "completion_tokens = completion_tokens + excluded.completion_tokens",
                (payer, failed, prompt, completed),
            )
            kept = None if failed else self._get(key)
        return kept or completion

    def account(self, payer: str) -> Account:
        """What this payer has asked and paid for, over all processes."""
        query = "SELECT asked, failed, prompt_tokens, completion_tokens FROM accounts WHERE payer = ?"
        with self._lock:
            return Account(*(self._db.execute(query, (payer,)).fetchone() or ()))

    def __len__(self) -> int:
        with self._lock:
            (count,) = self._db.execute("SELECT count(*) FROM answers").fetchone()
        return int(count)

    def close(self) -> None:
        """Give the file back."""
        with self._lock:
            self._db.close()


def _writable(text: str) -> str:
    """Lone surrogates, which a model may emit as escapes, have no UTF-8."""
    return text.encode("utf-8", "replace").decode()


def prompt_hash(messages: Sequence[Message]) -> str:
    """32 hex digits of a chat."""
    text = canonical([dict(message) for message in messages])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class CachedEngine:
    """An engine that asks another one only what the cache does not hold; one completion a request.

    `start` builds the other engine, when the first request needs it; `deciding` are those of its settings that change
    what it answers. What `payer` paid before counts towards the engine's spend ceiling. Two equal requests are one, and
    a failed call is not kept: it is asked again the next time.

    Finr1Error when `stop_after` calls in a row failed (0: never): a server that is gone would leave all undecided.
    """

    def __init__(
        self,
        start: Callable[[], Engine],
        deciding: Mapping[str, Any],
        cache: AnswerCache,
        payer: str = "",
        stop_after: int = 0,
    ) -> None:
        self.name, self._deciding = _model_name(deciding), digest(deciding)
        self.cache, self.payer, self.stop_after = cache, payer, stop_after
        self._start, self._lock = start, Lock()
        self._engine: Engine | None = None
        self.failed_in_a_row = 0

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: OnDone | None = None, repeat: int = 0
    ) -> list[list[Completion]]:
        """Complete every request, in order: from the cache, or by the engine and then from the cache.

        What is asked for the `repeat`-th time is an answer of its own; 0 is what everyone shares.
        """
        if sampling.n != 1:
            raise ValueError(f"the cache keeps one completion a request, not {sampling.n}")
        results: list[list[Completion]] = [[] for _ in requests]
        settings = digest([self._deciding, asdict(sampling), *([{"repeat": repeat}] if repeat else [])])
        places: dict[Key, list[int]] = {}
        for index, request in enumerate(requests):
            places.setdefault(Key(prompt_hash(request.messages), self.name, settings), []).append(index)

        def report(key: Key, completion: Completion) -> None:
            for index in places[key]:
                results[index] = [completion]
                if on_done:
                    on_done(index, results[index])

        unknown: list[Key] = []
        for key in places:
            known = self.cache.get(key)
            if known is None:
                unknown.append(key)
            else:
                report(key, known)
        if unknown:
            self._ask(unknown, [requests[places[key][0]] for key in unknown], sampling, report)
        return results

    def _ask(
        self, keys: Sequence[Key], requests: Sequence[Request], sampling: Sampling, report: Callable[..., None]
    ) -> None:
        done: set[int] = set()

        def keep(number: int, completions: Sequence[Completion]) -> None:
            with self._lock:  # an engine may report from its own threads
                if number in done:
                    return
                done.add(number)
                completion = self.cache.put(keys[number], completions[0], self.payer)
                failed = completion.finish_reason == "error"
                self.failed_in_a_row = self.failed_in_a_row + 1 if failed else 0
                report(keys[number], completion)
                if 0 < self.stop_after <= self.failed_in_a_row:
                    self._stop(completion.error)

        for number, completions in enumerate(self.engine.generate(requests, sampling, keep)):
            keep(number, completions)

    @property
    def engine(self) -> Engine:
        """The engine behind, started when first asked for."""
        if self._engine is None:
            self._engine = self._start()
            if isinstance(self._engine, StreamEngine):
                before = self.account
                self._engine.spent.prompt_tokens += before.prompt_tokens
                self._engine.spent.completion_tokens += before.completion_tokens
        return self._engine

    @property
    def account(self) -> Account:
        """What was asked and paid, earlier attempts included."""
        return self.cache.account(self.payer)

    def _stop(self, error: str) -> None:
        raise Finr1Error(
            f"engine.judge={self.name}: the last {self.failed_in_a_row} calls all failed, the last with `{error}`; "
            "mend the judge and start again: it goes on with those calls"
        )

    def close(self) -> None:
        """Close the cache; the engine belongs to whoever built it."""
        self.cache.close()


class Repeat:
    """A cached engine asked the same once more: its answers are kept apart from those of other repeats."""

    def __init__(self, engine: CachedEngine, number: int) -> None:
        self.name, self._cached, self.number = engine.name, engine, number

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: OnDone | None = None
    ) -> list[list[Completion]]:
        """See `CachedEngine.generate`."""
        return self._cached.generate(requests, sampling, on_done, self.number)

    def close(self) -> None:
        """Nothing: the cached engine is its owner's."""


def _model_name(deciding: Mapping[str, Any]) -> str:
    """A name that a person can read: the server's for a model, the path of a local one, or the engine's class."""
    model = deciding.get("model")
    path = model.get("path") if isinstance(model, Mapping) else getattr(model, "path", model)
    return str(path or deciding.get("_target_", "")).removeprefix("finr1.engine.")
