"""The task's own metric during training: greedy accuracy on held-out questions, whatever the rewards say.

The questions are taken out of the candidates before any is selected, with all that share a document with them. The
engine that samples answers them, with the weights that were just synced; `scoring` grades, as in the stage `evaluate`.
They are no benchmark's: a checkpoint may be chosen by them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from finr1.core.errors import ConfigError
from finr1.core.jsonl import JsonlWriter, read_jsonl, write_jsonl
from finr1.core.ranks import ALONE, Ranks
from finr1.core.types import Question, stable_id
from finr1.evaluation.scores.rows import ScoredCompletion, score
from finr1.settings.grpo import GrpoSettings
from finr1.training.grpo.rollout import Sampler

FILE = "evals.jsonl"


class Measured(NamedTuple):
    """Steps done, strict accuracy of decided answers, and the mean reward of the steps since the evaluation before."""

    steps_done: int
    accuracy: float
    reward: float


class Task:
    """Measures, remembers, and says when reward and accuracy part.

    Args:
        questions: held out; none: it is off.
        sampler: whose engine answers.
        settings: of the stage.
        folder: where `evals.jsonl` goes, one row a completion.
        say: is told in one line when the reward rises while the accuracy falls.
        ranks: who divide the questions; each has the whole history.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        sampler: Sampler,
        settings: GrpoSettings,
        folder: Path,
        say: Callable[[str], None],
        ranks: Ranks = ALONE,
    ) -> None:
        self.questions, self.sampler, self.settings, self.say = questions, sampler, settings, say
        self.ranks = ranks
        self.path = folder / FILE
        self.history: list[Measured] = []
        self.rewards: list[float] = []  # of the steps since the last evaluation
        self.alarmed = False

    def after(self, steps_done: int, reward: float) -> dict[str, float]:
        """The metrics after a step whose mean reward (NaN: nothing was decided) is given; empty where none is due."""
        if not self.questions:
            return {}
        if reward == reward:
            self.rewards.append(reward)
        if steps_done % self.settings.eval_every and steps_done != self.settings.steps:
            return {}
        began = time.perf_counter()
        rows = self._rows(steps_done)
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

    def _rows(self, steps_done: int) -> list[ScoredCompletion]:
        s = self.settings.sampling
        greedy = replace(s, n=1, temperature=0.0, top_p=1.0, top_k=-1)
        with torch.autocast("cpu", enabled=False), torch.no_grad():
            own = score(self.sampler.engine, self.ranks.shard(self.questions), self.sampler.system, greedy)
        rows = [row for rows in self.ranks.unshard(own) for row in rows]
        with JsonlWriter(self.path) as writer:
            writer.write(*({"steps_done": steps_done, **row.to_json()} for row in rows))
        return rows

    @property
    def best(self) -> int | None:
        """Steps done at the highest accuracy, the first of equals; None before the first evaluation."""
        return max(self.history, key=lambda m: (m.accuracy, -m.steps_done)).steps_done if self.history else None

    def _alarm(self) -> bool:
        """Whether accuracy is `eval_drop` below its best while the reward is above what it was then."""
        now = self.history[-1]
        best = next(m for m in self.history if m.steps_done == self.best)
        parted = now.accuracy < best.accuracy - self.settings.eval_drop and now.reward > best.reward
        if parted and not self.alarmed:
            accuracies = f"{now.accuracy:.3f}, after step {best.steps_done} it was {best.accuracy:.3f}"
            rewards = f"{best.reward:.3f} to {now.reward:.3f}: a reward may be gamed; look at samples.jsonl"
            self.say(
                f"after step {now.steps_done} accuracy on {len(self.questions)} held-out questions is {accuracies},"
                f" while the reward rose from {rewards}"
            )
        self.alarmed = parted
        return parted

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {"history": [list(m) for m in self.history], "rewards": self.rewards, "alarmed": self.alarmed}

    def resume(self, state: dict[str, Any]) -> None:
        """Take a checkpoint's values up."""
        self.history = [Measured(*row) for row in state["history"]]
        self.rewards, self.alarmed = list(state["rewards"]), state["alarmed"]

    def forget_after(self, steps_done: int) -> None:
        """Drop rows of evaluations that will be done again."""
        if self.path.exists():
            write_jsonl(self.path, [row for row in read_jsonl(self.path) if row["steps_done"] <= steps_done])


def hold_out(
    candidates: Sequence[Question], settings: GrpoSettings, seed: int
) -> tuple[list[Question], list[Question]]:
    """Held-out questions, and the candidates that share no document with them; nothing is held out with `eval_every=0`.

    Documents are taken in a seeded order of their own, so that more candidates of others change little. ConfigError
    where too few questions with a gold answer are left for training.
    """
    if not settings.eval_every:
        return [], list(candidates)
    wanted = settings.eval_questions
    held: list[Question] = []
    documents: set[str] = set()
    for question in sorted(candidates, key=lambda q: (stable_id("eval", seed, q.document_id), q.id)):
        if question.gold is not None and len(held) < wanted:
            held.append(question)
            documents.add(question.document_id)
    rest = [question for question in candidates if question.document_id not in documents]
    if len(held) < wanted or len(rest) < settings.questions_per_step:
        why = f"of {len(candidates)} candidates {len(held)} could be held out and {len(rest)} would be left to train on"
        raise ConfigError("grpo.eval_questions", wanted, why, "lower it, or turn it off with grpo.eval_every=0")
    return held, rest
