"""Files of the Hugging Face hub, through `datasets`: their addresses, and their rows as a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from finr1.core.errors import ConfigError, DataError

HUB = "hub:"


def reason(error: Exception) -> str:
    """The first line of an error's text."""
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error).strip().partition("\n")[0][:120]


def addresses(path: str, pattern: str) -> list[str]:
    """The files of a hub id that match a pattern; ConfigError if `datasets` cannot open it."""
    from datasets import load_dataset_builder
    from datasets.exceptions import DataFilesNotFoundError

    name, _, revision = path.removeprefix(HUB).partition("@")
    try:
        builder = load_dataset_builder(name, data_files={"train": pattern}, revision=revision or None)
    except DataFilesNotFoundError:
        return []
    except Exception as error:  # any error of the network or of the hub's files
        why = f"`datasets` cannot open it ({type(error).__name__}: {reason(error)})"
        raise ConfigError("path", path, why, "check the name and the network, or use a folder") from error
    return [str(at) for at in (builder.config.data_files or {}).get("train", [])]


def stream(builder: str, at: str, form: str | None = None, **options: Any) -> Iterator[Any]:
    """The rows of one hub file as they arrive, as dictionaries or in this format; DataError if the stream breaks."""
    from datasets import load_dataset

    number = 0
    try:
        rows = load_dataset(builder, data_files={"train": at}, split="train", streaming=True, **options)
        for row in rows.with_format(form):
            yield row
            number += 1
    except Exception as error:  # any error of the network or of the format
        why = f"`datasets` stops after row {number} ({type(error).__name__}: {reason(error)})"
        raise DataError(at, why, "check the network, or download the file and set its folder") from error
