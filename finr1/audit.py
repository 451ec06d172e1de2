"""Which traces every answer judge is asked about, so that the report can say how far the judges agree.

In a cascade a judge sees only what those before it left open: no two judges ever speak of the same trace. On an audited
trace (`filter.audit_share`) those after the deciding one are asked too. What they say changes no outcome.
"""

from __future__ import annotations

from finr1.types import stable_id


def is_audited(trace_id: str, share: float, seed: int) -> bool:
    """Whether a trace is among the audited share: by a hash, the same in every process and for every resume."""
    return share > 0 and int(stable_id("audit", seed, trace_id), 16) < share * 16**16
