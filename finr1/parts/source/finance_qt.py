"""FinanceQT, questions on quant-trading programs: Parquet with the columns `context`, `answer`, `question`.

Upstream: hub lumalik/Quant-Trading-Instruct (Malik 2024; 386 rows, no licence given). The gold is a whole program: no
rule can compare it, so the rows are distilled and judged, never part of RL. Wording: Fin-R1's README.
"""

from __future__ import annotations

from finr1.parts.source.table import TableSource


class FinanceQT(TableSource):
    """One program a row."""

    NAME, WORDING, KIND = "finance_qt", "finance_qt.v1", "code"
    PATTERNS = ("**/*.parquet", "*.jsonl", "*.json", "*.csv")
    FIELDS = (("context", "context"), ("question", "question"), ("gold", "answer"))
    RULES = ({"language": "en", "module": "financial code", "domain": "quant trading code"},)
