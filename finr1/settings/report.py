"""Settings of the report stage."""

from __future__ import annotations

from dataclasses import dataclass

from finr1.settings.bounds import check_bounds, least


@dataclass
class ReportSettings:
    """What the report shows."""

    samples: int = least(60, 0)  # completions per model in the sample browser

    def __post_init__(self) -> None:
        check_bounds("report", self)
