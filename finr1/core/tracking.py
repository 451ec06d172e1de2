"""Metrics of every stage: their definitions, the local log that the report reads, and the loggers (W&B).

Names are `<stage>/<metric>`, stable across versions; `METRICS` defines each. The local log is `<run>/metrics.jsonl`,
one row per log call: `{"stage", "step", "time", "metrics"}`. A resumed stage logs some steps again; a step's last
row counts.
"""

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from finr1.core.jsonl import JsonlWriter, read_jsonl

_OF_TRAINING = {
    "learning_rate": "learning rate",
    "grad_norm": "gradient norm before clipping",
    "packing_efficiency": "fraction of the packed rows' token budget that is filled",
    "padding_fraction": "fraction of padding in attention's inputs; 0 with tiled (CPU) and flex (GPU) attention",
    "mfu": "model FLOPs utilisation: FLOPs the model needs per second of training / matmul peak measured here",
    "peak_memory_gib": "peak memory of a rank so far: resident in its process, or allocated on its GPU",
}
METRICS: Mapping[str, str] = {
    **{f"{stage}/{name}": about for stage in ("sft", "grpo") for name, about in _OF_TRAINING.items()},
    "sft/loss": "cross-entropy per completion token, nats",
    "sft/tokens_per_s": "tokens trained per second, prompt included",
    "grpo/reward": "mean reward of decided completions",
    "grpo/reward_std": "standard deviation of the reward within a group, mean over groups",
    "grpo/format": "fraction of well-formed completions",
    "grpo/accuracy": "fraction of decided completions with the correct answer",
    "grpo/undecided": "fraction of completions that no reward could decide",
    "grpo/reward_failures": "verdicts lost because the reward timed out, raised, or its process ended",
    "grpo/truncated": "fraction of completions truncated at max_new_tokens",
    "grpo/completion_tokens": "mean completion length, tokens",
    "grpo/entropy": "entropy of the policy, mean over completion tokens, nats",
    "grpo/clip_ratio": "fraction of completion tokens whose importance ratio was clipped",
    "grpo/loss": "policy loss",
    "grpo/groups_with_spread": "fraction of groups whose rewards differ (the others give no gradient)",
    "grpo/tokens_per_s": "completion tokens per second of the whole step (sampling, grading, training, sync)",
    "grpo/train_tokens_per_s": "tokens trained per second of training, each prompt counted once per row",
    "grpo/sample_s": "time to sample completions, seconds",
    "grpo/groups_asked": "groups sampled in the step, refills included (grpo.refill_rounds)",
    "grpo/grade_s": "time to compute rewards and advantages, seconds",
    "grpo/train_s": "time of forward and backward passes and the optimiser, seconds",
    "grpo/sync_s": "time to sync weights to the engine, seconds",
    "grpo/canary": "mean |log p(trainer) - log p(engine)| per token of a fixed text, after the weight sync",
    "grpo/canary_s": "time of the canary check, seconds",
    "grpo/mismatch": "mean |log p(trainer) - log p(engine)| per sampled token",
    "grpo/kl": "KL divergence from the reference policy (k3 estimator), mean per completion token",
    "grpo/corrected": "fraction of tokens whose importance correction was truncated or masked (grpo.correction)",
    "grpo/eval_accuracy": "accuracy (strict, greedy) on held-out training questions, over decided answers",
    "grpo/eval_format": "fraction of well-formed answers to the held-out questions",
    "grpo/eval_undecided": "fraction of undecided answers to the held-out questions",
    "grpo/eval_truncated": "fraction of truncated answers to the held-out questions",
    "grpo/eval_alarm": "1 while accuracy is grpo.eval.alarm_drop below its best, and the reward above its value then",
    "grpo/eval_s": "time of the held-out evaluation, seconds",
    "distil/traces": "traces on disk",
    "filter/good": "fraction of traces kept as good",
    "evaluate/*": "scores table: <benchmark>/<model>/<mode>/<figure>",
}


class Logger(Protocol):
    """A destination of metrics besides the local log: a `_target_` node of the `logger` group."""

    def start(self, run_dir: Path, name: str, config: Mapping[str, Any]) -> None: ...

    def log(self, metrics: Mapping[str, float], step_name: str, step: int) -> None: ...

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None: ...

    def close(self, failed: bool) -> None: ...


class Tracker:
    """Writes metrics to the local log and to every logger."""

    def __init__(self, run_dir: Path, loggers: Sequence[Logger] = ()) -> None:
        self.run_dir = run_dir
        self.loggers = list(loggers)
        self._log = JsonlWriter(run_dir / "metrics.jsonl")

    @property
    def run_ids(self) -> dict[str, str]:
        """Logger -> its service's id of this run, for checkpoints; loggers without ids are omitted."""
        ids = {type(logger).__name__: getattr(logger, "run_id", "") for logger in self.loggers}
        return {name: run_id for name, run_id in ids.items() if run_id}

    def log(self, stage: str, metrics: Mapping[str, float], step: int) -> None:
        """Log one step of a stage. Metric names come without the stage; non-finite values are stored as strings."""
        row = {key: value if math.isfinite(value) else repr(value) for key, value in metrics.items()}
        self._log.write({"stage": stage, "step": step, "time": round(time.time(), 3), "metrics": row})
        for logger in self.loggers:
            logger.log({f"{stage}/{key}": value for key, value in metrics.items()}, f"{stage}/step", step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Log a table of samples, for the loggers that show tables."""
        for logger in self.loggers:
            logger.table(name, columns, rows)

    def close(self, failed: bool = False) -> None:
        """Close every logger; the local log is complete after each `log`."""
        for logger in self.loggers:
            logger.close(failed)


def read_metrics(run_dir: Path, stage: str, since: float = 0.0) -> list[tuple[int, dict[str, float]]]:
    """Read the local log of one stage as `(step, metrics)` pairs, sorted by step; a step's last row counts.

    Rows logged before `since` (Unix seconds) are skipped: they belong to an older attempt with other settings.
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
