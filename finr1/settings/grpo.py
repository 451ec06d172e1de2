"""Settings of the GRPO stage."""

from dataclasses import dataclass, field

from finr1.core.errors import ConfigError
from finr1.settings.bounds import Bounded, above, least, one_of
from finr1.settings.sampling import Sampling

LOSSES = ("dapo", "grpo", "bnpo", "dr_grpo", "gspo", "cispo")
CORRECTIONS = ("none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask")


@dataclass
class LossSettings(Bounded, key="grpo.loss"):
    """The policy loss; equations in finr1/training/grpo/loss.py."""

    kind: str = one_of(*LOSSES)
    clip_low: float = least(0.2, 0)  # about 3e-4 for gspo; not used by cispo
    clip_high: float = least(0.28, 0)  # gspo: 4e-4 in its paper; cispo: 4 (our choice, its paper gives no value)
    dual_clip: float | None = least(None, 0)  # bounds the loss of negative advantages by dual_clip * |A|; null: off
    normaliser: str = one_of("entering", "all")  # tokens and completions counted: entering the loss, all of the step
    beta: float = least(0.0, 0)  # weight of the k3 KL divergence from the initial policy; 0: no reference model
    entropy_bonus: float = least(0.0, 0)  # weight of the policy's mean entropy; 0: off
    mask_truncated: bool = False  # exclude truncated completions from the loss

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dual_clip is not None and (self.kind == "cispo" or self.dual_clip <= 1 + self.clip_high):
            why = "cispo has no minimum to bound" if self.kind == "cispo" else "not above 1 + grpo.loss.clip_high"
            raise ConfigError("grpo.loss.dual_clip", self.dual_clip, why, "use null, or about 3 with another loss")


@dataclass
class AdvantageSettings(Bounded, key="grpo.advantage"):
    """From rewards to advantages; equations in finr1/training/grpo/advantage.py."""

    baseline: str = one_of("group", "leave_one_out")  # subtract from the reward: mean of the group, or of the others
    scale: str = one_of("group", "batch", "none")  # divide by the rewards' standard deviation
    spread_tolerance: float = least(1e-6, 0)  # groups with a smaller spread of rewards do not enter the loss
    combine: str = one_of("sum", "product")  # several rewards into one: weighted sum, or product without weights
    train_per_group: int | None = least(None, 2)  # keep those of largest reward variance (PODS); null: all
    overlong_buffer_tokens: int = least(0, 0)  # penalise the last so many tokens before the limit; 0: off
    overlong_weight: float = least(1.0, 0)  # penalty at the limit


@dataclass
class CorrectionSettings(Bounded, key="grpo.correction"):
    """Importance weights for the mismatch between engine and trainer; see finr1/training/grpo/loss.py."""

    kind: str = one_of(*CORRECTIONS)
    low: float | None = above(None, 0)
    high: float | None = above(3.0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ConfigError("grpo.correction.low", self.low, f"not below high={self.high}", "change one of them")
        if self.kind != "none" and self.low is None and self.high is None:
            raise ConfigError("grpo.correction.kind", self.kind, "it has no bound", "set grpo.correction.high")


@dataclass
class SelectSettings(Bounded, key="grpo.select"):
    """Choice of the training questions by the initial policy's pass rate."""

    samples: int = least(4, 0)  # completions per question; 0: keep all questions
    low: float = 0.1  # keep questions whose pass rate is in [low, high]
    high: float = 0.9
    max_candidates: int | None = least(None, 1)  # measure at most this many questions

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.low <= self.high <= 1:
            why = f"not within 0 <= low <= high={self.high} <= 1"
            raise ConfigError("grpo.select.low", self.low, why, "change one of them")


@dataclass
class WorkerSettings(Bounded, key="grpo.workers"):
    """Rewards that run in worker processes because they may hang or crash."""

    rewards: list[str] = field(default_factory=list)  # by name; the others run in the trainer's process
    processes: int = least(2, 1)
    timeout_s: float = above(10.0, 0)  # per completion and reward; after it the verdict is undecided


@dataclass
class CanarySettings(Bounded, key="grpo.canary"):
    """The test that engine and trainer have the same weights, after every weight sync."""

    tokens: int = 48  # scored by both; 0: off
    bound: float = above(0.15, 0)  # mean |log p| difference per token, nats; measured with a bf16 engine: 0.03-0.09

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens != 0 and self.tokens < 2:
            why = "the first token has no log-prob"
            raise ConfigError("grpo.canary.tokens", self.tokens, why, "use 0, or 2 or more")


@dataclass
class SamplesSettings(Bounded, key="grpo.samples"):
    """Completions kept in samples.jsonl, for the report and W&B."""

    every_steps: int = least(1, 1)  # starting with the first step
    kept: int = least(16, 0)  # per step, a whole group first


@dataclass
class HeldOutSettings(Bounded, key="grpo.eval"):
    """Greedy evaluation on held-out questions during training."""

    every_steps: int = least(0, 0)  # and after the last step; 0: off
    questions: int = least(64, 1)  # held out of the candidates, with all questions that share a document with them
    alarm_drop: float = least(0.05, 0)  # alarm: accuracy this far below its best, reward above its value then


@dataclass
class GrpoSettings(Bounded, key="grpo"):
    """Group relative policy optimisation on the bad questions. Fin-R1 published none of these values: all are ours."""

    rows: str | None = None  # run folder with the questions to train on; null: this run
    allow_unchecked: bool = False  # accept rows that were not decontaminated against this run's benchmarks
    init_from: str | None = None  # model folder or hub id to start from; null: this run's SFT model
    steps: int = least(40, 1)  # rollouts
    questions_per_step: int = least(8, 1)  # global, split across ranks
    group_size: int = least(8, 2, why="a group of one has no advantage")  # completions per question
    refill_rounds: int = least(0, 0)  # at most this many extra rounds to replace groups without spread (DAPO); 0: off
    reading: str = one_of("strict", "content")  # content: rewards also read an answer outside the answer block
    sampling: Sampling = field(default_factory=Sampling)
    learning_rate: float = above(2e-5, 0)
    warmup_steps: int = least(2, 0)
    schedule: str = one_of("constant", "linear", "cosine")  # after the warm-up; the latter two decay to zero
    weight_decay: float = least(0.0, 0)
    max_grad_norm: float = above(1.0, 0)
    updates_per_rollout: int = least(1, 1)  # optimiser steps per rollout, each on its share of the shuffled groups
    row_tokens: int = least(2048, 1)  # token budget of a packed row (one micro-batch)
    loss: LossSettings = field(default_factory=LossSettings)
    advantage: AdvantageSettings = field(default_factory=AdvantageSettings)
    correction: CorrectionSettings = field(default_factory=CorrectionSettings)
    select: SelectSettings = field(default_factory=SelectSettings)
    workers: WorkerSettings = field(default_factory=WorkerSettings)
    preflight_questions: int = least(32, 0)  # golds that must earn full reward before the first step; 0: no check
    canary: CanarySettings = field(default_factory=CanarySettings)
    samples: SamplesSettings = field(default_factory=SamplesSettings)
    eval: HeldOutSettings = field(default_factory=HeldOutSettings)
    checkpoint_every_steps: int = least(10, 1)
    export_step: str = one_of("last", "best")  # weights to export; best: by held-out accuracy

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.export_step == "best" and not self.eval.every_steps:
            raise ConfigError("grpo.export_step", "best", "no accuracy is measured", "set grpo.eval.every_steps")
        train, limit = self.advantage.train_per_group, self.sampling.max_new_tokens
        if train is not None and train > self.group_size:
            why = f"more than grpo.group_size={self.group_size}"
            raise ConfigError("grpo.advantage.train_per_group", train, why, "lower it, or use null")
        if self.advantage.overlong_buffer_tokens > limit:
            why, buffer = f"more than grpo.sampling.max_new_tokens={limit}", self.advantage.overlong_buffer_tokens
            raise ConfigError("grpo.advantage.overlong_buffer_tokens", buffer, why, "lower it")
        if self.sampling.temperature == 0:
            raise ConfigError("grpo.sampling.temperature", 0, "greedy groups have no spread", "use a value above 0")
        if self.sampling.top_p != 1 or self.sampling.top_k != -1:
            why = "the policy gradient would be biased: log-probs are of the full distribution"
            raise ConfigError("grpo.sampling.top_p", self.sampling.top_p, why, "use top_p=1 and top_k=-1")
