"""A third of all requests fails, in every way a server can fail: the rows of distil are those of a quiet server."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from finr1.core.jsonl import read_jsonl
from finr1.data.distil.run import run
from finr1.settings.distil import DistilSettings
from finr1.settings.sampling import Sampling
from tests.helpers.fault_server import Behave, Reply, Seen, chat, good, serve, solved
from tests.helpers.stages import question, stage_context, write_rows

FAULTS = [
    Reply(500),
    Reply(503, b"<html>busy</html>"),
    Reply(429, headers={"Retry-After": "0.02"}),
    Reply(429),
    Reply(reset=True),
    Reply(body=chat("fine"), cut_at=40),
    Reply(body=b'{"choices": [{"mess'),
    Reply(body=b"\xff\xfe"),
    Reply(body=chat("")),
    Reply(body=chat("x", n=0)),
    Reply(body=chat("late"), delay_s=0.8),
]


def fails_by_chance(seed: int) -> Behave:
    rng = random.Random(seed)

    def behave(seen: Seen) -> Reply:
        if rng.random() < 0.3:
            return rng.choice(FAULTS)
        if rng.random() < 0.2:  # too few choices: the rest is asked for again
            return Reply(body=solved(seen._replace(body={**seen.body, "n": 1})))
        return good(seen)

    return behave


def distil(run_dir: Path, behave: Behave) -> tuple[list[dict[str, Any]], dict[str, Any], int]:
    made = [question(f"question {i}", str(i)) for i in range(120)]
    write_rows(run_dir / "1_questions" / "questions.jsonl", made)
    with serve(behave) as server:
        node = {
            "_target_": "finr1.parts.engine.http.engine.HttpEngine",
            "model": "m",
            "base_url": server.url,
            "backoff_s": 0.005,
        }
        limits = {"concurrency": 16, "retries": 14, "timeout_s": 0.4}
        settings = DistilSettings(sampling=Sampling(n=2, temperature=0.6, max_new_tokens=64))
        with stage_context(run_dir, "distil", engine={"teacher": {**node, **limits}}, distil=settings) as ctx:
            counts = run(ctx)
    rows = list(read_jsonl(run_dir / "2_traces" / "traces.jsonl"))
    for row in rows:
        row["meta"].pop("paid", None)  # a lost answer was paid for too
    return rows, counts, len(server.seen)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_rows_are_those_of_a_quiet_server(tmp_path: Path, seed: int) -> None:
    quiet, counts, asked = distil(tmp_path / "quiet", good)
    stormy, stormy_counts, stormy_asked = distil(tmp_path / "stormy", fails_by_chance(seed))
    assert asked == 120 and stormy_asked > 150 and len(quiet) == 240
    names = ("traces", "failed", "truncated", "questions")
    assert {name: counts[name] for name in names} == {name: stormy_counts[name] for name in names}
    # token counts are shares of what each answer was billed, so they may differ by how the choices came together
    for one, other in zip(quiet, stormy, strict=True):
        assert {k: v for k, v in one.items() if k not in ("n_tokens", "meta")} == {
            k: v for k, v in other.items() if k not in ("n_tokens", "meta")
        }
