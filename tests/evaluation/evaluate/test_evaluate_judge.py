"""Scoring by a judge model behind a real server: what it is asked, what counts, what it costs when something fails."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from finr1.cli import check, compose
from finr1.core.errors import ConfigError, Finr1Error
from finr1.core.jsonl import read_jsonl
from finr1.core.types import Question
from finr1.evaluation.evaluate import by_judge as judging
from finr1.evaluation.evaluate.run import run as run_evaluate
from finr1.evaluation.report.gather import benchmarks_of
from finr1.evaluation.scores.rows import JudgeVerdict
from finr1.parts.benchmark.base import Outcome
from finr1.run.fingerprints import settings_of
from finr1.run.stages import STAGES, chosen
from finr1.settings.evaluate import EvaluateSettings
from finr1.settings.root import JudgeSettings, PathsSettings
from finr1.settings.sampling import Sampling
from tests.helpers.fault_server import Reply, Seen, Server, chat, good, serve
from tests.helpers.stages import question, stage_context

N = 9  # 0, 3, 6: numbers with a wrong gold; 1, 4, 7: numbers with theirs; 2, 5, 8: words, which no rule can compare
ASKED = re.compile(r"Correct Answer: (.*)\nAnswer to be Scored: (.*)\n")


def size_of(text: str) -> int:
    """What `fault_server.solved` answers."""
    return sum(map(ord, text)) % 1000


class Mixed:
    """Numbers, right and wrong, and words."""

    name = "mixed"

    def __init__(self, n: int = N, word: str = "about") -> None:
        self.n, self.word = n, word

    def load(self) -> Sequence[Question]:
        made = []
        for i in range(self.n):
            text = f"question {i}"
            if i % 3 == 2:
                made.append(question(text, f"{self.word} {size_of(text)} shares", kind="text"))
            else:
                made.append(question(text, str(size_of(text) + (i % 3 == 0))))
        return made

    def category(self, asked: Question) -> str:
        return asked.kind

    def figures(self, outcomes: Sequence[Outcome]) -> dict[str, float]:
        return {"right": float(sum(outcome.correct == 1 for outcome in outcomes))}


def pair_of(seen: Seen) -> tuple[str, str]:
    """Gold and answer of a judge's prompt."""
    found = ASKED.search(seen.body["messages"][0]["content"])
    assert found
    return found[1], found[2]


def fair(seen: Seen) -> Reply:
    """Right where the gold holds the very figure."""
    gold, answer = pair_of(seen)
    return Reply(body=chat(f"\\boxed{{{int(answer in gold.split())}}}"))


def run(run_dir: Path, models: Server, judge: Server, word: str = "about", **settings: Any) -> dict[str, Any]:
    """One attempt at the stage; `settings` are those of `evaluate` (and `stop_after`)."""
    node = {"_target_": "finr1.parts.engine.http.engine.HttpEngine", "backoff_s": 0.001, "retries": 0, "concurrency": 1}
    stop_after = settings.pop("stop_after", 128)
    given = {"greedy": True, "sampled": False, "sampling": Sampling(max_new_tokens=64), "bootstrap_samples": 50}
    values = {
        "engine": {
            "r1": {**node, "model": "m", "base_url": models.url, "price_in": 1.0, "price_out": 2.0},
            "judge": {**node, "model": "j", "base_url": judge.url},
        },
        "judge": JudgeSettings(
            {
                "exact": {"_target_": "finr1.parts.judge.exact.Exact"},
                "model": {"_target_": "finr1.parts.judge.answer_llm.AnswerLlm", "retries": 0},
            },
            stop_after_failed_calls=stop_after,
        ),
        "paths": PathsSettings(judge_cache=str(run_dir / "cache.sqlite")),
        "benchmark": {"mixed": {"_target_": f"{__name__}.Mixed", "word": word}},
        "evaluate": EvaluateSettings(models=["r1"], **{**given, **settings}),
    }
    with stage_context(run_dir, "evaluate", **values) as ctx:
        return {**run_evaluate(ctx), "notes": ctx.notes}


def table(run_dir: Path) -> dict[str, Any]:
    return benchmarks_of(run_dir / "6_scores")["mixed"]


def cell(run_dir: Path) -> dict[str, Any]:
    return table(run_dir)["scores"]["r1"]["greedy"]  # type: ignore[no-any-return]


def rows(run_dir: Path) -> list[dict[str, Any]]:
    return list(read_jsonl(run_dir / "6_scores" / "mixed" / "r1.greedy.jsonl"))


def set_aside(run_dir: Path) -> None:
    """What the pipeline does when a stage's fingerprint has changed."""
    old = run_dir / ".old"
    old.mkdir(exist_ok=True)
    (run_dir / "6_scores").rename(old / f"6_scores.2026010{len(list(old.iterdir()))}-000000")


def test_by_rules_no_judge_is_asked_though_one_is_chosen(tmp_path: Path) -> None:
    with serve(good) as models, serve(fair) as judge:
        counts = run(tmp_path, models, judge)
    assert not judge.seen and "judge_asked" not in counts
    found = cell(tmp_path)
    # 1, 4, 7 right; 0, 3, 6 wrong; 2, 5, 8 undecided
    assert (found["accuracy_strict"], found["n_decided_strict"], found["undecided"]) == (0.5, 6, 1 / 3)
    assert table(tmp_path)["headline"] == "accuracy_strict" and "accuracy_judged" not in found and "judge" not in found
    assert (rows(tmp_path)[0]["judged_by"], rows(tmp_path)[0]["judges"]) == ("", [])


def test_llm_asks_about_every_answer_and_the_rules_stand_beside(tmp_path: Path) -> None:
    def lenient(seen: Seen) -> Reply:  # a judge that takes one wrong number for right
        return Reply(body=chat("\\boxed{1}")) if pair_of(seen)[1] == str(size_of("question 3")) else fair(seen)

    with serve(good) as models, serve(lenient) as judge:
        counts = run(tmp_path, models, judge, scorer="llm")
    assert len(judge.seen) == counts["judge_asked"] == N
    found = cell(tmp_path)
    # right: 1, 4, 7 (numbers), 2, 5, 8 (words), and 3, wrongly
    assert found["accuracy_judged"] == 7 / 9 and found["accuracy_strict"] == 0.5 and found["undecided"] == 0
    assert found["intervals"]["accuracy_judged"] == {k: found[k] for k in ("low", "high", "method")}
    assert found["figures"] == {"right": 7} and table(tmp_path)["headline"] == "accuracy_judged"
    rules = found["judge"]["rules"]
    counted = [rules[key] for key in ("n", "both", "only_rules", "only_judge", "neither", "only_one_decided")]
    assert counted == [6, 3, 0, 1, 2, 3]
    # p_o = 5/6, p_e = 3/6 · 4/6 + 3/6 · 2/6 = 1/2, kappa = (5/6 - 1/2) / (1/2)
    assert rules["agreement"] == pytest.approx(5 / 6) and rules["kappa"] == pytest.approx(2 / 3)
    assert {c["category"]: (c["n"], c["value"]) for c in found["categories"]} == {"number": (6, 4 / 6), "text": (3, 1)}
    assert found["judge"]["repeats"]["n"] == 0 and found["judge"]["asked"] == 9
    assert found["cost"]["paid_prompt_tokens"] == 10 * N and found["cost"]["paid_completion_tokens"] == 40 * N
    assert found["cost"]["money"] == pytest.approx((10 * N * 1 + 40 * N * 2) / 1e6)
    third = rows(tmp_path)[3]
    assert (third["strict"], third["judged"], third["judged_by"]) == (0, 1, "llm")
    assert third["judged_why"] == "the judge model says right"
    assert [v["judge"] for v in third["judges"]] == ["model"]


def test_rules_then_llm_asks_only_about_what_rules_leave_open(tmp_path: Path) -> None:
    with serve(good) as models, serve(fair) as judge:
        run(tmp_path, models, judge, scorer="rules_then_llm")
    assert sorted(pair_of(seen)[0].split()[0] for seen in judge.seen) == ["about"] * 3
    found = cell(tmp_path)
    assert (found["accuracy_judged"], found["undecided"], found["judge"]["asked"]) == (6 / 9, 0, 3)
    assert [row["judged_by"] for row in rows(tmp_path)] == ["rules", "rules", "llm"] * 3


def test_scoring_again_asks_the_judge_only_about_what_changed(tmp_path: Path) -> None:
    with serve(good) as models, serve(fair) as judge:
        run(tmp_path, models, judge, scorer="llm")
        before = (cell(tmp_path), rows(tmp_path))
        set_aside(tmp_path)
        run(tmp_path, models, judge, scorer="llm")
        assert len(models.seen) == len(judge.seen) == N, "nothing was asked a second time"
        assert (cell(tmp_path), rows(tmp_path)) == before
        set_aside(tmp_path)
        run(tmp_path, models, judge, scorer="rules_then_llm")
        assert len(models.seen) == len(judge.seen) == N
        set_aside(tmp_path)
        run(tmp_path, models, judge, word="roughly", scorer="llm")  # three golds are worded anew
        assert len(models.seen) == N and len(judge.seen) == N + 3
    assert all("roughly" in pair_of(seen)[0] for seen in judge.seen[N:])


def fickle(votes: Callable[[str, int], str]) -> Callable[[Seen], Reply]:
    """A judge that answers the k-th time about an answer with `votes(answer, k)`."""
    count: Counter[str] = Counter()

    def behave(seen: Seen) -> Reply:
        answer = pair_of(seen)[1]
        count[answer] += 1
        return Reply(body=chat(votes(answer, count[answer])))

    return behave


def test_repeats_are_asked_apart_and_their_agreement_is_counted(tmp_path: Path) -> None:
    names = {str(size_of(f"question {i}")): i for i in range(N)}

    def votes(answer: str, k: int) -> str:
        number = names[answer]
        if number == 2:
            return "\\boxed{0}" if k == 2 else "\\boxed{1}"  # 1 0 1: right by majority
        if number == 5:
            return ["\\boxed{1}", "\\boxed{0}", "hm"][k - 1]  # a tie
        if number == 8:
            return "hm"  # nothing at all
        return "\\boxed{1}"

    with serve(good) as models, serve(fickle(votes)) as judge:
        run(tmp_path, models, judge, scorer="rules_then_llm", judge_repeats=3)
        assert len(judge.seen) == 3 * 3
        set_aside(tmp_path)
        run(tmp_path, models, judge, scorer="rules_then_llm", judge_repeats=3)
        assert len(judge.seen) == 3 * 3, "each repeat has an answer of its own in the cache"
    judged = {i: rows(tmp_path)[i] for i in (2, 5, 8)}
    assert [[v["value"] for v in row["judges"]] for row in judged.values()] == [[1, 0, 1], [1, 0, None], [None] * 3]
    assert [row["judged"] for row in judged.values()] == [1.0, None, None]
    assert judged[2]["judged_why"] == "the judge says right in 2 of 3 repeats"
    assert judged[5]["judged_why"] == "tie: 1 of the judge's verdicts against 1"
    found = cell(tmp_path)["judge"]
    assert (found["asked"], found["undecided"], found["undecided_verdicts"]) == (3, 2, 4)
    # 2: one of three pairs agrees; 5: none of one. Pairs 1/6; ones 3 of 5: chance 0.36 + 0.16 = 0.52
    assert (found["repeats"]["n"], found["repeats"]["unanimous"]) == (2, 0)
    assert found["repeats"]["kappa"] == pytest.approx((1 / 6 - 0.52) / 0.48)
    assert cell(tmp_path)["undecided"] == pytest.approx(2 / 9) and cell(tmp_path)["accuracy_judged"] == 4 / 7


def test_a_failing_judge_request_costs_its_row_the_verdict_and_nothing_else(tmp_path: Path) -> None:
    bad = str(size_of("question 4"))

    def boom(seen: Seen) -> Reply:
        return Reply(500, b"boom") if pair_of(seen)[1] == bad else fair(seen)

    with serve(good) as models, serve(boom) as judge:
        counts = run(tmp_path, models, judge, scorer="llm")
        assert counts["judge_failed"] == 1 and "1 of 9 judge calls failed" in counts["notes"][-1]
    found = cell(tmp_path)
    assert (found["undecided"], found["n_decided_judged"], found["accuracy_judged"]) == (1 / 9, 8, 5 / 8)
    assert rows(tmp_path)[4]["judged_why"].startswith("the judge's call failed: HTTP 500: boom")
    set_aside(tmp_path)
    with serve(good) as models, serve(fair) as judge:
        run(tmp_path, models, judge, scorer="llm")
        assert [pair_of(seen)[1] for seen in judge.seen] == [bad], "a failed call is not kept: it alone is asked again"
        assert cell(tmp_path)["accuracy_judged"] == 6 / 9


def test_a_judge_that_is_gone_stops_the_stage_and_no_completion_is_lost(tmp_path: Path) -> None:
    def leaves(seen: Seen) -> Reply:
        return fair(seen) if seen.number < 4 else Reply(503, b"gone")

    with serve(good) as models:
        with serve(leaves) as judge, pytest.raises(Finr1Error, match="the last 3 calls all failed"):
            run(tmp_path, models, judge, scorer="llm", stop_after=3)
        assert len(rows(tmp_path)) == N
        with serve(fair) as judge:
            run(tmp_path, models, judge, scorer="llm", stop_after=3)
            assert len(judge.seen) == N - 4
        assert len(models.seen) == N
    assert cell(tmp_path)["accuracy_judged"] == 6 / 9


def test_no_answer_is_wrong_and_a_failed_call_is_undecided_without_a_judge(tmp_path: Path) -> None:
    def some(seen: Seen) -> Reply:
        if "question 1" in seen.text:
            return Reply(body=chat("<think>\nand so on", finish_reason="length"))
        return Reply(500, b"boom") if "question 2" in seen.text else good(seen)

    with serve(some) as models, serve(fair) as judge:
        run(tmp_path, models, judge, scorer="llm")
        assert len(judge.seen) == N - 2
    cut, failed = rows(tmp_path)[1:3]
    assert (cut["judged"], cut["judges"]) == (0, []) and (failed["judged"], failed["judges"]) == (None, [])


def test_a_majority_needs_more_than_a_tie() -> None:
    def said(*values: float | None) -> float | None:
        return judging.majority([JudgeVerdict(value, "w", "model") for value in values]).value

    assert [said(1.0), said(1.0, 0.0, 0.0), said(1.0, 0.0), said(None, 1.0), said(None, None)] == [1, 0, None, 1, None]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"scorer": "gpt"}, r"evaluate\.scorer=gpt: no such choice; use one of rules, llm, rules_then_llm"),
        ({"judge_repeats": 0}, r"evaluate\.judge_repeats=0"),
    ],
)
def test_settings_that_cannot_work_are_one_line(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        EvaluateSettings(**settings)


def test_a_missing_judge_is_said_before_anything_starts(tmp_path: Path) -> None:
    base = ["stage=evaluate", "evaluate.scorer=llm", f"paths.runs={tmp_path}"]

    def checked(*more: str) -> tuple[str, ...]:
        composed = compose.compose([*base, *more])
        cfg = compose.typed(composed)
        check.check(cfg, compose.plain(composed), chosen("evaluate"))
        return settings_of(STAGES["evaluate"], cfg)

    with pytest.raises(ConfigError, match=r"evaluate\.scorer=llm: of judge\.answer=\[exact\] none asks a model"):
        checked()
    with pytest.raises(ConfigError, match=r"engine\.judge=null: judge\.answer\.answer_llm asks a model"):
        checked("judge@judge.answer=[answer_llm]")
    keys = checked("judge@judge.answer=[answer_llm]", "engine@engine.judge=qwen2_5_72b")
    assert {"judge.answer", "engine.judge"} <= set(keys)
    keys = checked("judge@judge.answer=[answer_llm]", "evaluate.scorer=rules")
    assert not {"judge.answer", "engine.judge"} & set(keys), "a judge that is not asked makes nothing stale"
