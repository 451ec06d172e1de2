"""Settings of the export stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from finr1.core.errors import ConfigError

SPLITS = {"good": "train", "bad": "bad", "undecided": "undecided"}  # outcome of the filter -> split of the data set


@dataclass
class ExportSettings:
    """The data set that a run's traces become."""

    outcomes: list[str] = field(default_factory=lambda: ["good"])  # good is the split `train`; also bad, undecided
    shard_rows: int = 10_000  # rows a Parquet file
    tokenizer: str | None = None  # folder or hub id that counts the tokens of each text; null: they stay empty
    title: str | None = None  # of the card; null: the run's name
    licences: dict[str, str] = field(default_factory=dict)  # of a source, in place of what its yaml said

    def __post_init__(self) -> None:
        for outcome in self.outcomes:
            if outcome not in SPLITS:
                raise ConfigError("export.outcomes", outcome, "no such outcome", f"use some of {', '.join(SPLITS)}")
        if not self.outcomes:
            raise ConfigError("export.outcomes", "[]", "nothing would be written", "use [good]")
        if self.shard_rows < 1:
            raise ConfigError("export.shard_rows", self.shard_rows, "a file holds rows", "use 1 or more")
