"""Parquet files of one split of one layout, streamed: memory does not grow with the number of rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

GROUP_ROWS = 256  # rows of a row group, and the most that are buffered


class Shards:
    """`<split>-00000.parquet`, `<split>-00001.parquet`, …, of at most `shard_rows` rows each; none without a row.

    Use as a context manager.
    """

    def __init__(self, folder: Path, split: str, schema: pa.Schema, shard_rows: int) -> None:
        self.folder, self.split, self.schema, self.shard_rows = folder, split, schema, shard_rows
        self.rows = 0  # written or buffered
        self.files = 0
        self._buffer: list[Mapping[str, Any]] = []
        self._writer: pq.ParquetWriter | None = None

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        self._buffer.append(row)
        self.rows += 1
        if self.rows % self.shard_rows == 0:
            self._end_file()
        elif len(self._buffer) >= GROUP_ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self._writer is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"{self.split}-{self.files:05d}.parquet"
            self._writer = pq.ParquetWriter(path, self.schema, compression="zstd")
        if self._buffer:
            self._writer.write_table(pa.Table.from_pylist(self._buffer, schema=self.schema))
        self._buffer.clear()

    def _end_file(self) -> None:
        self._flush()
        assert self._writer is not None
        self._writer.close()
        self._writer = None
        self.files += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._buffer or self._writer is not None:
            self._end_file()
