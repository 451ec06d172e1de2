"""FinPEE, calculation questions of postgraduate entrance exams (arXiv 2503.16252). Closed: its rows cannot be had.

Whoever has such questions gives a file of their own (JSONL, JSON, CSV or Parquet) with a question and an answer a row.
Wording: the one published example, in Fin-R1's README.
"""

from __future__ import annotations

from finr1.core.errors import ConfigError
from finr1.parts.source.table import TableSource


class FinPEE(TableSource):
    """A user's own file; `fields` names its columns."""

    NAME, WORDING, KIND = "finpee", "finpee.v1", "number"
    PATTERNS = ("*.jsonl", "*.json", "*.csv", "*.parquet")
    RULES = ({"language": "zh", "module": "reasoning business", "domain": "金融计算"},)

    def no_path(self) -> None:
        why = "FinPEE is closed (Fin-R1 lists it so): its rows cannot be had"
        raise ConfigError("source.finpee.path", None, why, "give a file of your own, or leave it out: '~source.finpee'")
