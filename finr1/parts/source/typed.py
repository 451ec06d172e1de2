"""Values of typed columns as their text shows them: a float32 of 0.1 is 0.1, a time a date, bytes a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def plain_rows(batch: pa.RecordBatch | pa.Table) -> list[dict[str, Any]]:
    """The rows of a batch of Arrow columns.

    A short float is the shortest number that it stands for, a timestamp at midnight its date, a decimal has the digits
    of its column, bytes are UTF-8 or else hexadecimal.
    """
    rows: list[dict[str, Any]] = batch.to_pylist()
    for field in batch.schema:
        if _is_typed(field.type):
            for row in rows:
                row[field.name] = _plain(row[field.name], field.type)
    return rows


def _is_typed(kind: pa.DataType) -> bool:
    import pyarrow.types as t

    if t.is_map(kind):
        return False
    if kind.num_fields:  # a list or a struct
        return any(_is_typed(kind.field(i).type) for i in range(kind.num_fields))
    tests = (t.is_float16, t.is_float32, t.is_timestamp, t.is_date, t.is_time, t.is_decimal)
    return any(test(kind) for test in tests) or _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    import pyarrow.types as t

    return bool(t.is_binary(kind) or t.is_large_binary(kind) or t.is_fixed_size_binary(kind))


def _plain(value: Any, kind: pa.DataType) -> Any:
    import numpy as np
    import pyarrow.types as t

    if value is None:
        return None
    if isinstance(value, list):
        return [_plain(item, kind.value_type) for item in value]
    if isinstance(value, dict):
        return {field.name: _plain(value[field.name], field.type) for field in kind}
    if t.is_float16(kind) or t.is_float32(kind):
        return float(str(np.float16(value) if t.is_float16(kind) else np.float32(value)))
    if t.is_timestamp(kind):
        return value.isoformat(sep=" ").removesuffix(" 00:00:00")
    if t.is_date(kind) or t.is_time(kind):
        return value.isoformat()
    if t.is_decimal(kind):
        return format(value, "f")
    if _is_bytes(kind):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value.hex()
    return value
