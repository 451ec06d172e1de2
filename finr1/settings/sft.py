"""Settings of the SFT stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from finr1.core.errors import ConfigError, check_least

TURNS = ("last", "all")
CHAT_FILES = ("*.jsonl", "*.jsonl.gz", "*.json", "*.parquet")


@dataclass
class SftSettings:
    """Supervised fine-tuning on the good traces. Fin-R1 published none of these values: they are ours."""

    rows: str | None = None  # a run folder with good traces, or a file or folder of chats (`messages`); null: this run
    allow_unchecked: bool = False  # rows that were not decontaminated against this run's benchmarks; chats never are
    sources: list[str] = field(default_factory=list)  # only rows of these sources; empty: of all
    turns: str = "last"  # of a chat: which of the assistant's turns carry the loss, last | all
    max_rows: int | None = None  # at most this many, the first ones of a seeded shuffle
    epochs: int = 2
    learning_rate: float = 1e-4
    warmup_share: float = 0.1  # of all steps, linear; cosine to zero after it
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    neftune_alpha: float = 0.0  # noise on embeddings (finr1/training/sft/noise.py); 5 to 15 in its paper; 0: none
    row_tokens: int = 1024  # token budget of a packed row (one micro-batch)
    rows_per_step: int = 1  # packed rows an optimiser step, over all ranks
    checkpoint_every_steps: int = 50

    def __post_init__(self) -> None:
        check_least("sft", self, 1, "max_rows", "epochs", "row_tokens", "rows_per_step", "checkpoint_every_steps")
        check_least("sft", self, 0, "learning_rate", "max_grad_norm", above=True)
        check_least("sft", self, 0, "weight_decay", "neftune_alpha")
        if self.turns not in TURNS:
            raise ConfigError("sft.turns", self.turns, "no such choice of turns", f"use {' or '.join(TURNS)}")
        if not 0 <= self.warmup_share <= 1:
            raise ConfigError("sft.warmup_share", self.warmup_share, "it is a share of the steps", "use 0 to 1")

    @property
    def chats(self) -> Path | None:
        """The file or folder of chats that `rows` names; None where it names a run, or nothing that is there."""
        path = Path(self.rows).expanduser() if self.rows else None
        if path is None or path.is_file():
            return path
        is_run = any(child.is_dir() for child in path.glob("[0-9]_*"))
        return path if not is_run and any(next(path.glob(name), None) for name in CHAT_FILES) else None
