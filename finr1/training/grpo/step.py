"""The GRPO step, as a LightningModule with manual optimisation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from finr1.core.files import digest
from finr1.core.jsonl import JsonlWriter, take_rows, write_jsonl
from finr1.core.ranks import ALONE, Ranks
from finr1.core.tracking import Tracker
from finr1.core.types import Question
from finr1.parts.reward.base import Reward
from finr1.parts.reward.workers import failures
from finr1.run.progress import Bar
from finr1.settings.grpo import GrpoSettings
from finr1.training.grpo.advantage import Advantages, centre, down_sample, first_groups
from finr1.training.grpo.canary import Canary, check_names
from finr1.training.grpo.held_out import Task
from finr1.training.grpo.loss import Rule, Tokens, policy_loss, token_weights
from finr1.training.grpo.reference import Reference
from finr1.training.grpo.rollout import Batch, Graded, Sampler, collate, combine_rewards, grade_groups, join, refill
from finr1.training.grpo.rollout_log import RolloutLog, Round
from finr1.training.grpo.samples import SAMPLES, _samples, table
from finr1.training.loop.checkpoints import seed_random
from finr1.training.loop.meter import Meter, work_of
from finr1.training.loop.schedule import learning_rate
from finr1.training.loop.step_module import StepModule
from finr1.training.rows.logprobs import completion_stats
from finr1.training.rows.rows import RowGroup, make_row


class UpdateStats(NamedTuple):
    """Of a rollout's optimiser steps: means, and sums over the tokens of the loss; or nothing at all."""

    loss: float = 0.0
    grad_norm: float = 0.0
    n_tokens: int = 0
    clipped: float = 0.0
    mismatch: float = 0.0
    kl: float = 0.0
    corrected: float = 0.0
    entropy: float = 0.0


class GrpoModule(StepModule):
    """Walks a plan of questions: one step is one rollout, even when no group has spread and the weights stay."""

    settings_of = "grpo"

    def __init__(
        self,
        model: Any,
        optimizer: Callable[..., torch.optim.Optimizer],
        settings: GrpoSettings,
        plan: Sequence[Sequence[Question]],
        sampler: Sampler,
        rewards: Mapping[str, Reward],
        folder: Path,
        tracker: Tracker,
        bar: Bar,
        reference: Reference | None = None,
        spare: Callable[[int], Sequence[Question]] = lambda _: (),
        seed: int = 0,
        canary: Canary | None = None,
        task: Task | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__(model, optimizer, settings.weight_decay, ranks)
        if settings.beta > 0 and reference is None:
            raise ValueError("grpo.beta above 0 needs a reference")
        self.spare, self.seed, self.canary, self.rollout_log = spare, seed, canary, RolloutLog(folder)
        self.reference, self.rule = reference, Rule(**{name: getattr(settings, name) for name in Rule._fields})
        self.settings, self.plan, self.sampler, self.rewards = settings, plan, sampler, rewards
        self.folder, self.tracker, self.bar, self.task = folder, tracker, bar, task
        self.meter = Meter(model, tracker.run_dir, ranks)
        self.version = "step 0"  # of the weights at the start; a step without an update leaves it as it was

    def on_train_start(self) -> None:
        """The engine gets the weights of the checkpoint; samples of steps that will be done again are dropped."""
        before = self.sampler.engine.weight_names
        self.sampler.load_weights(self.model, self.version)
        check_names(before, self.sampler.engine.weight_names)
        if self.canary:
            self.canary.check(self.model, self.steps_done)
        path = self.folder / SAMPLES
        if path.exists():
            write_jsonl(path, [row for row in take_rows(path, ["step"]) if row["step"] < self.steps_done])
        if self.task:
            self.task.forget_after(self.steps_done)
        self.bar.advance(self.steps_done)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What was measured so far and the ids under which it is tracked, too."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["runs"], checkpoint["task"] = self.tracker.run_ids, self.task.state() if self.task else None
        checkpoint["weights_version"] = self.sampler.engine.weights_version

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See StepModule."""
        super().on_load_checkpoint(checkpoint)
        self.version = checkpoint["weights_version"]
        if self.task and checkpoint["task"]:
            self.task.resume(checkpoint["task"])

    def checkpoint_kept(self, oldest: int) -> None:
        """No resume walks the steps before it again."""
        self.rollout_log.forget_before(oldest)

    def training_step(self, step: int, _: int) -> None:
        """Sample, grade, centre, batch, loss, sync."""
        self.meter.prepare()
        s, clock = self.settings, StepTimer()
        version, wanted = self.sampler.engine.weights_version, len(self.plan[step])
        graded, asked, rounds, lost = None, self.plan[step], 0, 0
        while asked:
            kept = self.rollout_log.take(step, rounds, version, asked) if self.ranks.first else None
            found = self.ranks.broadcast(kept) or self.sample(step, rounds, asked)
            clock.add(found.seconds)
            graded, lost = join(graded, combine_rewards(found.groups, self.rewards, s)), lost + found.failures
            advantages = self.centre(graded, wanted)
            clock.lap("grade_s")
            asked = refill(advantages.spread_P, wanted, self.spare(step)) if rounds < s.refill_rounds else ()
            rounds += 1
        assert graded is not None
        resting = self.sampler.sleep()
        seed = int(digest([self.seed, "updates", step]), 16) % 2**63
        # Whatever sampling and rewards have drawn, or a resumed step has not: the update is the same.
        seed_random((seed + self.ranks.rank) % 2**63)
        batch = collate(graded.groups, advantages, s, seed)
        stats = self.update(batch, step)
        clock.lap("train_s")
        gap = self.sync(step + 1, clock) if stats.n_tokens or resting else None
        self.steps_done = step + 1
        measured = self.measure(step, graded, batch, clock)
        self.record(step, graded, advantages, stats, version, clock, gap, lost, measured)

    def sample(self, step: int, round: int, asked: Sequence[Question]) -> Round:
        """These questions' completions and verdicts, on disk before they are used; each rank has asked some of them."""
        clock, before = StepTimer(), failures(self.rewards)
        sampled = self.sampler.sample(self.ranks.shard(asked))
        clock.lap("sample_s")
        groups = self.ranks.unshard(grade_groups(sampled, self.rewards))
        lost = sum(self.ranks.gather(failures(self.rewards) - before))
        clock.lap("grade_s")
        done = Round(groups, lost, clock.laps)
        if self.ranks.first:
            self.rollout_log.put(step, round, self.sampler.engine.weights_version, done)
        return done

    def sync(self, steps_done: int, clock: StepTimer) -> float | None:
        """The policy's weights into the engine; returns what the canary says, if there is one."""
        self.sampler.load_weights(self.model, f"step {steps_done}")
        clock.lap("sync_s")
        gap = max(self.ranks.gather(self.canary.check(self.model, steps_done))) if self.canary else None
        clock.lap("canary_s")
        return gap

    def measure(self, step: int, graded: Graded, batch: Batch, clock: StepTimer) -> dict[str, float]:
        """How well the update used the machine, and where it is due the task's own metric."""
        work, seconds = work_of([groups for share in batch.shares for groups in share]), clock.laps["train_s"]
        speed = {"train_tokens_per_s": work.tokens / seconds} if work.tokens else {}
        metrics = self.meter.metrics(work, seconds, self.settings.row_tokens) | speed
        if self.task:
            metrics |= self.task.after(step + 1, _mean(graded.rewards_PG))
            self.best_steps = self.task.best
        return metrics

    def centre(self, graded: Graded, wanted: int) -> Advantages:
        """Advantages of the groups asked so far; at most the first `wanted` groups with spread enter the loss."""
        s, rewards_PG = self.settings, graded.rewards_PG
        if s.train_per_group is not None:
            rewards_PG = down_sample(rewards_PG, s.train_per_group)
        return first_groups(centre(rewards_PG, s.scale, s.spread_tolerance, s.baseline), wanted)

    def update(self, batch: Batch, step: int) -> UpdateStats:
        """An optimiser step for each share of rows, normalised over the whole step; nothing where no token enters."""
        if not batch.shares:
            return UpdateStats()
        s = self.settings
        old = self.trainer_logprobs(batch) if len(batch.shares) > 1 else None
        sums = torch.zeros(6, dtype=torch.float64)
        lr = learning_rate(step, s.steps, s.warmup_steps, s.learning_rate, s.schedule)
        norms = [self.optimise(self.losses(batch, share, old, sums), lr, s.max_grad_norm) for share in batch.shares]
        loss, *shown = self.ranks.sum(sums).tolist()
        return UpdateStats(loss / len(norms), sum(norms) / len(norms), batch.n_tokens, *shown)

    @torch.no_grad()
    def trainer_logprobs(self, batch: Batch) -> dict[int, Tensor]:
        """Log-probs of each completion in the loss of this rank under the weights of now, by its number."""
        found: dict[int, Tensor] = {}
        for groups, _ in (part for share in batch.shares for part in self.own(share)):
            numbers = [n for group in groups for n in group.numbers]
            logprobs_N = completion_stats(self.model, make_row(groups), self.settings.sampling.temperature).logprobs_N
            pieces: Any = torch.split(logprobs_N, batch.lengths_C[numbers].tolist())
            found |= zip(numbers, pieces, strict=True)
        return found

    def losses(
        self, batch: Batch, share: list[list[RowGroup]], old: Mapping[int, Tensor] | None, sums: Tensor
    ) -> Iterator[Tensor]:
        """The loss of each of this rank's rows of a share, normalised over those of all ranks.

        What is shown of it is added to `sums`, in the order of `UpdateStats`.
        """
        s, rule = self.settings, self.rule
        count = batch.normaliser(share, s.count)
        inside = batch.lengths_C > 0
        weights_C = torch.zeros(len(inside))
        weights_C[inside] = token_weights(batch.lengths_C[inside], s.loss, count, s.sampling.max_new_tokens)
        for groups, counts in self.own(share):
            row, numbers = make_row(groups), [n for group in groups for n in group.numbers]
            reference_N = self.reference.logprobs(self.model, row, s.sampling.temperature) if self.reference else None
            stats = completion_stats(self.model, row, s.sampling.temperature, entropy_grad=rule.entropy_bonus > 0)
            tokens = Tokens(
                stats.logprobs_N,
                torch.cat([batch.sampler_logprobs[n] for n in numbers]),
                batch.advantages_C[row.number_N],
                weights_C[row.number_N],
                row.number_N,
                old_N=None if old is None else torch.cat([old[n] for n in numbers]),
                reference_N=reference_N,
                entropy_N=stats.entropy_N,
                entropy_weight=1 / max(1.0, count.tokens),
            )
            result = policy_loss(tokens, rule)
            shown = (result.clipped, result.mismatch, result.kl, result.corrected, stats.entropy_N.sum())
            sums.add_(counts * torch.stack([value.detach() for value in (result.loss, *shown)]).double())
            yield counts * result.loss

    def own(self, share: list[list[RowGroup]]) -> list[tuple[list[RowGroup], float]]:
        """This rank's rows of an optimiser step, whoever sampled them: a rank whose groups have no spread helps too."""
        return self.divide(share, [sum(group.n_tokens for group in groups) for groups in share])

    def record(
        self,
        step: int,
        graded: Graded,
        adv: Advantages,
        stats: UpdateStats,
        version: str,
        clock: StepTimer,
        canary: float | None,
        lost: int,
        measured: Mapping[str, float],
    ) -> None:
        """Metrics to the tracker, a few samples to the run folder: what every rank has, the first one writes."""
        if not self.ranks.first:
            return
        completions = [c for group in graded.groups for c in group.completions]
        n_generated = sum(len(c.token_ids) for c in completions)
        s = self.settings
        metrics = {
            "reward": _mean(graded.rewards_PG),
            "reward_std": _mean(torch.stack([_std(row) for row in graded.rewards_PG])),
            "format": _mean(graded.format_PG),
            "accuracy": _mean(graded.accuracy_PG),
            "undecided": float(graded.rewards_PG.isnan().float().mean()),
            "reward_failures": float(lost),
            "truncated": sum(c.finish_reason == "length" for c in completions) / len(completions),
            "completion_tokens": n_generated / len(completions),
            "groups_with_spread": float(adv.spread_P.float().mean()),
            "tokens_per_s": n_generated / clock.total,
            "learning_rate": learning_rate(step, s.steps, s.warmup_steps, s.learning_rate, s.schedule),
            **clock.laps,
            **measured,
        }
        if canary is not None:
            metrics["canary"] = canary
        if s.refill_rounds:
            metrics["groups_asked"] = float(len(graded.groups))
        if stats.n_tokens:
            metrics |= {
                "loss": stats.loss,
                "grad_norm": stats.grad_norm,
                "clip_fraction": stats.clipped / stats.n_tokens,
                "mismatch": stats.mismatch / stats.n_tokens,
                "entropy": stats.entropy / stats.n_tokens,
            }
            if s.beta > 0:
                metrics["kl"] = stats.kl / stats.n_tokens
            if s.correction != "none":
                metrics["corrected"] = stats.corrected / stats.n_tokens
        self.tracker.log("grpo", {k: v for k, v in metrics.items() if v == v}, step)
        if step % s.samples_every_steps == 0:
            rows = _samples(step, graded, adv, version)[: s.samples_kept]
            with JsonlWriter(self.folder / SAMPLES) as writer:
                writer.write(*rows)
            self.tracker.table("grpo/samples", *table(rows))
        shown = "reward {reward:.2f}  accuracy {accuracy:.2f}  {tokens_per_s:.0f} tokens/s"
        self.bar.advance(text=shown.format_map(metrics))


class StepTimer:
    """Seconds of the parts of a step."""

    def __init__(self) -> None:
        self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._last
        self._last = now

    def add(self, laps: Mapping[str, float]) -> None:
        """Time taken elsewhere, which is none of the next lap's."""
        for name, seconds in laps.items():
            self.laps[name] = self.laps.get(name, 0.0) + seconds
        self._last = time.perf_counter()

    @property
    def total(self) -> float:
        return sum(self.laps.values())


def _mean(values: Tensor) -> float:
    """Mean of what is decided; NaN where nothing is."""
    return float(values.nanmean())


def _std(values_G: Tensor) -> Tensor:
    known = values_G[~values_G.isnan()]
    return known.std(unbiased=False) if len(known) else torch.tensor(float("nan"))
