"""Reads a `.wandb` file. wandb writes LevelDB's log framing: a 7-byte header, blocks of 32 KiB, and in them pieces of
`crc32 (4) | length (2) | type (1) | data`, types full, first, middle, last; a whole record is one protobuf message."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

_BLOCK, _HEADER = 32_768, 7
_FULL, _FIRST, _LAST = 1, 2, 4


def records(path: Path) -> Iterator[Any]:
    """The protobuf records in order; asserts every checksum."""
    data = path.read_bytes()
    assert data[:4] == b":W&B", "not a .wandb file"
    position, parts = _HEADER, b""
    while position + _HEADER <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < _HEADER:  # the padding at a block's end
            position += left
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        piece = data[position + _HEADER : position + _HEADER + length]
        checksum = int.from_bytes(data[position : position + 4], "little")
        assert zlib.crc32(bytes([kind]) + piece) == checksum, f"broken record at byte {position}"
        parts = piece if kind in (_FULL, _FIRST) else parts + piece
        if kind in (_FULL, _LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record
        position += _HEADER + length


def read(path: Path) -> dict[str, Any]:
    """`{"id", "name", "project", "config", "history": [...], "metrics": {name: step metric}, "exit_code"}`."""
    found: dict[str, Any] = {"config": {}, "history": [], "metrics": {}, "exit_code": None}
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found |= {"id": record.run.run_id, "name": record.run.display_name, "project": record.run.project}
            found["config"] |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            rows = record.history.item
            found["history"].append(
                {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in rows}
            )
        elif kind == "metric":
            name = record.metric.name or record.metric.glob_name
            found["metrics"][name] = record.metric.step_metric
        elif kind == "exit":
            found["exit_code"] = record.exit.exit_code
    return found
