"""Any Parquet file, by field names in yaml alone."""

from __future__ import annotations

from finr1.parts.source.table import TableSource


class Parquet(TableSource):
    """Parquet files, also those below subfolders, as hub data sets are laid out. See `TableSource`."""

    NAME, WORDING = "parquet", "question.v1"
    PATTERNS = ("**/*.parquet",)
    RULES = ({"language": "en", "module": "professional knowledge", "domain": "finance"},)
