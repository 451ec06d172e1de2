"""Settings of the export stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from finr1.core.errors import ConfigError

SPLITS = {"good": "train", "bad": "bad", "undecided": "undecided"}  # outcome of the filter -> split of the data set


@dataclass
class ExportSettings:
    """How a run's traces become a data set."""

    outcomes: list[str] = field(default_factory=lambda: ["good"])  # good becomes the split `train`; also bad, undecided
    shard_rows: int = 10_000  # rows per Parquet file
    tokenizer: str | None = None  # folder or hub id, to fill the token counts; null: left empty
    title: str | None = None  # of the card; null: name of the run
    licences: dict[str, str] = field(default_factory=dict)  # by source; overrides the licence in its yaml

    def __post_init__(self) -> None:
        for outcome in self.outcomes:
            if outcome not in SPLITS:
                raise ConfigError("export.outcomes", outcome, "unknown outcome", f"use some of {', '.join(SPLITS)}")
        if not self.outcomes:
            raise ConfigError("export.outcomes", "[]", "nothing would be exported", "use [good]")
        if self.shard_rows < 1:
            raise ConfigError("export.shard_rows", self.shard_rows, "must be at least 1", "use 1 or more")
