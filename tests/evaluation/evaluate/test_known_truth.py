"""An evaluation of replies whose truth is known: some in the model's own words, some refusing, some cut off."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from finr1.answer.tags import render
from finr1.core.jsonl import read_jsonl
from finr1.core.types import Question
from finr1.evaluation.evaluate.run import run as run_evaluate
from finr1.evaluation.report.gather import benchmarks_of
from finr1.parts.benchmark.base import Outcome
from finr1.parts.source.worked.source import Worked
from finr1.settings.evaluate import EvaluateSettings
from finr1.settings.root import JudgeSettings
from finr1.settings.sampling import Sampling
from tests.helpers.fault_server import Reply, Seen, Server, chat, serve
from tests.helpers.stages import stage_context

pytestmark = pytest.mark.slow
N = 400
REFUSALS = {
    "en": (
        "I'm sorry, but I can't answer that.",
        "There is not enough information to tell.",
        "<answer>unknown</answer>",
    ),
    "zh": ("抱歉，我无法回答这个问题。", "信息不足，无法判断。", "<think>难。</think>\n无法确定"),
}
OWN_WORDS = {
    "en": (
        "**Answer: {}**",
        "Final answer: {}",
        "{}",
        "Look at the two figures of 2019.\n\nTherefore, the answer is {}.",
        "### Final Answer\n\n**{}**\n\nLet me know if you need anything else!",
        "The question asks for one thing only.\nSo it is {}.",
    ),
    "zh": ("答案是{}。", "{}", "先看2019年的数据。\n\n因此，答案为{}。", "**答案：{}**", "最终答案：\n\n{}"),
}


class Held:
    """Questions of the generated source."""

    name = "held"

    def load(self) -> Sequence[Question]:
        made = Worked(n_train=1, n_test=N, difficulty=2, chinese_share=0.3).load()
        return [question for question in made if question.split == "test"]

    def figures(self, outcomes: Sequence[Outcome]) -> dict[str, float]:
        return {}


def wrong(question: Question) -> str:
    """An answer that is not the gold: another first digit, another option or label, no for yes."""
    gold = str(question.gold)
    if question.kind == "number":
        return re.sub("[1-9]", lambda digit: str(int(digit[0]) % 9 + 1), gold, count=1)
    others = question.choices or ({"yes": "", "no": ""} if question.language == "en" else {"是": "", "否": ""})
    return next(key for key in others if key != gold)


class Model:
    """Of twenty replies one refuses, one is cut off, two are in the model's own words; six of ten others are right."""

    def __init__(self) -> None:
        self.questions = list(Held().load())
        self.at = {question.text: i for i, question in enumerate(self.questions)}
        self.own_words = {i for i in range(N) if i % 20 in (2, 3)}
        answering = [i for i in range(N) if i % 20 > 1]
        self.right = {i for n, i in enumerate(answering) if n % 10 < 6}

    def __call__(self, seen: Seen) -> Reply:
        i = next(i for text, i in self.at.items() if text in seen.text)
        question = self.questions[i]
        if i % 20 == 0:
            return Reply(body=chat(REFUSALS[question.language][i // 20 % 3]))
        if i % 20 == 1:
            return Reply(body=chat(f"<think>\nI think it is \\boxed{{{question.gold}}}, but", finish_reason="length"))
        answer = str(question.gold) if i in self.right else wrong(question)
        if i in self.own_words:
            forms = OWN_WORDS[question.language]
            return Reply(body=chat(forms[i % 7 % len(forms)].format(answer)))
        return Reply(body=chat(render("Thinking.", f"\\boxed{{{answer}}}")))


def evaluate(run_dir: Path, model: Callable[[Seen], Reply], judge: Server | None = None, **settings: Any) -> None:
    node = {"_target_": "finr1.parts.engine.http.engine.HttpEngine", "retries": 0, "concurrency": 4}
    with serve(model) as server:
        values: dict[str, Any] = {
            "engine": {"m": {**node, "model": "m", "base_url": server.url}},
            "benchmark": {"held": {"_target_": f"{__name__}.Held"}},
            "evaluate": EvaluateSettings(
                models=["m"], sampled=False, sampling=Sampling(max_new_tokens=64), bootstrap_samples=50, **settings
            ),
        }
        if judge:
            values["engine"]["judge"] = {**node, "model": "j", "base_url": judge.url}
            values["judge"] = JudgeSettings({"j": {"_target_": "finr1.parts.judge.answer_llm.AnswerLlm", "retries": 0}})
        with stage_context(run_dir, "evaluate", **values) as ctx:
            run_evaluate(ctx)


def found(run_dir: Path) -> tuple[dict[str, Any], Counter[str]]:
    """The figures, and how many rows have each outcome."""
    scores = benchmarks_of(run_dir / "6_scores")["held"]["scores"]["m"]["greedy"]
    rows = read_jsonl(run_dir / "6_scores" / "held" / "m.greedy.jsonl")
    return scores, Counter(row["outcome"] for row in rows)


def test_accuracy_is_the_truth_whatever_form_the_replies_have(tmp_path: Path) -> None:
    model = Model()
    evaluate(tmp_path, model)
    scores, outcomes = found(tmp_path)
    assert scores["accuracy_strict"] == pytest.approx(len(model.right) / (N - N // 20), abs=0.01)
    assert outcomes["abstained"] == outcomes["truncated"] == N // 20
    assert (scores["abstained"], scores["truncated"], scores["format"]) == (0.05, 0.05, 0.8)
    assert outcomes["right"] == pytest.approx(len(model.right), abs=N // 100)
    assert outcomes["no answer"] == outcomes["failed"] == 0


def test_a_strict_reading_counts_own_words_as_no_answer(tmp_path: Path) -> None:
    model = Model()
    evaluate(tmp_path, model, reading="strict")
    scores, outcomes = found(tmp_path)
    refused_in_a_block = sum(model.questions[i].language == "en" and i // 20 % 3 == 2 for i in range(0, N, 20))
    assert outcomes["right"] == pytest.approx(len(model.right - model.own_words), abs=1)
    assert outcomes["no answer"] == len(model.own_words) + N // 20 - refused_in_a_block
    assert (outcomes["abstained"], scores["format"]) == (refused_in_a_block, 0.8)


@pytest.mark.parametrize(("scorer", "asked"), [("llm", N - N // 20), ("rules_then_llm", N // 20)])
def test_a_judge_model_is_asked_about_own_words_and_abstentions_stay_apart(
    tmp_path: Path, scorer: str, asked: int
) -> None:
    model = Model()

    def strict(seen: Seen) -> Reply:  # never right: what counts is who is asked
        return Reply(body=chat("\\boxed{0}"))

    with serve(strict) as judge:
        evaluate(tmp_path, model, judge, scorer=scorer)
        replies = "\n".join(seen.text for seen in judge.seen)
    scores, outcomes = found(tmp_path)
    assert scores["judge"]["asked"] == asked
    assert "I'm sorry, but I can't answer that." in replies
    assert ("Look at the two figures of 2019.\n\nTherefore, the answer is" in replies) == (scorer == "llm")
    assert outcomes["abstained"] == N // 20, "a judge that calls an abstention wrong does not make it an answer"
    assert scores["accuracy_judged"] == (0 if scorer == "llm" else pytest.approx(len(model.right) / 380, abs=0.01))
