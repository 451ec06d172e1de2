"""Models behind a server: scored as they answer, whatever goes wrong; completions that are scored again, not asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from finr1.answer.tags import parse, render
from finr1.cli import check, compose, nodes
from finr1.core.errors import ConfigError, Finr1Error
from finr1.core.jsonl import read_jsonl, write_jsonl
from finr1.core.types import Question, Verdict
from finr1.evaluation.evaluate import completions as asking
from finr1.evaluation.evaluate.run import run as run_evaluate
from finr1.evaluation.report.gather import benchmarks_of
from finr1.evaluation.scores import rows as scored
from finr1.parts.benchmark.base import Outcome
from finr1.parts.engine.http import clients
from finr1.run.fingerprints import key_of
from finr1.run.stages import STAGES, chosen
from finr1.settings.evaluate import EvaluateSettings
from finr1.settings.root import RootConfig
from finr1.settings.sampling import Sampling
from tests.helpers.fault_server import Reply, Seen, Server, chat, each, good, serve, solved
from tests.helpers.stages import question, stage_context

N = 12


def size_of(text: str) -> int:
    """What `fault_server.solved` answers."""
    return sum(map(ord, text)) % 1000


class Sizes:
    """Questions whose gold is what the server answers, but for every third."""

    name = "sizes"

    def __init__(self, n: int = N, plus: int = 1) -> None:
        self.n, self.plus = n, plus

    def load(self) -> Sequence[Question]:
        texts = [f"question {i}" for i in range(self.n)]
        return [question(t, str(size_of(t) + (self.plus if i % 3 == 0 else 0))) for i, t in enumerate(texts)]

    def figures(self, outcomes: Sequence[Outcome]) -> dict[str, float]:
        return {}


def settings(server: Server, plus: int = 1, models: Sequence[str] = ("r1",), **more: Any) -> dict[str, Any]:
    keys = ("retries", "max_spend_tokens", "concurrency", "extra_body", "client")
    engine = {k: more.pop(k) for k in keys if k in more}
    node = {
        "_target_": "finr1.parts.engine.http.engine.HttpEngine",
        "model": "m",
        "base_url": server.url,
        "backoff_s": 0.01,
    }
    evaluated = {"sampled": False, "sampling": Sampling(n=2, max_new_tokens=64), "bootstrap_samples": 100, **more}
    return {
        "engine": {name: {**node, "concurrency": 4, "retries": 2, **engine} for name in models},
        "benchmark": {"sizes": {"_target_": f"{__name__}.Sizes", "plus": plus}},
        "evaluate": EvaluateSettings(models=list(models), **evaluated),
    }


def run(run_dir: Path, values: dict[str, Any]) -> dict[str, Any]:
    with stage_context(run_dir, "evaluate", **values) as ctx:
        return {**run_evaluate(ctx), "notes": ctx.notes}


def scores(run_dir: Path, model: str = "r1", mode: str = "greedy") -> dict[str, Any]:
    return benchmarks_of(run_dir / "6_scores")["sizes"]["scores"][model][mode]  # type: ignore[no-any-return]


def rows(run_dir: Path, cell: str = "r1.greedy") -> list[dict[str, Any]]:
    return list(read_jsonl(run_dir / "6_scores" / "sizes" / f"{cell}.jsonl"))


def set_aside(run_dir: Path) -> None:
    """What the pipeline does when a stage's fingerprint has changed."""
    target = run_dir / ".old" / "6_scores.20260101-000000"
    target.parent.mkdir(exist_ok=True)
    (run_dir / "6_scores").rename(target)


def test_a_server_is_scored_beside_others_under_its_roles_name(tmp_path: Path) -> None:
    with serve(good) as server:
        counts = run(tmp_path, settings(server, models=["r1", "v3"], sampled=True))
    assert counts["completions"] == 2 * N * 3 and "failed" not in counts
    assert (scores(tmp_path)["accuracy_strict"], scores(tmp_path)["format"]) == (8 / 12, 1)
    assert scores(tmp_path, "v3", "sampled")["n"] == 24
    table = benchmarks_of(tmp_path / "6_scores")["sizes"]
    assert list(table["paired"]) == ["v3_vs_r1"] and table["paired"]["v3_vs_r1"]["greedy"]["diff"] == 0
    bodies = [seen.body for seen in server.seen]
    assert {body["temperature"] for body in bodies} == {0.0, 1.0} and {body.get("n", 1) for body in bodies} == {1, 2}
    assert bodies[0]["messages"][0]["role"] == "system"


def flaky(seen: Seen) -> Reply:
    """Every question fails at first in one way or another; question 5 always does; question 7 is cut short."""
    if "question 5" in seen.text:
        return Reply(500, b"boom")
    if seen.number < N:
        faults = (Reply(429, b"{}", {"Retry-After": "0"}), Reply(reset=True), Reply(body=b"{broken"), Reply(503, b""))
        return faults[seen.number % 4]
    if "question 7" in seen.text:
        return Reply(body=chat("<think>\nand so on", finish_reason="length"))
    return Reply(body=solved(seen))


@pytest.mark.parametrize("client", list(clients.CLIENTS))
def test_one_failing_request_is_counted_and_undecided_and_ends_nothing(tmp_path: Path, client: str) -> None:
    with serve(flaky) as server:
        counts = run(tmp_path, settings(server, retries=4, client=client))
    found = scores(tmp_path)
    assert counts["failed"] == found["errors"] == 1
    assert "sizes r1 greedy: 1 of 12 calls failed, the first with `HTTP 500: boom (5 attempts)`" in counts["notes"]
    # of 11 decided, question 7 is wrong for want of an answer, and 0, 3, 6, 9 by their gold
    assert (found["n"], found["n_decided_strict"], found["accuracy_strict"]) == (12, 11, 6 / 11)
    assert (found["undecided"], found["truncated"]) == (1 / 12, 1 / 12)
    failed = next(row for row in rows(tmp_path) if row["finish_reason"] == "error")
    assert (failed["strict"], failed["strict_why"]) == (None, "failed call: HTTP 500: boom (5 attempts)")


def test_a_server_that_goes_away_stops_the_stage_and_the_same_command_goes_on(tmp_path: Path) -> None:
    with serve(each(*[good] * 7, Reply(503, b"gone"))) as server:
        values = settings(server, retries=0, concurrency=1)
        values["benchmark"]["sizes"]["n"] = 200
        with pytest.raises(Finr1Error, match=r"engine\.r1=m: the last 128 calls all failed, .* `HTTP 503: gone`"):
            run(tmp_path, values)
    assert len(rows(tmp_path)) == 7  # what failed is asked again
    with serve(good) as server:
        values["engine"]["r1"]["base_url"] = server.url
        run(tmp_path, values)
        assert len(server.seen) == 193
    assert scores(tmp_path)["errors"] == 0
    with serve(each(Reply(503, b"never"))) as server, pytest.raises(Finr1Error, match="the last 12 calls all failed"):
        run(tmp_path / "other", settings(server, retries=0))


def test_a_ceiling_counts_what_was_paid_before(tmp_path: Path) -> None:
    with serve(good) as server:
        with pytest.raises(ConfigError, match=r"engine\.max_spend_tokens=450"):
            run(tmp_path, settings(server, max_spend_tokens=450, concurrency=1))
        first = len(server.seen)
        assert 0 < first < N
        with pytest.raises(ConfigError, match=r"engine\.max_spend_tokens=450"):
            run(tmp_path, settings(server, max_spend_tokens=450, concurrency=1))
        assert len(server.seen) == first
        run(tmp_path, settings(server))
        assert len(server.seen) == N


def test_a_changed_rule_scores_what_is_on_disk_and_asks_no_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(good) as server:
        run(tmp_path, settings(server, sampled=True))
        before = {cell: rows(tmp_path, cell) for cell in ("r1.greedy", "r1.sampled")}
        asked = len(server.seen)
        set_aside(tmp_path)
        # a gold that was wrong is mended: ids of questions change, their chats do not
        counts = run(tmp_path, settings(server, plus=0, sampled=True))
        assert len(server.seen) == asked
        assert counts["rescored"] == 36 and "36 completions of an earlier attempt were rescored" in counts["notes"][0]
        assert scores(tmp_path)["accuracy_strict"] == scores(tmp_path, mode="sampled")["accuracy_strict"] == 1
        for cell, old in before.items():
            now = rows(tmp_path, cell)
            assert paid_rows(now) == paid_rows(old)
        # a rule of grading: nothing is right any more
        set_aside_again = tmp_path / ".old" / "6_scores.20260102-000000"
        (tmp_path / "6_scores").rename(set_aside_again)
        zero = scored.GradedReply("0", Verdict(0.0), Verdict(0.0), parse(render("a", "0")))
        monkeypatch.setattr(scored, "grade_reply", lambda *_: zero)
        run(tmp_path, settings(server, plus=0, sampled=True))
        assert len(server.seen) == asked and scores(tmp_path)["accuracy_strict"] == 0


def paid_rows(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What was paid for, in an order of its own: rows are written as their requests finish."""
    return sorted((r["text"], r["n_tokens"], tuple(r["paid"]), r["sample"]) for r in rows if r["paid"])


@pytest.mark.parametrize(
    ("change", "asked_again"),
    [
        ({"confidence": 0.9}, 0),
        ({"reading": "strict"}, 0),
        ({"concurrency": 2}, 0),
        ({"sampling": Sampling(n=2, max_new_tokens=65)}, N),
        ({"extra_body": {"seed": 3}}, N),
    ],
)
def test_only_what_decides_a_completion_asks_again(tmp_path: Path, change: dict[str, Any], asked_again: int) -> None:
    with serve(good) as server:
        run(tmp_path, settings(server))
        set_aside(tmp_path)
        run(tmp_path, settings(server, **change))
        assert len(server.seen) - N == asked_again


def test_rows_that_were_stored_before_are_read_again_from_their_raw_text(tmp_path: Path) -> None:
    def in_own_words(seen: Seen) -> Reply:
        return Reply(
            body=chat(f"So the answer is {size_of(seen.text)}.", reasoning_content="Is it <answer>1</answer>?")
        )

    with serve(in_own_words) as server:
        run(tmp_path, settings(server, reading="strict"))
        assert scores(tmp_path)["accuracy_strict"] == 0 and rows(tmp_path)[0]["answer"] is None
        set_aside(tmp_path)
        old = tmp_path / ".old" / "6_scores.20260101-000000" / "sizes" / "r1.greedy.jsonl"
        stored = list(read_jsonl(old))
        for i, row in enumerate(stored):  # half as an earlier version wrote them
            if i % 2:
                row["text"] = f"<think>\n{row.pop('reasoning')}\n</think>\n{row['text']}"
                del row["abstains"], row["outcome"]
        write_jsonl(old, stored)
        counts = run(tmp_path, settings(server))
        assert len(server.seen) == counts["rescored"] == N
    assert (scores(tmp_path)["accuracy_strict"], scores(tmp_path)["format"]) == (8 / 12, 0)
    assert Counter(row["outcome"] for row in rows(tmp_path)) == {"right": 8, "wrong": 4}


def test_more_questions_are_asked_and_the_others_kept(tmp_path: Path) -> None:
    with serve(good) as server:
        run(tmp_path, settings(server))
        set_aside(tmp_path)
        values = settings(server)
        values["benchmark"]["sizes"]["n"] = N + 5
        counts = run(tmp_path, values)
        assert len(server.seen) == N + 5 and counts["rescored"] == N
    assert [row["question_id"] for row in rows(tmp_path)]
    assert scores(tmp_path)["n"] == N + 5


def test_reasoning_that_comes_apart_is_the_thinking(tmp_path: Path) -> None:
    def apart(seen: Seen) -> Reply:
        return Reply(body=chat(f"<answer>\n\\boxed{{{size_of(seen.text)}}}\n</answer>", reasoning_content="I count."))

    with serve(apart) as server:
        run(tmp_path, settings(server))
    assert (scores(tmp_path)["format"], scores(tmp_path)["accuracy_strict"]) == (1, 8 / 12)
    assert rows(tmp_path)[0]["text"].startswith("<answer>") and rows(tmp_path)[0]["reasoning"] == "I count."


def test_names_of_models_and_what_they_are_part_of(tmp_path: Path) -> None:
    over = [
        "+experiment=quickstart",
        "stage=evaluate",
        "+engine@engine.r1=http",
        "engine.r1.model=m",
        "evaluate.models=[r1]",
        "name=x",
    ]
    over += [f"paths.runs={tmp_path}"]

    def key(*more: str) -> Any:
        composed = compose.compose([*over, *more])
        values = compose.plain(composed)
        cfg = compose.typed(composed)
        nodes.check_keys(values, RootConfig)
        check.check(cfg, values, chosen("evaluate"))
        return key_of(STAGES["evaluate"], cfg, values, tmp_path / "x")

    plain = key()
    assert plain.settings["engine.r1"]["model"] == "m" and "base_url" not in plain.settings["engine.r1"]
    assert key("engine.r1.base_url=http://127.0.0.1:9/v1").fingerprint == plain.fingerprint
    assert key("engine.r1.model=other").fingerprint != plain.fingerprint
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    local = [f"evaluate.models=[{folder}]", "~engine.r1"]
    before = key(*local).fingerprint
    (folder / "model.safetensors").write_text("new")
    assert key(*local).fingerprint != before
    with pytest.raises(ConfigError, match=r"engine\.r1=\{…\}: no such role of an engine"):
        key("evaluate.models=[base]")
    with (
        pytest.raises(ConfigError, match="the role of an engine, or a folder"),
        stage_context(tmp_path, "evaluate", evaluate=EvaluateSettings(models=["r2"])) as ctx,
    ):
        asking.models_of(ctx)
