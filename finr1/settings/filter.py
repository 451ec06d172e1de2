"""Settings of the filter stage."""

from __future__ import annotations

from dataclasses import dataclass

from finr1.core.errors import ConfigError
from finr1.core.types import CRITERIA


@dataclass
class FilterSettings:
    """What makes a trace good."""

    scale_tolerant: bool = True  # accept a missing scale or percent sign: 11.8 for 11.8% or 0.118
    reasoning: bool = True  # judge the reasoning too; false: the answer alone decides
    criteria_needed: int = 7  # of the seven criteria; Fin-R1 needs all
    chunk: int = 1024  # traces per call of the judges
    audit_share: float = 0.0  # share of traces that every answer judge is asked about, for the agreement table
    audit_seed: int = 0  # selects the audited traces

    def __post_init__(self) -> None:
        if not 1 <= self.criteria_needed <= len(CRITERIA):
            why = f"there are {len(CRITERIA)} criteria"
            raise ConfigError("filter.criteria_needed", self.criteria_needed, why, f"use 1 to {len(CRITERIA)}")
        if not 0 <= self.audit_share <= 1:
            raise ConfigError("filter.audit_share", self.audit_share, "not a share of the traces", "use 0 to 1")
        if self.chunk < 1:
            raise ConfigError("filter.chunk", self.chunk, "no trace would be judged", "use 1 or more")
