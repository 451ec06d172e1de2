"""Settings of the SFT stage."""

from dataclasses import dataclass, field
from pathlib import Path

from finr1.settings.bounds import Bounded, above, least, one_of, share

CHAT_FILES = ("*.jsonl", "*.jsonl.gz", "*.json", "*.parquet")


@dataclass
class SftSettings(Bounded, key="sft"):
    """Supervised fine-tuning on the good traces. Fin-R1 published none of these values: all are ours."""

    rows: str | None = None  # run folder with good traces, or file or folder of chats (`messages`); null: this run
    allow_unchecked: bool = False  # accept rows that were not decontaminated against the benchmarks; chats need it
    sources: list[str] = field(default_factory=list)  # use only rows of these sources; empty: all
    turns: str = one_of("last", "all")  # assistant turns of a chat that carry the loss
    max_rows: int | None = least(None, 1)  # use at most this many, the first of a seeded shuffle
    epochs: int = least(2, 1)
    learning_rate: float = above(1e-4, 0)
    warmup_share: float = share(0.1, of="the steps")  # linear warm-up; cosine to zero after it
    weight_decay: float = least(0.0, 0)
    max_grad_norm: float = above(1.0, 0)
    neftune_alpha: float = least(0.0, 0)  # noise on embeddings, 5 to 15 in its paper (sft/noise.py); 0: off
    row_tokens: int = least(1024, 1)  # token budget of a packed row (one micro-batch)
    rows_per_step: int = least(1, 1)  # packed rows per optimiser step; global, split across ranks
    checkpoint_every_steps: int = least(50, 1)

    @property
    def chats(self) -> Path | None:
        """The file or folder of chats that `rows` names; None where it names a run folder or a missing path."""
        path = Path(self.rows).expanduser() if self.rows else None
        if path is None or path.is_file():
            return path
        is_run = any(child.is_dir() for child in path.glob("[0-9]_*"))
        return path if not is_run and any(next(path.glob(name), None) for name in CHAT_FILES) else None
