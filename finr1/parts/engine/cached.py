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
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from finr1.core.errors import ConfigError
from finr1.core.files import canonical, digest, encodable
from finr1.core.types import Completion, Message
from finr1.parts.engine.asker import STOP_AFTER, Asker
from finr1.parts.engine.base import Engine, OnDone, Request
from finr1.parts.engine.ledger import Ledger
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
"""


class Key(NamedTuple):
    """What determines a completion: hash of the prompt, name of the model, hash of everything else."""

    prompt: str
    model: str
    settings: str


class AnswerCache:
    """Completions by key in a SQLite file, or in memory if the path is None.

    Safe to share between threads and processes, on a local disk only (SQLite's WAL needs shared memory: no NFS). Raises
    ConfigError for a file that is not a cache of this version, or that cannot be read or written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path, self._lock = path, Lock()
        with self._usable():
            if path:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                path or ":memory:", timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            self._prepare()

    @contextlib.contextmanager
    def _usable(self) -> Iterator[None]:
        """One thread at a time; ConfigError for a file that is damaged, full, read-only or locked for long."""
        try:
            with self._lock:
                yield
        except (sqlite3.Error, OSError) as error:
            remedy = f"repair it or give another file, or {SETTING}=null for no cache file"
            raise ConfigError(SETTING, self.path, f"not usable as a cache ({error})", remedy) from error

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
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:  # some errors end it by themselves
                self._db.execute("ROLLBACK")

    def get(self, key: Key) -> Completion | None:
        """Return the completion of this key; None if there is none."""
        with self._usable():
            return self._get(key)

    def _get(self, key: Key) -> Completion | None:
        query = "SELECT text, finish_reason FROM answers WHERE prompt = ? AND model = ? AND settings = ?"
        row = self._db.execute(query, key).fetchone()
        return Completion(*row) if row else None

    def put(self, key: Key, completion: Completion) -> Completion:
        """Store a completion; returns the stored one: the first of a key wins. A failed call is not stored."""
        if completion.finish_reason == "error":
            return completion
        paid = completion.meta.get("paid", (0, 0))
        with self._usable(), self._writing():
            self._db.execute(
                "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*key, encodable(completion.text), completion.finish_reason, *paid),
            )
            return self._get(key) or completion

    def __len__(self) -> int:
        with self._usable():
            (count,) = self._db.execute("SELECT count(*) FROM answers").fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()


def prompt_hash(messages: Sequence[Message]) -> str:
    """Return the hash of a chat: 32 hex digits."""
    text = canonical([dict(message) for message in messages])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class CachedEngine:
    """An engine that sends to another one only the requests missing from the cache; one completion per request.

    Equal requests are sent once. Failed calls are not cached, and repeated the next time.

    Args:
        start: builds the other engine, when first needed.
        deciding: those settings of the other engine that change its completions.
        ledger, stop_after: as in `Asker`; all verdicts of a dead judge would be undecided.
    """

    def __init__(
        self,
        start: Callable[[], Engine],
        deciding: Mapping[str, Any],
        cache: AnswerCache,
        ledger: Ledger | None = None,
        stop_after: int = STOP_AFTER,
    ) -> None:
        self.name, self._deciding, self.cache = _model_name(deciding), digest(deciding), cache
        self._start, self._ledger, self._stop_after = start, ledger, stop_after
        self.repeat = 0  # each number has its own completions in the cache, to sample a judge several times

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: OnDone | None = None
    ) -> list[list[Completion]]:
        """Complete every request, in order, from the cache or by the engine."""
        if sampling.n != 1:
            raise ValueError(f"the cache keeps one completion per request, not {sampling.n}")
        results: list[list[Completion]] = [[] for _ in requests]
        settings = digest([self._deciding, asdict(sampling), *([{"repeat": self.repeat}] if self.repeat else [])])
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

            def store(number: int, completions: Sequence[Completion]) -> None:
                report(missing[number], self.cache.put(missing[number], completions[0]))

            self.asker.ask([requests[indices[key][0]] for key in missing], sampling, store)
            self.asker.flush()
        return results

    @cached_property
    def asker(self) -> Asker:
        """Asks the engine behind the cache, which is built when first needed."""
        return Asker("judge", self._start(), self._ledger, self._stop_after)

    @property
    def fails(self) -> bool:
        """Whether the latest call failed."""
        return "asker" in vars(self) and self.asker.failures > 0

    def close(self) -> None:
        """Close the cache, but not the engine, which `Engines` closes."""
        self.cache.close()


def _model_name(deciding: Mapping[str, Any]) -> str:
    """Return a readable name: the model's name at its server, a local model's path, or the engine's class."""
    model = deciding.get("model")
    path = model.get("path") if isinstance(model, Mapping) else getattr(model, "path", model)
    return str(path or deciding.get("_target_", "")).removeprefix("finr1.parts.engine.")
