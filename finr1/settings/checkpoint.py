"""Settings of the checkpoints of SFT and GRPO."""

from dataclasses import dataclass

from finr1.settings.bounds import Bounded, above, least


@dataclass
class CheckpointSettings(Bounded, key="checkpoint"):
    """Which checkpoints are kept. They do not affect results: they may change between a kill and a resume."""

    keep_last: int = least(2, 1)  # the newest; with 2 a corrupt one costs `checkpoint_every_steps` steps, not the run
    keep_best: bool = False  # also the one of the highest held-out accuracy so far (grpo/held_out.py)
    disk_gib: float | None = above(None, 0)  # limit for all checkpoints of a stage; the newest always stays; null: none
