"""Any JSONL or JSON file, by field names in yaml alone."""

from __future__ import annotations

from finr1.parts.source.table import TableSource


class Jsonl(TableSource):
    """One object a line; also JSON arrays and `.gz`. See `TableSource`."""

    NAME, WORDING = "jsonl", "question.v1"
    PATTERNS = ("*.jsonl", "*.jsonl.gz", "*.json")
    RULES = ({"language": "en", "module": "professional knowledge", "domain": "finance"},)
