"""Finance-Instruct-500K, open finance questions: `train.json`, one object a line with `system`, `user`, `assistant`.

Upstream: hub Josephgflowers/Finance-Instruct-500k (518,185 rows, 580 MB; licence: see its card). The file is read as
a stream. It has no test split: Fin-R1 held out 10%, stratified; here a hash of the question decides. Wording: `user`
as it is (Fin-R1's README); `system`, mostly a line break, is left out.
"""

from __future__ import annotations

from finr1.parts.source.table import TableSource


class FinanceInstruct500k(TableSource):
    """Free-text golds: a judge compares them."""

    NAME, WORDING = "finance_instruct_500k", "question.v1"
    PATTERNS = ("train.json", "train.jsonl")
    FIELDS = (("question", "user"), ("gold", "assistant"))
    RULES = ({"language": "en", "module": "professional knowledge", "domain": "general finance"},)
