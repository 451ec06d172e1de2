"""Settings of the report stage."""

from __future__ import annotations

from dataclasses import dataclass

from finr1.core.errors import ConfigError


@dataclass
class ReportSettings:
    """What the report shows."""

    samples: int = 60  # completions per model in the sample browser

    def __post_init__(self) -> None:
        if self.samples < 0:
            raise ConfigError("report.samples", self.samples, "it must not be negative", "use 0 or more")
