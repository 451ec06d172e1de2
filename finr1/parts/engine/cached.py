"""A cache of completions on disk, and an engine that reads it before calling the engine behind it.

The cache is a SQLite file in WAL mode: threads and processes share it, and a SIGKILL loses no reported completion. The
key of a row is the hash of the prompt, the model's name, and the hash of every other setting that affects the
completion (of the engine and the sampling). A row holds the completion and its cost, not the prompt nor an API key.
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
_BUSY_S = 120.0  # how long to wait for another process's write
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
    """What determines a completion: hash of the prompt, name of the model, hash of everything else."""

    prompt: str
    model: str
    settings: str


class Account(NamedTuple):
    """A payer's calls, how many of them failed, and the tokens charged for all."""

    asked: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class AnswerCache:
    """Completions by key in a SQLite file, or in memory if the path is None.

    Safe to share between threads and processes, on a local disk only (SQLite's WAL needs shared memory: no NFS). Raises
    ConfigError for a file that is not a cache of this version.
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
            remedy = f"give another file, or {SETTING}=null for no cache file"
            raise ConfigError(SETTING, path, f"not usable as a cache ({error})", remedy) from error

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")  # loses nothing to SIGKILL; a power cut may lose the last rows
        with self._writing():
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version not in (0, VERSION):
                raise sqlite3.DatabaseError(f"version {version}, expected {VERSION}")
            for statement in filter(str.strip, _TABLES.split(";")):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {VERSION}")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A write transaction: one that starts as a reader fails if another process has written in between."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def get(self, key: Key) -> Completion | None:
        """Return the completion of this key; None if there is none."""
        with self._lock:
            return self._get(key)

    def _get(self, key: Key) -> Completion | None:
        query = "SELECT text, finish_reason FROM answers WHERE prompt = ? AND model = ? AND settings = ?"
        row = self._db.execute(query, key).fetchone()
        return Completion(*row) if row else None

    def put(self, key: Key, completion: Completion, payer: str = "") -> Completion:
        """Store a completion and charge the payer; returns the stored completion: the first of a key wins.

        A failed call is charged but not stored, and returned as it is.
        """
        prompt_tokens, completion_tokens = completion.meta.get("paid", (0, 0))
        failed = completion.finish_reason == "error"
        with self._lock, self._writing():
            if not failed:
                self._db.execute(
                    "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (*key, _encodable(completion.text), completion.finish_reason, prompt_tokens, completion_tokens),
                )
            self._db.execute(
                "INSERT INTO accounts VALUES (?, 1, ?, ?, ?) ON CONFLICT (payer) DO UPDATE SET "
                "asked = asked + 1, failed = failed + excluded.failed, "
                "prompt_tokens = prompt_tokens + excluded.prompt_tokens, "
                "completion_tokens = completion_tokens + excluded.completion_tokens",
                (payer, failed, prompt_tokens, completion_tokens),
            )
            stored = None if failed else self._get(key)
        return stored or completion

    def account(self, payer: str) -> Account:
        """Return this payer's calls and their cost, over all processes."""
        query = "SELECT asked, failed, prompt_tokens, completion_tokens FROM accounts WHERE payer = ?"
        with self._lock:
            return Account(*(self._db.execute(query, (payer,)).fetchone() or ()))

    def __len__(self) -> int:
        with self._lock:
            (count,) = self._db.execute("SELECT count(*) FROM answers").fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()


def _encodable(text: str) -> str:
    """Replace lone surrogates, which a model may emit as escapes and UTF-8 cannot encode."""
    return text.encode("utf-8", "replace").decode()


def prompt_hash(messages: Sequence[Message]) -> str:
    """Return the hash of a chat: 32 hex digits."""
    text = canonical([dict(message) for message in messages])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class CachedEngine:
    """An engine that sends to another one only the requests missing from the cache; one completion per request.

    Equal requests are sent once. Failed calls are not cached, and repeated the next time.

    Args:
        start: builds the other engine, when first needed.
        deciding: those settings of the other engine that change its completions.
        payer: whose earlier cost counts towards the engine's spend ceiling.
        stop_after: Finr1Error after so many consecutive failed calls (0: never), as all verdicts of a dead judge would
            be undecided.
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
        self.consecutive_failures = 0

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: OnDone | None = None, repeat: int = 0
    ) -> list[list[Completion]]:
        """Complete every request, in order, from the cache or by the engine.

        Each number of `repeat` has its own completions in the cache, to sample a judge several times.
        """
        if sampling.n != 1:
            raise ValueError(f"the cache keeps one completion per request, not {sampling.n}")
        results: list[list[Completion]] = [[] for _ in requests]
        settings = digest([self._deciding, asdict(sampling), *([{"repeat": repeat}] if repeat else [])])
        indices: dict[Key, list[int]] = {}  # equal requests share a key
        for index, request in enumerate(requests):
            indices.setdefault(Key(prompt_hash(request.messages), self.name, settings), []).append(index)

        def report(key: Key, completion: Completion) -> None:
            for index in indices[key]:
                results[index] = [completion]
                if on_done:
                    on_done(index, results[index])

        missing: list[Key] = []
        for key in indices:
            cached = self.cache.get(key)
            if cached is None:
                missing.append(key)
            else:
                report(key, cached)
        if missing:
            self._complete(missing, [requests[indices[key][0]] for key in missing], sampling, report)
        return results

    def _complete(
        self, keys: Sequence[Key], requests: Sequence[Request], sampling: Sampling, report: Callable[..., None]
    ) -> None:
        done: set[int] = set()

        def store(number: int, completions: Sequence[Completion]) -> None:
            with self._lock:  # an engine may report from its own threads
                if number in done:
                    return
                done.add(number)
                completion = self.cache.put(keys[number], completions[0], self.payer)
                failed = completion.finish_reason == "error"
                self.consecutive_failures = self.consecutive_failures + 1 if failed else 0
                report(keys[number], completion)
                if 0 < self.stop_after <= self.consecutive_failures:
                    self._stop(completion.error)

        for number, completions in enumerate(self.engine.generate(requests, sampling, store)):
            store(number, completions)

    @property
    def engine(self) -> Engine:
        """The engine behind the cache, built when first needed."""
        if self._engine is None:
            self._engine = self._start()
            if isinstance(self._engine, StreamEngine):
                before = self.account
                self._engine.spent.prompt_tokens += before.prompt_tokens
                self._engine.spent.completion_tokens += before.completion_tokens
        return self._engine

    @property
    def account(self) -> Account:
        """The payer's calls and their cost, including earlier attempts."""
        return self.cache.account(self.payer)

    def _stop(self, error: str) -> None:
        raise Finr1Error(
            f"engine.judge={self.name}: the last {self.consecutive_failures} calls all failed, the last with "
            f"`{error}`; fix the judge and start again: those calls are repeated"
        )

    def close(self) -> None:
        """Close the cache, but not the engine, which `Engines` closes."""
        self.cache.close()


class Repeat:
    """A cached engine whose completions are stored separately from those of other repeats."""

    def __init__(self, engine: CachedEngine, number: int) -> None:
        self.name, self._cached, self.number = engine.name, engine, number

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: OnDone | None = None
    ) -> list[list[Completion]]:
        """See `CachedEngine.generate`."""
        return self._cached.generate(requests, sampling, on_done, self.number)

    def close(self) -> None:
        """Do nothing: the cached engine is closed by its owner."""


def _model_name(deciding: Mapping[str, Any]) -> str:
    """Return a readable name: the model's name at its server, a local model's path, or the engine's class."""
    model = deciding.get("model")
    path = model.get("path") if isinstance(model, Mapping) else getattr(model, "path", model)
    return str(path or deciding.get("_target_", "")).removeprefix("finr1.parts.engine.")
