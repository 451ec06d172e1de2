"""Settings of the SFT stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from finr1.core.errors import ConfigError, check_least

TURNS = ("last", "all")
CHAT_FILES = ("*.jsonl", "*.jsonl.gz", "*.json", "*.parquet")


@dataclass
class SftSettings:
    """Supervised fine-tuning on the good traces. Fin-R1 published none of these values: all are ours."""

    rows: str | None = None  # run folder with good traces, or file or folder of chats (`messages`); null: this run
    allow_unchecked: bool = False  # accept rows that were not decontaminated against the benchmarks; chats need it
    sources: list[str] = field(default_factory=list)  # use only rows of these sources; empty: all
    turns: str = "last"  # assistant turns of a chat that carry the loss: last | all
    max_rows: int | None = None  # use at most this many, the first of a seeded shuffle
    epochs: int = 2
    learning_rate: float = 1e-4
    warmup_share: float = 0.1  # share of the steps with linear warm-up; cosine to zero after it
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    neftune_alpha: float = 0.0  # noise on embeddings, 5 to 15 in its paper (finr1/training/sft/noise.py); 0: off
    row_tokens: int = 1024  # token budget of a packed row (one micro-batch)
    rows_per_step: int = 1  # packed rows per optimiser step; global, split across ranks
    checkpoint_every_steps: int = 50

    def __post_init__(self) -> None:
        check_least("sft", self, 1, "max_rows", "epochs", "row_tokens", "rows_per_step", "checkpoint_every_steps")
        check_least("sft", self, 0, "learning_rate", "max_grad_norm", above=True)
        check_least("sft", self, 0, "weight_decay", "neftune_alpha")
        if self.turns not in TURNS:
            raise ConfigError("sft.turns", self.turns, "no such choice", f"use {' or '.join(TURNS)}")
        if not 0 <= self.warmup_share <= 1:
            raise ConfigError("sft.warmup_share", self.warmup_share, "it is a share of the steps", "use 0 to 1")

    @property
    def chats(self) -> Path | None:
        """The file or folder of chats that `rows` names; None where it names a run folder or a missing path."""
        path = Path(self.rows).expanduser() if self.rows else None
        if path is None or path.is_file():
            return path
        is_run = any(child.is_dir() for child in path.glob("[0-9]_*"))
        return path if not is_run and any(next(path.glob(name), None) for name in CHAT_FILES) else None
