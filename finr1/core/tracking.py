"""Metrics of every stage: their names, the local mirror that the report reads, and the loggers (W&B).

Names are `<stage>/<metric>`, stable across versions; `METRICS` says what each one is. The mirror is
`<run>/metrics.jsonl`: one row a log call, `{"stage", "step", "time", "metrics"}`. A resumed stage logs some steps
again: the last row of a step counts.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from finr1.core.jsonl import JsonlWriter, read_jsonl

METRICS: Mapping[str, str] = {
    "sft/loss": "cross-entropy a completion token, nats",
    "sft/learning_rate": "learning rate of the step",
    "sft/grad_norm": "gradient norm before clipping",
    "sft/tokens_per_s": "trained tokens a second, prompt included",
    "sft/pack_efficiency": "share of a row's token budget that holds tokens",
    "sft/padding_waste": "padding's share of attention's places, where a GPU pads; not counted in a CPU's tiles",
    "sft/mfu": "FLOPs that the model needs, a second of training, over those of a plain matrix product here",
    "sft/peak_memory_gib": "highest memory of a rank so far: resident in its process, or allocated on its GPU",
    "grpo/reward": "mean reward over decided completions",
    "grpo/reward_std": "mean over groups of the reward's standard deviation within the group",
    "grpo/format": "share of completions in the right form",
    "grpo/accuracy": "share of decided completions with the right answer",
    "grpo/undecided": "share of completions that no reward could decide",
    "grpo/reward_failures": "verdicts lost in the step: the reward hung, raised, or its process ended",
    "grpo/truncated": "share of completions cut by the length limit",
    "grpo/completion_tokens": "mean tokens a completion",
    "grpo/entropy": "mean entropy of the policy over completion tokens, nats",
    "grpo/clip_fraction": "share of tokens whose ratio was clipped",
    "grpo/loss": "the loss of the step",
    "grpo/grad_norm": "gradient norm before clipping",
    "grpo/groups_with_spread": "share of groups whose rewards differ",
    "grpo/tokens_per_s": "completion tokens a second over the whole step (sampling, training, sync)",
    "grpo/train_tokens_per_s": "tokens trained on, each prompt once a row, a second of training",
    "grpo/pack_efficiency": "share of a row's token budget that holds tokens",
    "grpo/padding_waste": "padding's share of attention's places, where a GPU pads; not counted in a CPU's tiles",
    "grpo/mfu": "FLOPs that the model needs, a second of training, over those of a plain matrix product here",
    "grpo/peak_memory_gib": "highest memory of a rank so far: resident in its process, or allocated on its GPU",
    "grpo/sample_s": "seconds of sampling",
    "grpo/groups_asked": "groups sampled in the step, refills included (grpo.refill_rounds)",
    "grpo/grade_s": "seconds of rewards and advantages",
    "grpo/train_s": "seconds of training",
    "grpo/sync_s": "seconds of putting weights into the engine",
    "grpo/canary": "mean |log p(trainer) - log p(engine)| a token of a fixed text, after the step's weight sync",
    "grpo/canary_s": "seconds of the canary",
    "grpo/mismatch": "mean |log p(trainer) - log p(engine)| over sampled tokens",
    "grpo/kl": "mean k3 divergence from the reference a token (grpo.loss.beta > 0)",
    "grpo/corrected": "share of tokens whose importance correction was cut or masked (grpo.correction.kind)",
    "grpo/learning_rate": "learning rate of the step",
    "grpo/eval_accuracy": "strict greedy accuracy on held-out questions, of decided answers (grpo.eval.every_steps)",
    "grpo/eval_format": "share of those answers in the right form",
    "grpo/eval_undecided": "share of those answers that nobody decided",
    "grpo/eval_truncated": "share of those answers cut by the length limit",
    "grpo/eval_alarm": "1 while accuracy is grpo.eval.alarm_drop below its best and the reward above its value then",
    "grpo/eval_s": "seconds of that evaluation",
    "distil/traces": "traces on disk",
    "filter/good": "share of traces kept as good",
    "evaluate/*": "<benchmark>/<model>/<mode>/<figure> of the scores table",
}


class Logger(Protocol):
    """Where metrics go beside the local mirror: a `_target_` node of the `logger` group."""

    def start(self, run_dir: Path, name: str, config: Mapping[str, Any]) -> None: ...

    def log(self, metrics: Mapping[str, float], step_name: str, step: int) -> None: ...

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None: ...

    def close(self, failed: bool) -> None: ...


class Tracker:
    """Writes metrics to the mirror and to every logger."""

    def __init__(self, run_dir: Path, loggers: Sequence[Logger] = ()) -> None:
        self.run_dir = run_dir
        self.loggers = list(loggers)
        self._mirror = JsonlWriter(run_dir / "metrics.jsonl")

    @property
    def run_ids(self) -> dict[str, str]:
        """Logger -> the id that its service knows this run by, for checkpoints; those without one are left out."""
        ids = {type(logger).__name__: getattr(logger, "run_id", "") for logger in self.loggers}
        return {name: run_id for name, run_id in ids.items() if run_id}

    def log(self, stage: str, metrics: Mapping[str, float], step: int) -> None:
        """Log a step of a stage. Metric names carry no stage; a value that is not finite goes in as a string."""
        row = {key: value if math.isfinite(value) else repr(value) for key, value in metrics.items()}
        self._mirror.write({"stage": stage, "step": step, "time": round(time.time(), 3), "metrics": row})
        for logger in self.loggers:
            logger.log({f"{stage}/{key}": value for key, value in metrics.items()}, f"{stage}/step", step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table of samples, for the loggers that show tables."""
        for logger in self.loggers:
            logger.table(name, columns, rows)

    def close(self, failed: bool = False) -> None:
        """End every logger; the mirror is complete after each `log`."""
        for logger in self.loggers:
            logger.close(failed)


def read_metrics(run_dir: Path, stage: str, since: float = 0.0) -> list[tuple[int, dict[str, float]]]:
    """The mirror's rows of one stage as `(step, metrics)`, by step; a step logged twice counts once, the last one.

    `since` leaves out rows logged earlier (unix seconds): an older attempt with other settings.
    """
    path = run_dir / "metrics.jsonl"
    if not path.exists():
        return []
    steps: dict[int, dict[str, float]] = {}
    for row in read_jsonl(path):
        if row["stage"] == stage and row["time"] >= since:
            metrics = {k: float(v) for k, v in row["metrics"].items()}
            steps[row["step"]] = {**steps.get(row["step"], {}), **metrics}
    return sorted(steps.items())
