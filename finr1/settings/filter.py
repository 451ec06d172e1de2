"""Settings of the filter stage."""

from __future__ import annotations

from dataclasses import dataclass

from finr1.core.errors import ConfigError
from finr1.core.types import CRITERIA


@dataclass
class FilterSettings:
    """What makes a trace good."""

    scale_tolerant: bool = True  # 11.8 is right where the gold is 11.8% or 0.118
    reasoning: bool = True  # ask the reasoning judges too; false: the answer alone decides
    criteria_needed: int = 7  # of the seven; Fin-R1 keeps a trace only if all hold
    chunk: int = 1024  # traces handed to the judges at once
    audit_share: float = 0.0  # of the traces: every answer judge is asked, for the report's table of agreement
    audit_seed: int = 0  # which ones

    def __post_init__(self) -> None:
        if not 1 <= self.criteria_needed <= len(CRITERIA):
            why = f"there are {len(CRITERIA)} criteria"
            raise ConfigError("filter.criteria_needed", self.criteria_needed, why, f"use 1 to {len(CRITERIA)}")
        if not 0 <= self.audit_share <= 1:
            raise ConfigError("filter.audit_share", self.audit_share, "it is a share of the traces", "use 0 to 1")
        if self.chunk < 1:
            raise ConfigError("filter.chunk", self.chunk, "nothing would be judged", "use 1 or more")
