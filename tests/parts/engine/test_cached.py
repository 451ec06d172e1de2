"""The completion cache: its key, threads, processes and kills; and the engine that reads it first."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finr1.core.errors import ConfigError, Finr1Error
from finr1.core.types import Completion
from finr1.parts.engine.base import OnDone, Request
from finr1.parts.engine.cached import AnswerCache, CachedEngine, Key, prompt_hash
from finr1.parts.engine.ledger import Account, Ledger
from finr1.settings.sampling import Sampling
from tests.helpers import runner
from tests.helpers.stages import question

GREEDY = Sampling(temperature=0.0, max_new_tokens=8)
KEY = Key("p", "m", "s")


class Counting:
    """An engine that echoes the prompt, fails if it contains "fail", and records its requests."""

    name = "counting"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: OnDone | None = None
    ) -> list[list[Completion]]:
        results = []
        for index, request in enumerate(requests):
            text = request.messages[-1]["content"]
            self.asked.append(text)
            meta = {"paid": [10, 2]}
            failed = "fail" in text
            one = Completion("", "error", error="down", meta=meta) if failed else Completion(f"re {text}", meta=meta)
            results.append([one])
            if on_done:
                on_done(index, [one])
        return results

    def close(self) -> None: ...


def requests(*texts: str) -> list[Request]:
    return [Request([{"role": "user", "content": text}], question("q")) for text in texts]


def engine_over(path: Path | None, engine: Counting, model: str = "m", **more: Any) -> CachedEngine:
    return CachedEngine(lambda: engine, {"_target_": "x.Y", "model": model}, AnswerCache(path), **more)


def test_a_completion_is_requested_once_and_shared_between_caches(tmp_path: Path) -> None:
    path, first, second = tmp_path / "deep" / "c.sqlite", Counting(), Counting()
    engine = engine_over(path, first)
    texts = [c.text for [c] in engine.generate(requests("a", "b", "a"), GREEDY)]
    assert texts == ["re a", "re b", "re a"] and first.asked == ["a", "b"]
    again = engine_over(path, second)
    seen: list[int] = []
    found = again.generate(requests("b", "c", "b"), GREEDY, lambda i, _: seen.append(i))
    assert [c.text for [c] in found] == ["re b", "re c", "re b"]
    assert second.asked == ["c"] and sorted(seen) == [0, 1, 2]


def test_the_key_has_every_setting_that_affects_the_completion(tmp_path: Path) -> None:
    engine = Counting()
    cached = engine_over(tmp_path / "c", engine)
    cached.generate(requests("a"), GREEDY)
    cached.generate(requests("a"), replace(GREEDY, max_new_tokens=9))
    engine_over(tmp_path / "c", engine, model="other").generate(requests("a"), GREEDY)
    CachedEngine(
        lambda: engine, {"_target_": "x.Y", "model": "m", "lead_in": "vllm"}, AnswerCache(tmp_path / "c")
    ).generate(requests("a"), GREEDY)
    system = [Request([{"role": "system", "content": "s"}, *requests("a")[0].messages], question("q"))]
    cached.generate(system, GREEDY)
    assert engine.asked == ["a"] * 5
    cached.generate([Request(requests("a")[0].messages, question("another question"))], GREEDY)
    assert len(engine.asked) == 5, "the question is not part of the prompt"
    with pytest.raises(ValueError, match="one completion per request"):
        cached.generate(requests("a"), Sampling(n=2, temperature=1.0))


def test_a_failed_call_is_counted_but_not_cached(tmp_path: Path) -> None:
    engine, ledger = Counting(), Ledger(tmp_path / "calls.judge.jsonl")
    cached = engine_over(tmp_path / "c", engine, ledger=ledger)
    for _ in range(2):
        [[failed], [good]] = cached.generate(requests("fail", "a"), GREEDY)
        assert (failed.finish_reason, failed.error, good.text) == ("error", "down", "re a")
    assert engine.asked == ["fail", "a", "fail"] and len(cached.cache) == 1
    assert Ledger(ledger.path).account == ledger.account == Account(asked=3, failed=2)


def test_consecutive_failures_stop_it_and_a_success_resets_the_count(tmp_path: Path) -> None:
    cached = engine_over(tmp_path / "c", Counting(), stop_after=3)
    cached.generate(requests("fail 1", "fail 2", "good", "fail 3", "fail 4"), GREEDY)
    with pytest.raises(Finr1Error, match=r"engine.judge=counting: the last 3 calls all failed, .* `down`; fix"):
        cached.generate(requests("fail 5", "more"), GREEDY)


def test_the_first_completion_of_a_key_wins(tmp_path: Path) -> None:
    one, two = AnswerCache(tmp_path / "c"), AnswerCache(tmp_path / "c")
    assert one.put(KEY, Completion("first")).text == "first"
    assert two.put(KEY, Completion("second", "length")) == Completion("first") == two.get(KEY)
    one.put(Key("odd", "m", "s"), Completion("\ud800 亿"))
    assert two.get(Key("odd", "m", "s")) == Completion("? 亿")


def test_without_a_file_the_cache_is_in_memory() -> None:
    engine = Counting()
    cached = engine_over(None, engine)
    for _ in range(2):
        cached.generate(requests("a"), GREEDY)
    assert engine.asked == ["a"]


def test_the_prompt_hash_covers_roles_and_message_borders() -> None:
    chats = [[("user", "ab")], [("user", "a"), ("user", "b")], [("system", "ab")], [("user", "ab\ud800")]]
    hashes = {prompt_hash([{"role": r, "content": c} for r, c in chat]) for chat in chats}
    assert len(hashes) == 4


@pytest.mark.parametrize("content", [b"this is no database, but a text of some length" * 30, b"SQLite format 3\0 torn"])
def test_a_file_that_is_not_a_cache_is_reported_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "c").write_bytes(content)
    with pytest.raises(ConfigError, match=r"paths.judge_cache=.*not usable as a cache .*; repair it or give another"):
        AnswerCache(tmp_path / "c")


def test_a_cache_of_another_version_is_rejected(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "c") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigError, match="version 99, expected 1"):
        AnswerCache(tmp_path / "c")


@pytest.mark.parametrize(
    ("pragma", "words"),
    [("max_page_count = 1", "database or disk is full"), ("query_only = ON", "attempt to write a readonly database")],
)
def test_a_full_or_read_only_cache_ends_in_one_line(tmp_path: Path, pragma: str, words: str) -> None:
    cache = AnswerCache(tmp_path / "c")
    cache.put(KEY, Completion("kept"))
    cache._db.execute(f"PRAGMA {pragma}")
    long = Completion("x" * 100_000)
    for _ in range(2):  # nothing is left open by the first
        with pytest.raises(ConfigError, match=rf"paths.judge_cache=.*/c: not usable as a cache \({words}\); repair it"):
            cache.put(Key("other", "m", "s"), long)
    assert cache.get(KEY) == Completion("kept")


def test_a_cache_that_was_damaged_ends_in_one_line(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "c")
    for number in range(200):
        cache.put(Key(str(number), "m", "s"), Completion("x" * 1000))
    cache.close()
    size = (tmp_path / "c").stat().st_size
    with (tmp_path / "c").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    engine = engine_over(tmp_path / "c", Counting())
    with pytest.raises(ConfigError, match=r"paths.judge_cache=.*/c: not usable as a cache \(.*malformed"):
        engine.generate(requests("a"), GREEDY)


def test_threads_share_one_cache(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path / "c")

    def work(thread: int) -> None:
        for i in range(100):
            cache.put(Key(str(i), "m", "s"), Completion(f"{i} of {thread}"))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache) == 100


WRITER = """
import sys
from pathlib import Path
from finr1.parts.engine.cached import AnswerCache, Key
from finr1.core.types import Completion
cache = AnswerCache(Path(sys.argv[1]))
for i in range(int(sys.argv[3])):
    cache.put(Key(f"{sys.argv[2]} {i}", "m", "s"), Completion(f"answer {i}"))
    print(i, flush=True)
"""


def writer(path: Path, name: str, n: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(n)]
    return subprocess.Popen(command, env=runner.environment(), stdout=subprocess.PIPE, text=True)


def test_processes_share_one_cache(tmp_path: Path) -> None:
    processes = [writer(tmp_path / "c", str(n), 50) for n in range(4)]
    assert [(process.communicate(timeout=120), process.returncode)[1] for process in processes] == [0] * 4
    cache = AnswerCache(tmp_path / "c")
    assert len(cache) == 200


def test_a_kill_loses_no_reported_completion(tmp_path: Path) -> None:
    for attempt in range(3):
        process = writer(tmp_path / "c", str(attempt), 100_000)
        assert process.stdout
        for line in process.stdout:
            if int(line) == 20 * (attempt + 1):
                os.kill(process.pid, signal.SIGKILL)
                break
        reported = int((process.stdout.read().split() or [line])[-1])
        process.wait()
        cache = AnswerCache(tmp_path / "c")
        assert all(cache.get(Key(f"{attempt} {i}", "m", "s")) for i in range(reported + 1))
        cache.close()
