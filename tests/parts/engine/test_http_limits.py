"""The http engine's limits: requests and tokens per minute, and spend ceilings in tokens and money."""

from __future__ import annotations

import pytest

from finr1.core.errors import ConfigError
from finr1.parts.engine.http.limits import Budget, Pace
from finr1.parts.engine.ledger import Call, Tokens
from tests.helpers.fault_server import Reply, chat, each, good, serve
from tests.helpers.http_asking import ONE, ask, engine, requests


def test_requests_per_minute() -> None:
    results, server = ask(good, n=21, requests_per_minute=1800)  # one per 33 ms
    times = [seen.at for seen in server.seen]
    assert len(results) == 21 and times[-1] - times[0] >= 0.5  # 20 / 30, less what a busy machine delays the first
    for start in times:
        assert sum(start <= at < start + 0.3 for at in times) <= 11  # nine per 0.3 s, plus clock jitter


def test_tokens_per_minute() -> None:
    # 160 tokens per second; an answer takes 10 + 10, but the estimate is 18 from its text, and 64 at first.
    _, server = ask(each(Reply(body=chat(usage=(10, 10)))), n=13, tokens_per_minute=9600, concurrency=1)
    times = [seen.at for seen in server.seen]
    assert 0.125 * 12 - 0.1 <= times[-1] - times[0] < 0.125 * 12 + 1.0


def test_pace_worked_by_hand() -> None:
    now = [100.0]
    pace = Pace(60, None, clock=lambda: now[0])
    assert [pace.take(5) for _ in range(3)] == [0.0, 1.0, 2.0]
    now[0] = 110.0
    assert [pace.take(5) for _ in range(2)] == [0.0, 1.0]  # unused capacity is not saved
    pace.hold(30.0)
    assert pace.held and [pace.take(5) for _ in range(2)] == [30.0, 31.0]
    now[0] = 140.0
    assert not pace.held
    pace = Pace(None, 60, clock=lambda: now[0])
    assert pace.take(30) == 0.0
    pace.correct(-10)  # 30 were estimated, 20 used
    assert pace.take(10) == 20.0
    assert Pace(clock=lambda: now[0]).take(10**9) == 0.0


@pytest.mark.parametrize("concurrency", [1, 64])
def test_a_token_ceiling_is_never_exceeded_and_stops_cleanly(concurrency: int) -> None:
    kept: list[int] = []
    with serve(each(Reply(body=chat(usage=(20, 60)), delay_s=0.01))) as server:
        http = engine(server, max_spend_tokens=1000, concurrency=concurrency)
        words = (
            r"engine.max_spend_tokens=1000: [89]\d\d tokens are spent, and the next question may take 10\d more; comp"
        )
        with pytest.raises(ConfigError, match=words):
            http.stream(requests(100), ONE, lambda index, completions: kept.append(index))
    # A question takes at most 11 + 32 bytes and 64 tokens, so the last one starts with at most 894 spent: 80 each.
    assert len(kept) == len(server.seen) == sum(http.ledger.account.paid) / 80 == 12


def test_a_money_ceiling_includes_earlier_cost() -> None:
    settings = {"max_spend_money": 1.0, "price_in": 1000.0, "price_out": 5000.0}
    with serve(each(Reply(body=chat(usage=(20, 20))))) as server:
        http = engine(server, **settings)  # 0.02 + 0.1 per question, 0.362 at worst
        with pytest.raises(ConfigError, match=r"max_spend_money=1.0: 240 tokens \(0.7200\) are spent"):
            http.generate(requests(100), ONE)
        http = engine(server, **settings)
        http.ledger.account.completion += 130  # 0.65
        with pytest.raises(ConfigError, match=r"130 tokens \(0.6500\) are spent"):
            http.generate(requests(100), ONE)
    assert len(server.seen) == 6


def test_lost_answers_are_charged_at_the_average_cost() -> None:
    cut = Reply(body=chat("x"), cut_at=20)
    results, _ = ask(each(Reply(body=chat(usage=(30, 50))), cut, Reply(body=chat("fine"))), n=2, concurrency=1)
    # the lost one had a prompt like the first, which was estimated at 11 tokens and cost 30
    assert [one[0].meta["paid"] for one in results] == [[30, 50], [30 + 10, 50 + 5]]


def test_budget_worked_by_hand() -> None:
    budget = Budget(max_tokens=100)
    assert budget.reserve("a", Tokens(10, 40)) and budget.reserve("b", Tokens(10, 40))
    assert not budget.reserve("c", Tokens(0, 1)) and not budget.idle
    budget.release("a")
    budget.ledger.answered(Call(1, 10, 40), Tokens(10, 5), 1)
    assert not budget.reserve("c", Tokens(10, 40))  # 15 paid, 50 reserved
    assert budget.reserve("c", Tokens(5, 30)) and not budget.reserve("b", Tokens(10, 41))  # in place of its 50
    assert budget.reserve("b", Tokens(10, 40))
    budget.release("b"), budget.release("c")
    assert budget.idle
