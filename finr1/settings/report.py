"""Settings of the report stage."""

from dataclasses import dataclass

from finr1.settings.bounds import Bounded, least


@dataclass
class ReportSettings(Bounded, key="report"):
    """What the report shows."""

    samples: int = least(60, 0)  # completions per model in the sample browser
