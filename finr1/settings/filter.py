"""Settings of the filter stage."""

from dataclasses import dataclass

from finr1.core.types import CRITERIA
from finr1.settings.bounds import Bounded, least, one_of, share, within


@dataclass
class FilterSettings(Bounded, key="filter"):
    """Criteria for a good trace."""

    reading: str = one_of("strict", "content")  # strict: the answer part as a whole; content: what it states as answer
    scale_tolerant: bool = True  # accept a missing scale or percent sign: 11.8 for 11.8% or 0.118
    reasoning: bool = True  # judge the reasoning too; false: only the answer decides
    criteria_needed: int = within(7, 1, len(CRITERIA), why=f"there are {len(CRITERIA)} criteria")  # Fin-R1 requires all
    chunk: int = least(1024, 1)  # traces per call of the judges
    audit_share: float = share(0.0, of="the traces")  # judged by every answer judge, for the agreement table
    audit_seed: int = 0  # selects the audited traces
