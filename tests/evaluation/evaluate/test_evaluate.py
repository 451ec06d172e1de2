"""The evaluation: figures by hand, None never averaged, rows on disk at once, resume at the first missing question."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from finr1.answer.tags import render
from finr1.core.errors import ConfigError
from finr1.core.jsonl import read_jsonl
from finr1.core.tracking import Tracker, read_metrics
from finr1.core.types import Completion, Question
from finr1.evaluation.evaluate import completions as asking
from finr1.evaluation.evaluate.run import run as run_evaluate
from finr1.evaluation.report.gather import benchmarks_of
from finr1.parts.benchmark.base import Outcome
from finr1.parts.engine.base import OnDone, Request
from finr1.run.context import Context
from finr1.settings.evaluate import EvaluateSettings
from finr1.settings.root import RootConfig
from finr1.settings.sampling import Sampling

N = 10


def question(number: int) -> Question:
    message = {"role": "user", "content": f"What is {number} plus {number}?"}
    return Question("unit", f"doc{number}", "en", "reasoning business", "number", [message], str(2 * number))  # type: ignore[list-item]


class Sums:
    """A benchmark of `n` sums; its figure counts what it was shown."""

    name = "sums"

    def __init__(self, n: int = N) -> None:
        self.n = n

    def load(self) -> Sequence[Question]:
        return [question(number) for number in range(1, self.n + 1)]

    def figures(self, outcomes: Sequence[Outcome]) -> dict[str, float]:
        return {"seen": float(len(outcomes)), "right": float(sum(o.correct == 1 for o in outcomes))}


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class ScriptedPolicy:
    """A policy engine whose answers depend on the folder loaded: base never keeps the form, sft is right on every even
    question, grpo on every question but one. `die_after` kills it after that many requests."""

    name = "scripted"
    weights_version = ""
    weight_names: frozenset[str] = frozenset()

    def __init__(self, die_after: int | None = None) -> None:
        self.die_after, self.asked, self.loaded = die_after, Counter[tuple[str, float]](), list[str]()
        self.folder = ""

    def start(self) -> None:
        pass

    def load_folder(self, folder: Path) -> None:
        if self.folder != folder.parent.name:
            self.folder = folder.parent.name
            self.loaded.append(self.folder)

    def load_weights(self, weights: Any, version: str) -> None:
        raise AssertionError("evaluation loads folders")

    def logprobs_of(self, token_ids: Sequence[int]) -> list[float]:
        raise AssertionError("evaluation samples")

    def sleep(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, on_done: OnDone | None = None
    ) -> list[list[Completion]]:
        out = []
        for index in reversed(range(len(requests))):  # out of order, as a real engine finishes
            if self.die_after is not None and sum(self.asked.values()) >= self.die_after:
                raise Killed
            self.asked[self.folder, sampling.temperature] += 1
            completions = [self.answer(requests[index].question, s) for s in range(sampling.n)]
            assert on_done is not None
            on_done(index, completions)
            out.append(completions)
        return out[::-1]

    def answer(self, asked: Question, sample: int) -> Completion:
        number = int(asked.gold or 0) // 2
        right = number % 2 == 0 if self.folder == "4_sft" else number > 1 or sample == 1
        if self.folder == "base":
            return Completion(f"It is {2 * number}", "length", token_ids=range(20))
        given = 2 * number if right else 2 * number + 1
        return Completion(render("Add them.", rf"\boxed{{{given}}}"), token_ids=range(10 + sample))


class OnePolicy:
    """Stands for `Engines`."""

    def __init__(self, engine: ScriptedPolicy) -> None:
        self.engine = engine

    def policy(self) -> ScriptedPolicy:
        return self.engine


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A context on a run folder that has the three models."""
    for name in ("base", "4_sft", "5_grpo"):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "config.json").write_text("{}")
    monkeypatch.setattr(asking, "resolve", lambda model: tmp_path / "base" / "model")

    def context(engine: ScriptedPolicy, folder: str = "6_scores", **settings: Any) -> Context:
        cfg = RootConfig(stage="evaluate")
        cfg.evaluate = EvaluateSettings(**{"bootstrap_samples": 200, **settings})
        cfg.benchmark = {"sums": {"_target_": f"{__name__}.Sums"}}
        inputs = {"sft": tmp_path / "4_sft", "grpo": tmp_path / "5_grpo"}
        (tmp_path / folder).mkdir(exist_ok=True)
        return Context(cfg, tmp_path, "evaluate", tmp_path / folder, inputs, Tracker(tmp_path), OnePolicy(engine))  # type: ignore[arg-type]

    return context


def test_scores_are_those_of_the_script(make: Any) -> None:
    engine = ScriptedPolicy()
    ctx = make(engine)
    counts = run_evaluate(ctx)
    table = benchmarks_of(ctx.folder)["sums"]
    scores = table["scores"]

    assert engine.loaded == ["base", "4_sft", "5_grpo"]  # once a model
    assert counts == {"models": 3, "questions": {"sums": N}, "completions": 3 * N * 5, "tokens": counts["tokens"]}
    base, sft, grpo = (scores[m]["greedy"] for m in ("base", "sft", "grpo"))
    assert (base["format"], base["truncated"], base["accuracy_strict"], base["mean_tokens"]) == (0, 1, 0, 20)
    assert (sft["format"], sft["accuracy_strict"], sft["accuracy_scaled"], sft["n"]) == (1, 0.5, 0.5, N)
    assert (sft["low"], sft["high"]) == pytest.approx((0.2366, 0.7634), abs=1e-4)  # Wilson, 5 of 10
    assert (grpo["accuracy_strict"], grpo["undecided"], grpo["method"]) == (0.9, 0, "wilson")
    assert grpo["figures"] == {"seen": 10, "right": 9}
    sampled = scores["grpo"]["sampled"]
    assert (sampled["n"], sampled["n_questions"], sampled["accuracy_strict"]) == (40, 10, 37 / 40)
    assert sampled["low"] < 37 / 40 < sampled["high"] and "effective n" in sampled["method"]
    assert sampled["mean_tokens"] == pytest.approx(11.5)
    # all four are right but on question 1, where one is: mean 37/40, and maj: 3 takes the vote
    assert {k: round(v["value"], 6) for k, v in sampled["at_k"].items()} == {
        "mean@4": 0.925,
        "pass@1": 0.925,
        "pass@2": (9 + 1 / 2) / 10,
        "pass@4": 1.0,
        "maj@4": 0.9,
    }
    assert "figures" not in sampled

    greedy = table["paired"]["grpo_vs_sft"]["greedy"]
    assert (greedy["improved"], greedy["worsened"], greedy["diff"]) == (4, 0, pytest.approx(0.4))
    assert greedy["p"] == pytest.approx(2 / 16)
    assert table["paired"]["sft_vs_base"]["greedy"]["format"]["diff"] == 1
    assert table["paired"]["grpo_vs_sft"]["sampled"]["diff"] == pytest.approx((4 + 0.25) / 10)
    metrics = dict(read_metrics(ctx.run_dir, "evaluate"))[0]
    assert metrics["sums/sft/greedy/accuracy_strict"] == 0.5
    assert metrics["sums/grpo/greedy/right"] == 9


def test_without_greedy_the_benchmarks_figures_are_those_of_all_samples(make: Any) -> None:
    ctx = make(ScriptedPolicy(), models=["grpo"], greedy=False)
    run_evaluate(ctx)
    modes = benchmarks_of(ctx.folder)["sums"]["scores"]["grpo"]
    assert list(modes) == ["sampled"] and modes["sampled"]["figures"] == {"seen": 4 * N, "right": 37}


def test_one_model_can_be_sampled_less_often(make: Any) -> None:
    engine = ScriptedPolicy()
    ctx = make(engine, models=["sft", "grpo"], samples={"grpo": 1})
    run_evaluate(ctx)
    table = benchmarks_of(ctx.folder)["sums"]
    sft, grpo = (table["scores"][model]["sampled"] for model in ("sft", "grpo"))
    assert (sft["n"], sft["n_questions"], grpo["n"], grpo["n_questions"]) == (4 * N, N, N, N)
    assert (grpo["accuracy_strict"], grpo["method"]) == (0.9, "wilson")  # one sample: all but the first question
    paired = table["paired"]["grpo_vs_sft"]["sampled"]
    # Means of a question: sft 1 on the five even ones; grpo 1 on all but the first. They differ on 3, 5, 7, 9.
    assert (paired["diff"], paired["improved"], paired["worsened"], paired["n"]) == (pytest.approx(0.4), 4, 0, N)
    assert "sign-flip" in paired["method"] and paired["p"] == pytest.approx(2 / 16, abs=0.08)
    again = ScriptedPolicy(die_after=0)  # all is on disk, whatever each model's number of samples
    run_evaluate(make(again, models=["sft", "grpo"], samples={"grpo": 1}))
    assert not again.loaded
    # a model the run could have may stand there: `evaluate.models=[sft]` beside the experiment's `base: 1`
    assert asking.models_of(make(engine, models=["sft"], samples={"base": 1}))
    with pytest.raises(ConfigError, match=r"evaluate\.samples\.bse=1: no such model; name one of sft"):
        asking.models_of(make(engine, models=["sft"], samples={"bse": 1}))


def test_a_killed_evaluation_asks_only_what_is_missing(make: Any) -> None:
    whole = make(ScriptedPolicy(), folder="whole")
    run_evaluate(whole)

    first = ScriptedPolicy(die_after=2 * N + N // 2)  # base is done, sft greedy half
    with pytest.raises(Killed):
        run_evaluate(make(first))
    ctx = make(second := ScriptedPolicy())
    path = ctx.folder / "sums" / "sft.greedy.jsonl"
    assert len(list(read_jsonl(path))) == N // 2  # all that was finished is on disk
    with path.open("a") as file:
        file.write('{"question_id": "torn')
    run_evaluate(ctx)

    assert "base" not in second.loaded
    assert second.asked["4_sft", 0.0] == N // 2
    assert sum(first.asked.values()) + sum(second.asked.values()) == 6 * N
    for name in ("scores.json", "paired.json", "sums/questions.jsonl"):
        assert (ctx.folder / name).read_text() == (whole.folder / name).read_text()


def test_a_question_that_lacks_a_sample_is_asked_again(make: Any) -> None:
    ctx = make(ScriptedPolicy())
    run_evaluate(ctx)
    path = ctx.folder / "sums" / "grpo.sampled.jsonl"
    before = path.read_text()
    path.write_text("".join(before.splitlines(keepends=True)[:-1]))
    again = ScriptedPolicy()
    run_evaluate(make(again))
    assert again.asked == {("5_grpo", 1.0): 1}
    assert sorted(path.read_text().splitlines()) == sorted(before.splitlines())


def test_a_finished_evaluation_builds_no_engine(make: Any) -> None:
    run_evaluate(make(ScriptedPolicy()))
    ctx = make(ScriptedPolicy())
    ctx.engines = None
    assert run_evaluate(ctx)["completions"] == 3 * N * 5


def test_rows_hold_what_the_report_shows(make: Any) -> None:
    ctx = make(ScriptedPolicy(), models=["sft"], sampled=False)
    run_evaluate(ctx)
    rows = {r["question_id"]: r for r in read_jsonl(ctx.folder / "sums" / "sft.greedy.jsonl")}
    wrong = rows[question(3).id]
    assert (wrong["answer"], wrong["strict"], wrong["finish_reason"], wrong["n_tokens"]) == (
        "7",
        0,
        "stop",
        10,
    )
    saved = [Question.from_json(r) for r in read_jsonl(ctx.folder / "sums" / "questions.jsonl")]
    assert [q.id for q in saved] == [question(n).id for n in range(1, N + 1)]
    assert not (ctx.folder / "sums" / "sft.sampled.jsonl").exists()
    json.dumps(wrong, allow_nan=False)


def test_a_missing_model_is_one_clear_line(make: Any, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"evaluate.models=.*none: no model in .*; use base, sft, grpo, the role",
    ):
        run_evaluate(make(ScriptedPolicy(), models=[str(tmp_path / "none")]))
    ctx = make(ScriptedPolicy(), models=["grpo"])
    (tmp_path / "5_grpo" / "model" / "config.json").unlink()
    with pytest.raises(ConfigError, match="run stage=grpo first"):
        run_evaluate(ctx)
    ctx.inputs = {}
    with pytest.raises(ConfigError, match="run stage=grpo first"):
        run_evaluate(ctx)


def test_a_folder_can_be_scored_beside_the_run(make: Any, tmp_path: Path) -> None:
    ctx = make(ScriptedPolicy(), models=["sft", str(tmp_path / "5_grpo" / "model")], sampled=False)
    run_evaluate(ctx)
    table = benchmarks_of(ctx.folder)["sums"]
    label = f"{tmp_path.name}.5_grpo"
    assert table["scores"][label]["greedy"]["accuracy_strict"] == 0.9
    assert list(table["paired"]) == [f"{label}_vs_sft"]
    with pytest.raises(ConfigError, match="two models have the label sft"):
        asking.models_of(make(ScriptedPolicy(), models=["sft", "sft"]))


@pytest.mark.parametrize(
    "settings",
    [
        {"models": []},
        {"greedy": False, "sampled": False},
        {"confidence": 1.0},
        {"bootstrap_samples": 0},
        {"samples": {"base": 0}},
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^evaluate\.[\w.]+="):
        EvaluateSettings(**settings)


def test_both_modes_have_the_same_length_limit() -> None:
    settings = EvaluateSettings(sampling=Sampling(n=4, temperature=0.6, top_p=0.95, max_new_tokens=77))
    greedy, sampled = settings.modes().values()
    assert (greedy.n, greedy.temperature, greedy.top_p, greedy.max_new_tokens) == (1, 0.0, 1.0, 77)
    assert (sampled.n, sampled.temperature, sampled.top_p, sampled.max_new_tokens) == (4, 0.6, 0.95, 77)
