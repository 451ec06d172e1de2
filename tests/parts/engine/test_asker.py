"""The asker: each result once, failed calls held back until a later success, one stop rule; and its ledger."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from finr1.core.errors import Finr1Error
from finr1.core.types import Completion
from finr1.parts.engine.asker import Asker
from finr1.parts.engine.base import OnDone, Request
from finr1.parts.engine.ledger import GUESS, Account, Call, Ledger, Tokens
from finr1.settings.sampling import Sampling
from tests.helpers import runner
from tests.helpers.stages import question

ONE, TWO = Sampling(n=1), Sampling(n=2, temperature=1.0)


class Reports:
    """An engine that reports every result twice, and fails where the prompt has "fail" (n texts: one per sample)."""

    name = "reports"

    def __init__(self, on_done: bool = True) -> None:
        self.on_done, self.batches = on_done, list[int]()

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: OnDone | None = None
    ) -> list[list[Completion]]:
        self.batches.append(len(requests))
        results = []
        for index, request in enumerate(requests):
            text = request.messages[-1]["content"]
            one = Completion("", "error", error=text) if "fail" in text else Completion(text)
            results.append([one] * sampling.n)
            if on_done and self.on_done:
                on_done(index, results[-1])
        return results

    def close(self) -> None: ...


def ask(asker: Asker, *texts: str, sampling: Sampling = ONE, kept: list[int] | None = None) -> list[int]:
    """The indices that were kept, in their order."""
    found = kept if kept is not None else []
    requests = (Request([{"role": "user", "content": text}], question(text)) for text in texts)
    asker.ask(requests, sampling, lambda index, completions: found.append(index))
    return found


@pytest.mark.parametrize("on_done", [True, False])
def test_each_result_is_kept_once_whether_the_engine_reports_it_or_not(on_done: bool) -> None:
    engine = Reports(on_done)
    assert ask(Asker("r", engine, chunk=2), "a", "b", "c", sampling=TWO) == [0, 1, 2]
    assert engine.batches == [2, 1]
    engine.batches.clear()
    assert ask(Asker("r", engine), "a", "b", "c") == [0, 1, 2] and engine.batches == [3]


def test_failed_calls_wait_for_a_success_or_the_end() -> None:
    asker = Asker("r", Reports(), stop_after=4)
    kept = ask(asker, "fail 0", "fail 1", "good", "fail 3", "fail 4", "fail 5")
    assert kept == [0, 1, 2] and asker.failures == 3
    asker.finish()
    assert kept == [0, 1, 2, 3, 4, 5]
    assert asker.ledger.account == Account(asked=6, failed=5)


def test_it_stops_at_a_row_of_failures_and_keeps_none_of_them() -> None:
    asker, kept = Asker("teacher", Reports(), stop_after=3), list[int]()
    words = r"engine.teacher=reports: the last 3 calls all failed, the first with `fail 1`, the last with `fail 3`; fix"
    with pytest.raises(Finr1Error, match=words):
        ask(asker, "good", "fail 1", "fail 2", "fail 3", "good", kept=kept)
    assert kept == [0]


@pytest.mark.parametrize("worked", [True, False])
def test_an_engine_that_never_worked_stops_at_the_end(worked: bool) -> None:
    asker = Asker("r", Reports(), stop_after=0, worked=worked)
    kept = ask(asker, "fail 0", "fail 1")
    if worked:
        asker.finish()
        assert kept == [0, 1]
    else:
        with pytest.raises(Finr1Error, match=r"engine.r=reports: the last 2 calls all failed"):
            asker.finish()
        assert kept == []


def test_a_wrong_number_of_completions_is_a_mistake_of_the_engine() -> None:
    class Short(Reports):
        def generate(self, requests: Sequence[Request], *_: object) -> list[list[Completion]]:
            return [[Completion("a")] for _ in requests]

    with pytest.raises(RuntimeError, match="reports: 1 completions for 2 samples"):
        ask(Asker("r", Short()), "a", sampling=TWO)


CALL = Call(answers=1, prompt=10, longest=100)


def test_ledger_worked_by_hand(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "stage" / "calls.teacher.jsonl")
    ledger.send(CALL)
    assert ledger.account.paid == (0, 0), "in flight: reserved by its sender"
    assert Ledger(ledger.path).account.paid == (10, GUESS * 100), "after a kill: perhaps charged"
    assert ledger.lost(CALL) == (10, 50)
    ledger.send(CALL)
    assert ledger.answered(CALL, Tokens(20, 30), 1) == (20, 30)
    # The mean is known now: a prompt costs twice its estimate, an answer 30.
    assert ledger.account.at_most == (40, 30 + 100), "one answer says little of the length"
    assert ledger.account.paid == (20 + 20, 30 + 30) and ledger.account.expected(Call(2, 5, 999)) == (10, 60)
    ledger.send(CALL)
    assert ledger.refused(CALL) == (0, 0)
    again = Ledger(ledger.path)
    assert again.account == ledger.account and again.account.counts == {
        "paid_prompt_tokens": 40,
        "paid_completion_tokens": 60,
    }
    assert Ledger(tmp_path / "none").account.counts == {}


def test_what_a_ceiling_reserves_for_lost_answers() -> None:
    account = Account(lost=4, lost_estimated=40, lost_longest=400)
    assert account.paid == (40, 200) and account.at_most == (40, 400)
    account.add({"calls": 64, "answers": 64, "estimated": 640, "prompt": 640, "completion": 64 * 30})
    account.add({"squares": 32 * 20**2 + 32 * 40**2})  # half the answers have 20 tokens, half 40
    assert account.paid == (680, 68 * 30)
    # the variance is 10² + 100² / 12 / 64 = 113; three standard errors of four answers: 3 √(113 · 4 · 68 / 64)
    assert account.at_most == (680, 68 * 30 + 66)
    assert Account(prompt=5, completion=7).at_most == (5, 7)


def test_a_torn_line_is_removed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "calls.jsonl")
    ledger.asked(failed=True)
    with (tmp_path / "calls.jsonl").open("a") as file:
        file.write('{"asked": 1, "fai')
    again = Ledger(ledger.path)
    again.asked(failed=False)
    assert Ledger(ledger.path).account == Account(asked=2, failed=1)


WRITER = """
import sys
from pathlib import Path
from finr1.parts.engine.ledger import Call, Ledger, Tokens
ledger = Ledger(Path(sys.argv[1]))
for _ in range(200):
    call = Call(1, 10, 100)
    ledger.send(call)
    ledger.answered(call, Tokens(20, 30), 1)
"""


def test_processes_share_one_ledger(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "calls.jsonl")]
    processes = [subprocess.Popen(command, env=runner.environment()) for _ in range(3)]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    account = Ledger(tmp_path / "calls.jsonl").account
    assert account.paid == (600 * 20, 600 * 30) and (account.answers, account.lost) == (600, 0)
