"""The GRPO step: Algorithm 1 of DeepSeekMath (arXiv 2402.03300), with the options of DAPO (arXiv 2503.14476).

    for each step:
        sample G completions o_1..o_G ~ pi_old(. | q) for each of P questions q     rollout
        r_i = reward of o_i;  A_i = (r_i - mean(r)) / std(r) within the group       rollout
        repeat with further questions until enough groups have spread (DAPO §3.2)   rollout
        pack the groups with spread into rows; split them over mu optimiser steps   collate
        theta <- theta - eta grad L(theta), for each optimiser step                 update
        pi_old <- pi_theta: load the weights into the engine                        sync

| paper                    | here                                                                                    |
|--------------------------|-----------------------------------------------------------------------------------------|
| q, o_i                   | `Group.question`, `Group.completions`: P groups of G                                    |
| r_i                      | `Graded.rewards_PG`, NaN where undecided                                                |
| A_i                      | `Advantages.advantages_PG`, `Batch.advantages_C`, per token `Tokens.advantages_N`       |
| log pi_theta(o_i,t)      | `Tokens.logprobs_N`, with gradient                                                      |
| log pi_old(o_i,t)        | `Tokens.sampler_N` (engine); `Tokens.old_N` (trainer) with several optimiser steps      |
| log pi_ref(o_i,t)        | `Tokens.reference_N`, with beta > 0                                                     |
| 1 / sum of lengths, etc. | `Tokens.weights_N`, from `Count`                                                        |
| G, beta, eps-, eps+, mu  | `group_size`, `loss.beta`, `loss.clip_low`, `loss.clip_high`, `updates_per_rollout`     |

Shape letters: P questions, G completions per question, C = P G completions, N completion tokens of a row.
The loss is in `loss.py`, the advantages in `advantage.py`; both are pure functions.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from finr1.core.files import digest
from finr1.core.types import Question
from finr1.parts.reward.base import Reward
from finr1.parts.reward.workers import count_failures
from finr1.settings.grpo import GrpoSettings
from finr1.training.grpo.advantage import Advantages, centre, down_sample, first_groups
from finr1.training.grpo.batch import Batch, collate
from finr1.training.grpo.canary import Canary, check_names
from finr1.training.grpo.held_out import HeldOutEvaluation
from finr1.training.grpo.loss import PolicyLoss, Tokens, policy_loss, token_weights
from finr1.training.grpo.questions import Plan
from finr1.training.grpo.record import Recorder, Services, StepTimer, UpdateStats, mean_reward
from finr1.training.grpo.reference import Reference
from finr1.training.grpo.rollout import Graded, Rollout, combine_rewards, concatenate, grade_groups, refill_questions
from finr1.training.grpo.rollout_log import RolloutLog, Round
from finr1.training.grpo.sampler import Sampler
from finr1.training.loop.checkpoints import seed_random
from finr1.training.loop.meter import Meter, work_of
from finr1.training.loop.schedule import learning_rate
from finr1.training.loop.step_module import StepModule
from finr1.training.rows.logprobs import completion_stats
from finr1.training.rows.rows import RowGroup, make_row


class Inference(NamedTuple):
    """The parts that use the inference engine."""

    sampler: Sampler
    canary: Canary | None = None
    held_out: HeldOutEvaluation | None = None


class GrpoModule(StepModule):
    """Walks a plan of questions: one step is one rollout, even where no group has spread and nothing is updated."""

    settings_of = "grpo"

    def __init__(
        self,
        model: Any,
        optimizer: Callable[..., torch.optim.Optimizer],
        settings: GrpoSettings,
        plan: Plan,
        inference: Inference,
        rewards: Mapping[str, Reward],
        services: Services,
        reference: Reference | None = None,
    ) -> None:
        super().__init__(model, optimizer, settings.weight_decay, services.ranks)
        if settings.loss.beta > 0 and reference is None:
            raise ValueError("grpo.loss.beta above 0 needs a reference")
        self.settings, self.plan, self.rewards, self.reference = settings, plan, rewards, reference
        self.sampler, self.canary, self.held_out = inference
        self.services, self.recorder = services, Recorder(settings, services)
        self.rollout_log = RolloutLog(services.folder)
        self.meter = Meter(model, services.tracker.run_dir, services.ranks)
        self.version = "step 0"  # of the initial weights; a step without an update keeps the version

    def training_step(self, step: int, _: int) -> None:
        """One step of the algorithm in the module's docstring."""
        self.meter.prepare()
        timer = StepTimer()
        rollout = self.rollout(step, timer)  # q, o_i ~ pi_old(. | q), r_i, A_i
        asleep = self.sampler.engine.sleep()
        seed = self.seed_update(step)
        batch = collate(rollout.graded.groups, rollout.advantages, self.settings, seed, self.single)
        stats = self.update(step, batch)  # theta <- theta - eta grad L(theta)
        timer.lap("train_s")
        canary = self.sync(step + 1, timer) if stats.n_tokens or asleep else {}  # pi_old <- pi_theta
        self.steps_done = step + 1
        measured = self.measure(step, rollout, batch, timer)
        self.recorder.record(step, rollout, stats, timer, canary | measured)

    def rollout(self, step: int, timer: StepTimer) -> Rollout:
        """Sample and grade the step's questions, then refill until as many groups as planned have spread."""
        version, planned = self.sampler.engine.weights_version, self.plan[step]
        rounds: list[Graded] = []
        questions, failures = planned, 0
        for round in range(self.settings.refill_rounds + 1):
            sampled = self.graded_round(step, round, questions)
            timer.add(sampled.seconds)
            failures += sampled.failures
            rounds.append(combine_rewards(sampled.groups, self.rewards, self.settings))
            graded = concatenate(rounds)
            advantages = self.advantages(graded, len(planned))
            timer.lap("grade_s")
            if round < self.settings.refill_rounds:
                questions = refill_questions(advantages.spread_P, len(planned), self.plan.spare(step))
                if not questions:
                    break
        return Rollout(graded, advantages, failures, version)

    def graded_round(self, step: int, round: int, questions: Sequence[Question]) -> Round:
        """Sample and grade these questions, split across ranks; a round logged before a kill is used again."""
        version = self.sampler.engine.weights_version
        logged = self.rollout_log.take(step, round, version, questions) if self.ranks.first else None
        if logged := self.ranks.broadcast(logged):
            return logged
        timer, before = StepTimer(), count_failures(self.rewards)
        groups = self.sampler.sample(self.ranks.shard(questions))
        timer.lap("sample_s")
        groups = self.ranks.unshard(grade_groups(groups, self.rewards, self.settings.reading))
        lost = sum(self.ranks.gather(count_failures(self.rewards) - before))
        timer.lap("grade_s")
        sampled = Round(groups, lost, timer.seconds)
        if self.ranks.first:
            self.rollout_log.put(step, round, version, sampled)
        return sampled

    def advantages(self, graded: Graded, wanted: int) -> Advantages:
        """Advantages within each group; only the first `wanted` groups with spread enter the loss."""
        s, rewards_PG = self.settings.advantage, graded.rewards_PG
        if s.train_per_group is not None:
            rewards_PG = down_sample(rewards_PG, s.train_per_group)
        return first_groups(centre(rewards_PG, s.scale, s.spread_tolerance, s.baseline), wanted)

    def seed_update(self, step: int) -> int:
        """Seed the update by its step alone, so that a resumed run repeats it exactly; returns the seed.

        Sampling and rewards may have drawn random numbers that a resumed run, with a logged rollout, does not draw.
        """
        seed = int(digest([self.services.seed, "updates", step]), 16) % 2**63
        seed_random((seed + self.ranks.rank) % 2**63)
        return seed

    def update(self, step: int, batch: Batch) -> UpdateStats:
        """Take the optimiser steps of a rollout; none where no token enters the loss."""
        if not batch.updates:
            return UpdateStats()
        s = self.settings
        old = self.trainer_logprobs(batch) if len(batch.updates) > 1 else None
        sums = dict.fromkeys(PolicyLoss._fields, torch.zeros((), dtype=torch.float64))
        lr = learning_rate(step, s.steps, s.warmup_steps, s.learning_rate, s.schedule)
        norms = [self.optimise(self.losses(batch, rows, old, sums), lr, s.max_grad_norm) for rows in batch.updates]
        totals = dict(zip(sums, self.ranks.sum(torch.stack(list(sums.values()))).tolist(), strict=True))
        loss = totals.pop("loss") / len(norms)
        return UpdateStats(loss=loss, grad_norm=sum(norms) / len(norms), n_tokens=batch.n_tokens, **totals)

    @torch.no_grad()
    def trainer_logprobs(self, batch: Batch) -> dict[int, Tensor]:
        """log pi_old by the trainer, for each completion of this rank's rows, by its number."""
        logprobs: dict[int, Tensor] = {}
        for groups, _ in (part for rows in batch.updates for part in self.own(rows)):
            numbers = [n for group in groups for n in group.numbers]
            logprobs_N = completion_stats(self.model, make_row(groups), self.settings.sampling.temperature).logprobs_N
            pieces: Any = torch.split(logprobs_N, batch.lengths_C[numbers].tolist())
            logprobs |= zip(numbers, pieces, strict=True)
        return logprobs

    def losses(
        self, batch: Batch, rows: list[list[RowGroup]], old: Mapping[int, Tensor] | None, sums: dict[str, Tensor]
    ) -> Iterator[Tensor]:
        """Yield the loss of each of this rank's rows of one optimiser step, normalised over all ranks.

        `rows` are those of all ranks. `old`: log pi_old by completion number, where the trainer has computed them.
        Every row adds its figures of `PolicyLoss` to `sums`.
        """
        s, temperature = self.settings, self.settings.sampling.temperature
        count = batch.normaliser(rows, s.loss.normaliser)
        inside_C = batch.lengths_C > 0
        weights_C = torch.zeros(len(inside_C))
        weights_C[inside_C] = token_weights(batch.lengths_C[inside_C], s.loss.kind, count, s.sampling.max_new_tokens)
        for groups, counts in self.own(rows):
            row, numbers = make_row(groups), [n for group in groups for n in group.numbers]
            reference_N = self.reference.logprobs(self.model, row, temperature) if self.reference else None
            stats = completion_stats(self.model, row, temperature, entropy_grad=s.loss.entropy_bonus > 0)
            tokens = Tokens(
                logprobs_N=stats.logprobs_N,
                sampler_N=torch.cat([batch.sampler_logprobs_C[n] for n in numbers]),
                advantages_N=batch.advantages_C[row.number_N],
                weights_N=weights_C[row.number_N],
                number_N=row.number_N,
                old_N=None if old is None else torch.cat([old[n] for n in numbers]),
                reference_N=reference_N,
                entropy_N=stats.entropy_N,
                entropy_weight=1 / max(1.0, count.tokens),
            )
            result = policy_loss(tokens, s.loss, s.correction)
            for name, value in result._asdict().items():
                sums[name] = sums[name] + counts * value.detach().double()
            yield counts * result.loss

    def own(self, rows: list[list[RowGroup]]) -> list[tuple[list[RowGroup], float]]:
        """This rank's rows of an optimiser step, balanced by tokens, whichever rank sampled them."""
        return self.divide(rows, [sum(group.n_tokens for group in groups) for groups in rows])

    def sync(self, steps_done: int, timer: StepTimer) -> dict[str, float]:
        """Load the policy's weights into the engine; returns the canary's metric, if there is one."""
        self.sampler.load_weights(self.model, f"step {steps_done}")
        timer.lap("sync_s")
        gap = {"canary": max(self.ranks.gather(self.canary.check(self.model, steps_done)))} if self.canary else {}
        timer.lap("canary_s")
        return gap

    def measure(self, step: int, rollout: Rollout, batch: Batch, timer: StepTimer) -> dict[str, float]:
        """Machine utilisation of the update and, where one is due, the held-out evaluation."""
        rows = [groups for update in batch.updates for groups in update]
        work, seconds = work_of(rows, self.single), timer.seconds["train_s"]
        speed = {"train_tokens_per_s": work.tokens / seconds} if work.tokens else {}
        metrics = self.meter.metrics(work, seconds, self.settings.row_tokens) | speed
        if self.held_out:
            metrics |= self.held_out.after_step(step + 1, mean_reward(rollout))
            self.best_steps = self.held_out.best
        return metrics

    def on_train_start(self) -> None:
        """Load the weights into the engine; drop what was recorded of steps that will be repeated."""
        before = self.sampler.engine.weight_names
        self.sampler.load_weights(self.model, self.version)
        check_names(before, self.sampler.engine.weight_names)
        if self.canary:
            self.canary.check(self.model, self.steps_done)
        if self.held_out:
            self.held_out.forget_after(self.steps_done)
        self.recorder.resume(self.steps_done)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the evaluations so far, the loggers' run ids and the version of the weights."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["runs"] = self.services.tracker.run_ids
        checkpoint["held_out"] = self.held_out.state() if self.held_out else None
        checkpoint["weights_version"] = self.sampler.engine.weights_version

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.version = checkpoint["weights_version"]
        if self.held_out and checkpoint["held_out"]:
            self.held_out.resume(checkpoint["held_out"])

    def checkpoint_kept(self, oldest: int) -> None:
        """Delete rollouts older than the oldest kept checkpoint; called after each save."""
        self.rollout_log.forget_before(oldest)
