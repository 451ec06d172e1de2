"""Settings of the GRPO stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from finr1.core.errors import ConfigError, check_least
from finr1.settings.sampling import Sampling

LOSSES = ("dapo", "grpo", "bnpo", "dr_grpo", "gspo", "cispo")
CORRECTIONS = ("none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask")


def _check_choice(key: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise ConfigError(key, value, "no such choice", f"use one of {', '.join(choices)}")


@dataclass
class LossSettings:
    """The policy loss; equations in finr1/training/grpo/loss.py."""

    kind: str = "dapo"  # dapo | grpo | bnpo | dr_grpo | gspo | cispo
    clip_low: float = 0.2  # about 3e-4 for gspo; not used by cispo
    clip_high: float = 0.28  # gspo: 4e-4 in its paper; cispo: 4 (our choice, its paper gives no value)
    dual_clip: float | None = None  # loss of a token with negative advantage is at most dual_clip * |A|; null: off
    normaliser: str = "entering"  # tokens and completions counted: entering (the loss) | all (of the step)
    beta: float = 0.0  # weight of the k3 KL divergence from the initial policy; 0: no reference model
    entropy_bonus: float = 0.0  # weight of the policy's mean entropy; 0: off
    mask_truncated: bool = False  # exclude truncated completions from the loss

    def __post_init__(self) -> None:
        _check_choice("grpo.loss.kind", self.kind, LOSSES)
        _check_choice("grpo.loss.normaliser", self.normaliser, ("entering", "all"))
        check_least("grpo.loss", self, 0, "clip_low", "clip_high", "beta", "entropy_bonus", "dual_clip")
        if self.dual_clip is not None and (self.kind == "cispo" or self.dual_clip <= 1 + self.clip_high):
            why = "cispo has no minimum to bound" if self.kind == "cispo" else "not above 1 + grpo.loss.clip_high"
            raise ConfigError("grpo.loss.dual_clip", self.dual_clip, why, "use null, or about 3 with another loss")


@dataclass
class AdvantageSettings:
    """From rewards to advantages; equations in finr1/training/grpo/advantage.py."""

    baseline: str = "group"  # subtracted from the reward: group (mean) | leave_one_out (mean of the others)
    scale: str = "group"  # divide by the standard deviation of the rewards: of the group | batch | none
    spread_tolerance: float = 1e-6  # a group whose rewards differ by no more than this does not enter the loss
    combine: str = "sum"  # several rewards into one: sum (weighted) | product (weights not used)
    train_per_group: int | None = None  # keep the completions with the largest reward variance (PODS); null: all
    overlong_buffer_tokens: int = 0  # penalise completions within this many tokens of the length limit; 0: off
    overlong_weight: float = 1.0  # penalty at the limit

    def __post_init__(self) -> None:
        _check_choice("grpo.advantage.baseline", self.baseline, ("group", "leave_one_out"))
        _check_choice("grpo.advantage.scale", self.scale, ("group", "batch", "none"))
        _check_choice("grpo.advantage.combine", self.combine, ("sum", "product"))
        check_least("grpo.advantage", self, 0, "spread_tolerance", "overlong_buffer_tokens", "overlong_weight")
        check_least("grpo.advantage", self, 2, "train_per_group")


@dataclass
class CorrectionSettings:
    """Importance weights for the mismatch between engine and trainer; see finr1/training/grpo/loss.py."""

    kind: str = "none"  # none | {token,sequence}_{truncate,mask}
    low: float | None = None
    high: float | None = 3.0

    def __post_init__(self) -> None:
        _check_choice("grpo.correction.kind", self.kind, CORRECTIONS)
        check_least("grpo.correction", self, 0, "low", "high", above=True)
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ConfigError("grpo.correction.low", self.low, f"not below high={self.high}", "change one of them")
        if self.kind != "none" and self.low is None and self.high is None:
            raise ConfigError("grpo.correction.kind", self.kind, "it has no bound", "set grpo.correction.high")


@dataclass
class SelectSettings:
    """Choice of the training questions by the initial policy's pass rate."""

    samples: int = 4  # completions per question; 0: keep all questions
    low: float = 0.1  # keep questions whose pass rate is in [low, high]
    high: float = 0.9
    max_candidates: int | None = None  # measure at most this many questions

    def __post_init__(self) -> None:
        check_least("grpo.select", self, 0, "samples")
        check_least("grpo.select", self, 1, "max_candidates")
        if not 0 <= self.low <= self.high <= 1:
            why = f"not within 0 <= low <= high={self.high} <= 1"
            raise ConfigError("grpo.select.low", self.low, why, "change one of them")


@dataclass
class WorkerSettings:
    """Rewards that run in worker processes because they may hang or crash."""

    rewards: list[str] = field(default_factory=list)  # by name; the others run in the trainer's process
    processes: int = 2
    timeout_s: float = 10.0  # per completion and reward; after it the verdict is undecided, the process replaced

    def __post_init__(self) -> None:
        check_least("grpo.workers", self, 1, "processes")
        check_least("grpo.workers", self, 0, "timeout_s", above=True)


@dataclass
class CanarySettings:
    """The test that engine and trainer have the same weights, after every weight sync."""

    tokens: int = 48  # scored by both; 0: off
    bound: float = 0.15  # mean |log p| difference per token, nats; measured with a bf16 engine: 0.03-0.09

    def __post_init__(self) -> None:
        if self.tokens != 0 and self.tokens < 2:
            raise ConfigError(
                "grpo.canary.tokens", self.tokens, "the first token has no log-prob", "use 0, or 2 or more"
            )
        check_least("grpo.canary", self, 0, "bound", above=True)


@dataclass
class SamplesSettings:
    """Completions kept in samples.jsonl, for the report and W&B."""

    every_steps: int = 1  # starting with the first step
    kept: int = 16  # per step, a whole group first

    def __post_init__(self) -> None:
        check_least("grpo.samples", self, 1, "every_steps")
        check_least("grpo.samples", self, 0, "kept")


@dataclass
class HeldOutSettings:
    """Greedy evaluation on held-out questions during training."""

    every_steps: int = 0  # and after the last step; 0: off
    questions: int = 64  # held out of the candidates, with all questions that share a document with them
    alarm_drop: float = 0.05  # alarm when accuracy is this far below its best while the reward is above its value then

    def __post_init__(self) -> None:
        check_least("grpo.eval", self, 0, "every_steps", "alarm_drop")
        check_least("grpo.eval", self, 1, "questions")


@dataclass
class GrpoSettings:
    """Group relative policy optimisation on the bad questions. Fin-R1 published none of these values: all are ours."""

    rows: str | None = None  # run folder with the questions to train on; null: this run
    allow_unchecked: bool = False  # accept rows that were not decontaminated against this run's benchmarks
    init_from: str | None = None  # model folder or hub id to start from; null: this run's SFT model
    steps: int = 40  # rollouts
    questions_per_step: int = 8  # global, split across ranks
    group_size: int = 8  # completions per question
    refill_rounds: int = 0  # at most this many extra rounds to replace groups without spread (DAPO); 0: off
    sampling: Sampling = field(default_factory=Sampling)
    learning_rate: float = 2e-5
    warmup_steps: int = 2
    schedule: str = "constant"  # after the warm-up: constant | linear (to zero) | cosine (to zero)
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    updates_per_rollout: int = 1  # optimiser steps per rollout, each on its share of the shuffled groups
    row_tokens: int = 2048  # token budget of a packed row (one micro-batch)
    loss: LossSettings = field(default_factory=LossSettings)
    advantage: AdvantageSettings = field(default_factory=AdvantageSettings)
    correction: CorrectionSettings = field(default_factory=CorrectionSettings)
    select: SelectSettings = field(default_factory=SelectSettings)
    workers: WorkerSettings = field(default_factory=WorkerSettings)
    preflight_questions: int = 32  # gold completions that must earn full reward before the first step; 0: no check
    canary: CanarySettings = field(default_factory=CanarySettings)
    samples: SamplesSettings = field(default_factory=SamplesSettings)
    eval: HeldOutSettings = field(default_factory=HeldOutSettings)
    checkpoint_every_steps: int = 10
    export_step: str = "last"  # weights to export: last | best (held-out accuracy)

    def __post_init__(self) -> None:
        counts = ("steps", "questions_per_step", "row_tokens", "checkpoint_every_steps", "updates_per_rollout")
        check_least("grpo", self, 1, *counts)
        check_least("grpo", self, 0, "learning_rate", "max_grad_norm", above=True)
        check_least("grpo", self, 0, "refill_rounds", "warmup_steps", "weight_decay", "preflight_questions")
        _check_choice("grpo.schedule", self.schedule, ("constant", "linear", "cosine"))
        _check_choice("grpo.export_step", self.export_step, ("last", "best"))
        if self.export_step == "best" and not self.eval.every_steps:
            raise ConfigError("grpo.export_step", "best", "no accuracy is measured", "set grpo.eval.every_steps")
        if self.group_size < 2:
            raise ConfigError("grpo.group_size", self.group_size, "a group of one has no advantage", "use 2 or more")
        train, limit = self.advantage.train_per_group, self.sampling.max_new_tokens
        if train is not None and train > self.group_size:
            why = f"more than grpo.group_size={self.group_size}"
            raise ConfigError("grpo.advantage.train_per_group", train, why, "lower it, or use null")
        if self.advantage.overlong_buffer_tokens > limit:
            why, buffer = f"more than grpo.sampling.max_new_tokens={limit}", self.advantage.overlong_buffer_tokens
            raise ConfigError("grpo.advantage.overlong_buffer_tokens", buffer, why, "lower it")
        self._check_sampling()

    def _check_sampling(self) -> None:
        if self.sampling.temperature == 0:
            raise ConfigError("grpo.sampling.temperature", 0, "greedy groups have no spread", "use a value above 0")
        if self.sampling.top_p != 1 or self.sampling.top_k != -1:
            why = "the policy gradient would be biased: log-probs are of the full distribution"
            raise ConfigError("grpo.sampling.top_p", self.sampling.top_p, why, "use top_p=1 and top_k=-1")
