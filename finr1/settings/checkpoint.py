"""Settings of what SFT and GRPO share."""

from __future__ import annotations

from dataclasses import dataclass

from finr1.core.errors import check_least


@dataclass
class CheckpointSettings:
    """Which checkpoints are kept. They change no result, so a stage that was killed resumes when they are changed."""

    keep_last: int = 2  # the newest; with 2 a damaged one costs `checkpoint_every_steps` steps, not the run
    keep_best: bool = False  # also the one with the best task metric so far (grpo.eval), beside the newest
    disk_gib: float | None = None  # of a stage's checkpoints together; the newest is always kept; null: no limit

    def __post_init__(self) -> None:
        check_least("checkpoint", self, 1, "keep_last")
        check_least("checkpoint", self, 0, "disk_gib", above=True)
