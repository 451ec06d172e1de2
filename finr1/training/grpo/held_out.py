"""Held-out evaluation during training: greedy accuracy, independent of the rewards.

The questions are held out of the candidates before selection, with all that share a document with them. The sampling
engine answers them with the weights just synced; they are graded as in the stage `evaluate`. They belong to no
benchmark, so the best checkpoint may be chosen by them.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from finr1.core.errors import ConfigError
from finr1.core.jsonl import JsonlWriter, read_jsonl, write_jsonl
from finr1.core.ranks import ALONE, Ranks
from finr1.core.types import Question, stable_id
from finr1.evaluation.scores.rows import ScoredCompletion, score
from finr1.settings.grpo import GrpoSettings
from finr1.training.grpo.sampler import Sampler

FILE = "evals.jsonl"


class Measured(NamedTuple):
    """One evaluation."""

    steps_done: int
    accuracy: float  # strict, of decided answers
    reward: float  # mean over the steps since the evaluation before


@dataclass
class HeldOutEvaluation:
    """Evaluates every few steps, keeps the history, and raises an alarm when accuracy falls while the reward rises.

    No questions, no evaluation. `evals.jsonl` in `folder` gets one row per completion, `note` one line for each alarm.
    Ranks split the questions; each has the whole history.
    """

    questions: Sequence[Question]
    sampler: Sampler
    settings: GrpoSettings
    folder: Path
    note: Callable[[str], None]
    ranks: Ranks = ALONE
    history: list[Measured] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)  # of the steps since the last evaluation
    alarmed: bool = False

    def after_step(self, steps_done: int, reward: float) -> dict[str, float]:
        """Evaluate if it is due, and return the metrics; `reward` is the step's mean (NaN: nothing decided)."""
        if not self.questions:
            return {}
        if reward == reward:
            self.rewards.append(reward)
        if steps_done % self.settings.eval.every_steps and steps_done != self.settings.steps:
            return {}
        began = time.perf_counter()
        rows = self._answer(steps_done)
        metrics = {
            name: sum(decided) / len(decided)
            for name in ("accuracy_strict", "format", "undecided", "truncated")
            if (decided := [value for row in rows if (value := row.value(name)) is not None])
        }
        out = {f"eval_{name.removesuffix('_strict')}": value for name, value in metrics.items()}
        if "eval_accuracy" in out:
            mean = sum(self.rewards) / len(self.rewards) if self.rewards else float("nan")
            self.history.append(Measured(steps_done, out["eval_accuracy"], mean))
            out["eval_alarm"] = float(self._alarm())
        self.rewards = []
        return {**out, "eval_s": time.perf_counter() - began}

    def _answer(self, steps_done: int) -> list[ScoredCompletion]:
        """Answer the questions greedily, grade the answers, write the rows."""
        s = self.settings.sampling
        greedy = replace(s, n=1, temperature=0.0, top_p=1.0, top_k=-1)
        with torch.autocast("cpu", enabled=False), torch.no_grad():
            own = score(self.sampler.engine, self.ranks.shard(self.questions), self.sampler.system, greedy)
        rows = [row for rows in self.ranks.unshard(own) for row in rows]
        with JsonlWriter(self.folder / FILE) as writer:
            writer.write(*({"steps_done": steps_done, **row.to_json()} for row in rows))
        return rows

    @property
    def best(self) -> int | None:
        """Steps done at the highest accuracy, the earliest of equals; None before the first evaluation."""
        return max(self.history, key=lambda m: (m.accuracy, -m.steps_done)).steps_done if self.history else None

    def _alarm(self) -> bool:
        """Whether accuracy is `alarm_drop` below its best while the reward is above its value then; notes the first."""
        now = self.history[-1]
        best = next(m for m in self.history if m.steps_done == self.best)
        parted = now.accuracy < best.accuracy - self.settings.eval.alarm_drop and now.reward > best.reward
        if parted and not self.alarmed:
            accuracies = f"{now.accuracy:.3f}, after step {best.steps_done} it was {best.accuracy:.3f}"
            rewards = f"{best.reward:.3f} to {now.reward:.3f}: a reward may be gamed; look at samples.jsonl"
            self.note(
                f"after step {now.steps_done} accuracy on {len(self.questions)} held-out questions is {accuracies},"
                f" while the reward rose from {rewards}"
            )
        self.alarmed = parted
        return parted

    def state(self) -> dict[str, Any]:
        return {"history": [list(m) for m in self.history], "rewards": self.rewards, "alarmed": self.alarmed}

    def resume(self, state: dict[str, Any]) -> None:
        self.history = [Measured(*row) for row in state["history"]]
        self.rewards, self.alarmed = list(state["rewards"]), state["alarmed"]

    def forget_after(self, steps_done: int) -> None:
        """Drop the rows of evaluations that will be repeated."""
        path = self.folder / FILE
        if path.exists():
            write_jsonl(path, [row for row in read_jsonl(path) if row["steps_done"] <= steps_done])


def hold_out(
    candidates: Sequence[Question], settings: GrpoSettings, seed: int
) -> tuple[list[Question], list[Question]]:
    """Split the candidates into held-out questions and those that share no document with them.

    Nothing is held out with `eval.every_steps=0`. Documents are taken in a seeded order of their ids, so that adding
    candidates changes little. ConfigError where too few questions are left to hold out or to train on.
    """
    if not settings.eval.every_steps:
        return [], list(candidates)
    wanted = settings.eval.questions
    held: list[Question] = []
    documents: set[str] = set()
    for question in sorted(candidates, key=lambda q: (stable_id("eval", seed, q.document_id), q.id)):
        if question.gold is not None and len(held) < wanted:
            held.append(question)
            documents.add(question.document_id)
    rest = [question for question in candidates if question.document_id not in documents]
    if len(held) < wanted or len(rest) < settings.questions_per_step:
        why = f"of {len(candidates)} candidates, {len(held)} can be held out and {len(rest)} are left to train on"
        raise ConfigError("grpo.eval.questions", wanted, why, "lower it, or turn it off with grpo.eval.every_steps=0")
    return held, rest
