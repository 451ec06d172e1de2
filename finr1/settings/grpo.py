"""Settings of the GRPO stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from finr1.core.errors import ConfigError, check_least
from finr1.settings.sampling import Sampling


@dataclass
class SelectSettings:
    """Choice of RL questions by pass rate of the policy that GRPO starts from."""

    samples: int = 4  # completions a question; 0 turns selection off
    low: float = 0.1  # keep questions whose pass rate is in [low, high]
    high: float = 0.9
    max_candidates: int | None = None  # measure at most this many questions

    def __post_init__(self) -> None:
        check_least("grpo.select", self, 0, "samples")
        check_least("grpo.select", self, 1, "max_candidates")
        if not 0 <= self.low <= self.high <= 1:
            raise ConfigError("grpo.select.low", self.low, f"not within 0 <= low <= high={self.high} <= 1", "mend one")


@dataclass
class WorkerSettings:
    """Rewards that run in processes of their own, one completion at a time: what may hang or crash."""

    rewards: list[str] = field(default_factory=list)  # by name; the others run in the trainer's process
    processes: int = 2
    timeout_s: float = 10.0  # a completion and reward; past it the verdict is undecided and the process is replaced

    def __post_init__(self) -> None:
        check_least("grpo.workers", self, 1, "processes")
        check_least("grpo.workers", self, 0, "timeout_s", above=True)


@dataclass
class GrpoSettings:
    """Group relative policy optimisation on the bad questions. Fin-R1 published none of these values: they are ours."""

    rows: str | None = None  # a run folder whose questions to train on; null: this run's
    allow_unchecked: bool = False  # rows that were not decontaminated against this run's benchmarks
    init_from: str | None = None  # model folder or hub id to start from; null: this run's SFT model
    steps: int = 40  # rollouts
    questions_per_step: int = 8  # over all ranks
    group_size: int = 8
    refill_rounds: int = 0  # further rounds of questions in place of groups without spread, at most; 0: off
    sampling: Sampling = field(default_factory=Sampling)
    learning_rate: float = 2e-5
    warmup_steps: int = 2
    schedule: str = "constant"  # constant | linear (to zero) | cosine, after the warm-up
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    loss: str = "dapo"  # dapo | grpo | bnpo | dr_grpo | gspo | cispo: equations in finr1/training/grpo/loss.py
    clip_low: float = 0.2  # near 3e-4 for gspo; not used by cispo
    clip_high: float = 0.28  # gspo: 4e-4 in its paper; cispo: its paper does not say, 4 is ours
    dual_clip: float | None = None  # a token of negative advantage costs at most this many times it; null: off
    count: str = "entering"  # what the normaliser counts: completions entering the loss | all of the step
    beta: float = 0.0  # weight of the k3 divergence from the starting model; 0: no reference model
    entropy_bonus: float = 0.0  # weight of the policy's mean entropy; 0: off
    correction: str = "none"  # sampler/trainer mismatch: none | {token,sequence}_{truncate,mask}
    correction_low: float | None = None
    correction_high: float | None = 3.0
    combine: str = "sum"  # rewards into one: sum (weighted) | product (1 only if all give 1; weights not used)
    overlong_buffer_tokens: int = 0  # the last so many tokens before the limit cost up to overlong_weight; 0: off
    overlong_weight: float = 1.0
    baseline: str = "group"  # subtracted from the reward: group (mean) | leave_one_out (mean of the others)
    scale: str = "group"  # advantage divided by the rewards' standard deviation: group | batch | none
    spread_tolerance: float = 1e-6  # groups whose rewards differ by less cost no training
    train_per_group: int | None = None  # train on the completions of largest reward variance only; null: on all
    mask_truncated: bool = False  # completions cut by the limit leave the loss
    updates_per_rollout: int = 1  # optimiser steps, each on its share of the shuffled groups
    row_tokens: int = 2048  # token budget of a prompt-shared row (one micro-batch)
    preflight_questions: int = 32  # whose gold must earn full reward before the first step; 0: no check
    canary_tokens: int = 48  # scored by engine and trainer after every weight sync; 0: off
    canary_bound: float = 0.15  # mean |log p| difference a token, nats; measured with a bf16 engine: 0.03-0.09
    workers: WorkerSettings = field(default_factory=WorkerSettings)
    select: SelectSettings = field(default_factory=SelectSettings)
    eval_every: int = 0  # steps between greedy evaluations on held-out questions, with one after the last; 0: off
    eval_questions: int = 64  # held out of the candidates, with all that share a document with them
    eval_drop: float = 0.05  # alarm: accuracy so far below its best while the reward is above what it was then
    export_step: str = "last"  # which weights become the model: last | best (of the held-out accuracy)
    checkpoint_every_steps: int = 10
    samples_every_steps: int = 1  # a table of completions, for the report and W&B, from the first step on
    samples_kept: int = 16  # completions of each step kept for the report, a whole group first

    def __post_init__(self) -> None:
        at_least_1 = ("steps", "questions_per_step", "row_tokens", "checkpoint_every_steps", "updates_per_rollout")
        check_least("grpo", self, 1, *at_least_1, "samples_every_steps", "eval_questions")
        check_least("grpo", self, 0, "learning_rate", "max_grad_norm", "canary_bound", above=True)
        check_least("grpo", self, 0, "correction_low", "correction_high", above=True)
        check_least("grpo", self, 0, "refill_rounds", "warmup_steps", "weight_decay", "overlong_weight", "eval_every")
        check_least("grpo", self, 0, "spread_tolerance", "preflight_questions", "samples_kept", "eval_drop")
        if self.export_step == "best" and not self.eval_every:
            raise ConfigError("grpo.export_step", "best", "nothing is measured to choose by", "set grpo.eval_every")
        if self.canary_tokens != 0 and self.canary_tokens < 2:
            raise ConfigError("grpo.canary_tokens", self.canary_tokens, "too few to score one", "use 0, or 2 and more")
        if self.group_size < 2:
            raise ConfigError("grpo.group_size", self.group_size, "a group of one has no advantage", "use 2 or more")
        if self.train_per_group is not None and not 2 <= self.train_per_group <= self.group_size:
            raise ConfigError(
                "grpo.train_per_group",
                self.train_per_group,
                f"not within 2 and group_size={self.group_size}",
                "mend it",
            )
        for key, known in CHOICES.items():
            if getattr(self, key) not in known:
                raise ConfigError(f"grpo.{key}", getattr(self, key), "no such choice", f"use one of {', '.join(known)}")
        if not 0 <= self.overlong_buffer_tokens <= self.sampling.max_new_tokens:
            why = f"not within 0 and sampling.max_new_tokens={self.sampling.max_new_tokens}"
            raise ConfigError("grpo.overlong_buffer_tokens", self.overlong_buffer_tokens, why, "mend one")
        self._check_loss()
        if self.sampling.temperature == 0:
            raise ConfigError("grpo.sampling.temperature", 0, "greedy groups have no spread", "use a value above 0")
        if self.sampling.top_p != 1 or self.sampling.top_k != -1:
            raise ConfigError(
                "grpo.sampling.top_p",
                self.sampling.top_p,
                "the policy gradient would be biased: log-probs are of the whole distribution",
                "use top_p=1 and top_k=-1",
            )

    def _check_loss(self) -> None:
        check_least("grpo", self, 0, "clip_low", "clip_high", "beta", "entropy_bonus", "dual_clip")
        if self.dual_clip is not None and (self.loss == "cispo" or self.dual_clip <= 1 + self.clip_high):
            why = "cispo has no minimum to bound" if self.loss == "cispo" else "not above 1 + grpo.clip_high"
            raise ConfigError("grpo.dual_clip", self.dual_clip, why, "use null, or about 3 with another loss")
        low, high = self.correction_low, self.correction_high
        if low is not None and high is not None and low >= high:
            raise ConfigError("grpo.correction_low", low, f"not below correction_high={high}", "mend one")
        if self.correction != "none" and low is None and high is None:
            raise ConfigError("grpo.correction", self.correction, "it has no bound", "set grpo.correction_high")


CHOICES = {
    "loss": ("dapo", "grpo", "bnpo", "dr_grpo", "gspo", "cispo"),
    "count": ("entering", "all"),
    "correction": ("none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"),
    "combine": ("sum", "product"),
    "baseline": ("group", "leave_one_out"),
    "scale": ("group", "batch", "none"),
    "export_step": ("last", "best"),
    "schedule": ("constant", "linear", "cosine"),
}
