"""Distil from a server that loses answers: the ledger says what the server bills, and a ceiling holds over restarts."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from finr1.core.errors import ConfigError, Finr1Error
from finr1.data.distil.run import run
from finr1.parts.engine.ledger import Ledger
from tests.data.distil.test_distil_http import distil, questions, rows, settings
from tests.helpers.fault_server import Behave, Reply, Seen, chat, each, good, serve
from tests.helpers.runner import REPO
from tests.helpers.stages import stage_context

LEDGER = Path("2_traces") / "calls.teacher.jsonl"


class Bills:
    """A server's behaviour that bills every answer, also those that `lost` makes of it."""

    def __init__(self, lost: Behave) -> None:
        self.lost, self.prompt, self.completion = lost, 0, 0

    def __call__(self, seen: Seen) -> Reply:
        prompt, completion = len(seen.text) // 2, 36 + 7 * sum(map(ord, seen.text)) % 9
        self.prompt, self.completion = self.prompt + prompt, self.completion + completion
        reply = self.lost(seen)
        if reply.status == 200 and not reply.body:
            reply.body = chat("\\boxed{1}", usage=(prompt, completion))
        return reply

    @property
    def tokens(self) -> int:
        return self.prompt + self.completion


def paid(run_dir: Path) -> int:
    return sum(Ledger(run_dir / LEDGER).account.paid)


def test_a_server_that_loses_all_answers_is_not_paid_anew_at_each_restart(tmp_path: Path) -> None:
    bills = Bills(lambda seen: Reply(cut_at=40 if seen.number >= 12 else None))
    questions(tmp_path, 200)
    ends: list[str] = []
    with serve(bills) as server:
        for attempt in range(1, 5):
            with pytest.raises(Finr1Error) as caught:
                distil(tmp_path, settings(server, retries=1, max_spend_tokens=3000, concurrency=4))
            ends.append(str(caught.value))
            cancelled = (
                attempt * 3 * 75
            )  # tokens of the calls in flight at each stop, which the server may not have seen
            assert bills.tokens <= 3000 and 0.98 * bills.tokens <= paid(tmp_path) <= 1.02 * bills.tokens + cancelled
    assert "the last 8 calls all failed" in ends[0] and ends[0].startswith("engine.teacher=m")
    assert ends[-1].startswith("engine.max_spend_tokens=3000: ") and bills.tokens > 0.7 * 3000
    assert len(rows(tmp_path)) == 12


@pytest.mark.parametrize("client", ["openai", "requests"])
def test_what_is_billed_and_what_is_said_agree(tmp_path: Path, client: str) -> None:
    rng = random.Random(1)

    def lost(seen: Seen) -> Reply:
        """A third of the answers is lost in one way or another, from the first wave on."""
        ways = [Reply(cut_at=40), Reply(reset=True), Reply(504), Reply(body=b"{broken")]
        return rng.choice(ways) if rng.random() < 0.33 else Reply()

    bills = Bills(lost)
    questions(tmp_path, 250)
    with serve(bills) as server:
        for ceiling in (4000, 9000, 14000):
            with pytest.raises(ConfigError, match=f"max_spend_tokens={ceiling}"):
                distil(tmp_path, settings(server, max_spend_tokens=ceiling, retries=8, client=client))
            assert bills.tokens <= ceiling and abs(paid(tmp_path) - bills.tokens) <= 0.02 * bills.tokens
        counts = distil(tmp_path, settings(server, retries=8, client=client))
    said = counts["paid_prompt_tokens"] + counts["paid_completion_tokens"]
    assert counts["failed"] == 0 and said == paid(tmp_path)
    assert abs(said - bills.tokens) <= 0.02 * bills.tokens
    of_rows = sum(sum(row["meta"]["paid"]) for row in rows(tmp_path))
    assert abs(of_rows - said) <= 0.03 * said, "the rows say the same, but for what they did not know yet"


KILLED = """
import sys
from pathlib import Path
from types import SimpleNamespace
from tests.data.distil.test_distil_http import distil, settings
distil(Path(sys.argv[1]), settings(SimpleNamespace(url=sys.argv[2]), concurrency=8))
"""


def test_what_was_in_flight_at_a_kill_is_counted(tmp_path: Path) -> None:
    bills = Bills(lambda seen: Reply(delay_s=0.0 if seen.number < 16 else 30.0))
    questions(tmp_path, 100)
    with serve(bills) as server:
        command = [sys.executable, "-c", KILLED, str(tmp_path), server.url]
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(REPO)})
        deadline = time.monotonic() + 120
        while len(server.seen) < 24 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
        assert process.wait(60) == -signal.SIGKILL and len(server.seen) == 24 and len(rows(tmp_path)) == 16
    account = Ledger(tmp_path / LEDGER).account
    assert (account.answers, account.lost) == (16, 8) and account.paid.prompt == pytest.approx(bills.prompt, rel=0.02)
    assert account.paid.completion == pytest.approx(bills.completion, rel=0.1)  # the mean of 16, for 8 others


def test_failed_calls_are_asked_again_when_wanted(tmp_path: Path) -> None:
    made = questions(tmp_path, 10)
    quota = Reply(429, b"quota", headers={"Retry-After": "86400"})
    with serve(lambda seen: quota if "question 3" in seen.text or "question 7" in seen.text else good(seen)) as server:
        with stage_context(tmp_path, "distil", **settings(server)) as ctx:
            assert run(ctx)["failed"] == 2
        words = "2 of 10 answers failed, the first with `the server asks to wait 86400 s; HTTP 429: quota`; the same "
        assert ctx.notes == [words + "command with distil.retry_failed=true asks for them again"]
        assert distil(tmp_path, settings(server))["failed"] == 2 and len(server.seen) == 10
    values = settings(server)
    values["distil"].retry_failed = True
    with serve(good) as server:
        values["engine"]["teacher"]["base_url"] = server.url
        assert distil(tmp_path, values)["failed"] == 0
        assert sorted(seen.text.split("\n")[0] for seen in server.seen) == ["question 3", "question 7"]
    assert [row["question_id"] for row in rows(tmp_path)] == [question.id for question in made]


def test_a_partly_answered_question_at_the_ceiling_keeps_what_is_paid(tmp_path: Path) -> None:
    questions(tmp_path, 1)
    one_at_a_time: dict[str, Any] = {"n_in_one_request": False, "n": 3, "retries": 2}
    cut = Reply(body=chat("x"), cut_at=20)
    # three answers take at most 3 · (32 + 58 bytes + 64 tokens); the lost ones make the rest too much
    with (
        serve(each(Reply(body=chat("\\boxed{1}", usage=(30, 64))), cut)) as server,
        pytest.raises(ConfigError, match="max_spend_tokens=500"),
    ):
        distil(tmp_path, settings(server, max_spend_tokens=500, **one_at_a_time))
    assert [row["error"] for row in rows(tmp_path)] == ["", *["the spend ceiling was reached"] * 2]
