"""The SFT step: cross-entropy of the completion tokens of packed rows, averaged over the tokens of all ranks."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from finr1.core.ranks import ALONE, Ranks
from finr1.core.tracking import Tracker
from finr1.run.progress import Bar
from finr1.settings.sft import SftSettings
from finr1.training.loop.meter import Meter, work_of
from finr1.training.loop.schedule import learning_rate
from finr1.training.loop.step_module import StepModule
from finr1.training.rows.logprobs import completion_stats
from finr1.training.rows.rows import RowGroup, make_row
from finr1.training.sft.noise import noisy

Plan = Sequence[Sequence[Sequence[RowGroup]]]  # optimiser step, row, group


class SftModule(StepModule):
    """Trains on a plan of packed rows, one optimiser step per entry."""

    def __init__(
        self,
        model: Any,
        optimizer: Callable[..., torch.optim.Optimizer],
        settings: SftSettings,
        plan: Plan,
        tracker: Tracker,
        bar: Bar,
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__(model, optimizer, settings.weight_decay, ranks)
        self.settings, self.plan, self.tracker, self.bar = settings, plan, tracker, bar
        self.meter = Meter(model, tracker.run_dir, ranks)

    def on_train_start(self) -> None:
        """Show the steps of the checkpoint on the bar."""
        if self.steps_done:
            self.bar.advance(self.steps_done)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the loggers' run ids."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["runs"] = self.tracker.run_ids

    def training_step(self, step: int, _: int) -> None:
        """Take one optimiser step over the planned rows, split across ranks."""
        self.meter.prepare()
        began = time.perf_counter()
        rows = self.plan[step]
        work = work_of(rows, self.single)
        n_targets = work.targets  # of all ranks
        own = self.divide(rows, [sum(group.n_tokens for group in row) for row in rows])
        total = 0.0

        def losses() -> Iterator[Tensor]:
            nonlocal total
            for groups, counts in own:
                with noisy(self.model, groups, self.settings.neftune_alpha):
                    logprobs_N = completion_stats(self.model, make_row(groups), entropy=False).logprobs_N
                loss = -logprobs_N.sum() * counts / n_targets
                total += float(loss.detach())
                yield loss

        n_steps = len(self.plan)
        warmup = round(self.settings.warmup_share * n_steps)
        lr = learning_rate(step, n_steps, warmup, self.settings.learning_rate, "cosine")
        norm = self.optimise(losses(), lr, self.settings.max_grad_norm)
        total = float(self.ranks.sum(torch.tensor(total, dtype=torch.float64)))
        self.steps_done, seconds = step + 1, time.perf_counter() - began
        metrics = {
            "loss": total,
            "learning_rate": lr,
            "grad_norm": norm,
            "tokens_per_s": work.tokens / seconds,
            **self.meter.metrics(work, seconds, self.settings.row_tokens),
        }
        self.tracker.log("sft", metrics, step)
        self.bar.advance(text=f"loss {total:.3f}  {metrics['tokens_per_s']:.0f} tokens/s")
