"""Settings of the export stage."""

from dataclasses import dataclass, field

from finr1.core.errors import ConfigError
from finr1.settings.bounds import Bounded, least

SPLITS = {"good": "train", "bad": "bad", "undecided": "undecided"}  # outcome of the filter -> split of the data set


@dataclass
class ExportSettings(Bounded, key="export"):
    """How a run's traces become a data set."""

    outcomes: list[str] = field(default_factory=lambda: ["good"])  # good becomes the split `train`; also bad, undecided
    shard_rows: int = least(10_000, 1)  # rows per Parquet file
    tokenizer: str | None = None  # folder or hub id, to count tokens with; null: no token counts
    title: str | None = None  # title of the data card; null: the run's name
    licences: dict[str, str] = field(default_factory=dict)  # by source; overrides the licence in its yaml

    def __post_init__(self) -> None:
        super().__post_init__()
        for outcome in self.outcomes:
            if outcome not in SPLITS:
                raise ConfigError("export.outcomes", outcome, "unknown outcome", f"use some of {', '.join(SPLITS)}")
        if not self.outcomes:
            raise ConfigError("export.outcomes", "[]", "nothing would be exported", "use [good]")
