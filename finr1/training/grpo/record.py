"""Record a GRPO step: metrics to the tracker, sampled completions to the run folder, one line to the bar."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from finr1.core.jsonl import JsonlWriter, read_jsonl, write_jsonl
from finr1.core.ranks import ALONE, Ranks
from finr1.core.tracking import Tracker
from finr1.run.progress import Bar
from finr1.settings.grpo import GrpoSettings
from finr1.training.grpo.rollout import Rollout
from finr1.training.loop.schedule import learning_rate

SAMPLES = "samples.jsonl"


class Services(NamedTuple):
    """Where a training stage writes, and how it is distributed."""

    folder: Path  # of the stage
    tracker: Tracker
    bar: Bar
    ranks: Ranks = ALONE
    seed: int = 0


class StepTimer:
    """Adds up seconds by metric name; each `lap` covers the time since the previous one."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """Book the time since the last lap under this name."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add time measured elsewhere, and start the next lap now."""
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value
        self._last = time.perf_counter()

    @property
    def total(self) -> float:
        return sum(self.seconds.values())


class UpdateStats(NamedTuple):
    """One rollout's optimiser steps: means over the steps, sums over the tokens of the loss; zeros without a step."""

    loss: float = 0.0  # mean
    grad_norm: float = 0.0  # mean, before clipping
    n_tokens: int = 0
    clipped: float = 0.0  # from here on sums, see PolicyLoss
    mismatch: float = 0.0
    kl: float = 0.0
    corrected: float = 0.0
    entropy: float = 0.0


class Recorder:
    """Records steps on the first rank; the other ranks have the same figures and write nothing."""

    def __init__(self, settings: GrpoSettings, services: Services) -> None:
        self.settings, self.services = settings, services
        self.samples_path = services.folder / SAMPLES

    def resume(self, steps_done: int) -> None:
        """Drop the samples of steps that will be repeated; show the finished ones on the bar."""
        if self.samples_path.exists():
            rows = [row for row in read_jsonl(self.samples_path, ["step"]) if row["step"] < steps_done]
            write_jsonl(self.samples_path, rows)
        self.services.bar.advance(steps_done)

    def record(
        self, step: int, rollout: Rollout, stats: UpdateStats, timer: StepTimer, measured: Mapping[str, float]
    ) -> None:
        """Write one step; `measured` holds further metrics."""
        if not self.services.ranks.first:
            return
        s = self.settings
        metrics = {
            **rollout_metrics(rollout, timer),
            "learning_rate": learning_rate(step, s.steps, s.warmup_steps, s.learning_rate, s.schedule),
            **timer.seconds,
            **measured,
            **update_metrics(stats, s),
        }
        if s.refill_rounds:
            metrics["groups_asked"] = float(len(rollout.graded.groups))
        self.services.tracker.log("grpo", {name: value for name, value in metrics.items() if value == value}, step)
        if step % s.samples.every_steps == 0:
            rows = sample_rows(step, rollout)[: s.samples.kept]
            with JsonlWriter(self.samples_path) as writer:
                writer.write(*rows)
            self.services.tracker.table("grpo/samples", *table(rows))
        line = "reward {reward:.2f}  accuracy {accuracy:.2f}  {tokens_per_s:.0f} tokens/s"
        self.services.bar.advance(text=line.format_map(metrics))


def rollout_metrics(rollout: Rollout, timer: StepTimer) -> dict[str, float]:
    """Rewards, format and length of what was sampled; NaN for a mean over nothing."""
    graded = rollout.graded
    completions = [c for group in graded.groups for c in group.completions]
    n_tokens = sum(len(c.token_ids) for c in completions)
    return {
        "reward": mean_reward(rollout),
        "reward_std": float(torch.stack([_std(rewards_G) for rewards_G in graded.rewards_PG]).nanmean()),
        "format": float(graded.format_PG.nanmean()),
        "accuracy": float(graded.accuracy_PG.nanmean()),
        "undecided": float(graded.rewards_PG.isnan().float().mean()),
        "reward_failures": float(rollout.failures),
        "truncated": sum(c.finish_reason == "length" for c in completions) / len(completions),
        "completion_tokens": n_tokens / len(completions),
        "groups_with_spread": float(rollout.advantages.spread_P.float().mean()),
        "tokens_per_s": n_tokens / timer.total,
    }


def update_metrics(stats: UpdateStats, settings: GrpoSettings) -> dict[str, float]:
    """Loss, gradient and means over the tokens in the loss; empty where the weights were not updated."""
    if not stats.n_tokens:
        return {}
    metrics = {
        "loss": stats.loss,
        "grad_norm": stats.grad_norm,
        "clip_ratio": stats.clipped / stats.n_tokens,
        "mismatch": stats.mismatch / stats.n_tokens,
        "entropy": stats.entropy / stats.n_tokens,
    }
    if settings.loss.beta > 0:
        metrics["kl"] = stats.kl / stats.n_tokens
    if settings.correction.kind != "none":
        metrics["corrected"] = stats.corrected / stats.n_tokens
    return metrics


def mean_reward(rollout: Rollout) -> float:
    """Mean reward of the decided completions; NaN if there are none."""
    return float(rollout.graded.rewards_PG.nanmean())


def _std(rewards_G: Tensor) -> Tensor:
    decided = rewards_G[~rewards_G.isnan()]
    return decided.std(unbiased=False) if len(decided) else torch.tensor(float("nan"))


def sample_rows(step: int, rollout: Rollout) -> list[dict[str, Any]]:
    """One row per completion: first a whole group, with spread if any has it, then the other groups in turn."""
    graded, adv = rollout.graded, rollout.advantages
    n_groups, size = graded.rewards_PG.shape
    first = int(adv.spread_P.int().argmax())
    places = [(first, g) for g in range(size)]
    places += [(p, g) for g in range(size) for p in range(n_groups) if p != first]
    rows = []
    for p, g in places:
        group = graded.groups[p]
        completion, reward = group.completions[g], float(graded.rewards_PG[p, g])
        rows.append(
            {
                "step": step,
                "question_id": group.question.id,
                "prompt": group.question.text,
                "gold": group.question.gold,
                "completion": completion.text,
                "truncated": completion.finish_reason == "length",
                "rewards": {name: {"value": v[g].value, "why": v[g].why} for name, v in group.verdicts.items()},
                "reward": None if reward != reward else reward,
                "advantage": float(adv.advantages_PG[p, g]),
                "weights_version": rollout.weights_version,
            }
        )
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Columns and values of sample rows; each reward's verdict and reason get columns of their own."""
    flat = []
    for row in rows:
        cells = {name: value for name, value in row.items() if name != "rewards"}
        for name, verdict in row["rewards"].items():
            cells |= {f"verdict/{name}": verdict["value"], f"why/{name}": verdict["why"]}
        flat.append(cells)
    columns = list(flat[0]) if flat else []
    return columns, [[cells[column] for column in columns] for cells in flat]
