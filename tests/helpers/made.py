"""Rows of our own in upstream layouts: `write(name, folder)` writes a source's files and returns its `path`."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from finr1.cli.compose import CONF
from finr1.core.build import build
from finr1.parts.source.files import FileSource

Rows = Sequence[Any]


def jsonl(path: Path, rows: Rows) -> Path:
    """Write one JSON value per line, compressed if the name ends in `.gz`."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def array(path: Path, rows: Any) -> Path:
    """Write one JSON document."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def parquet(path: Path, rows: Rows) -> Path:
    """Write a Parquet file with the columns of the rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def source_of_yaml(name: str, path: str | None, **settings: Any) -> FileSource:
    """The source of `conf/source/<name>.yaml`, reading `path`."""
    node: Any = OmegaConf.to_container(OmegaConf.load(CONF / "source" / f"{name}.yaml"), resolve=False)
    source: FileSource = build({**node[name], "path": path, **settings})
    return source


def exam(stem: str, options: Sequence[str], answer: str, why: str = "") -> dict[str, Any]:
    """A FinCorpus row."""
    lines = [stem, *(f"{letter}、{text}" for letter, text in zip("ABCDEFGH", options, strict=False)), f"答案：{answer}"]
    return {"text": "\n".join([*lines, *([f"分析解释：{why}"] if why else [])]), "meta": {"source": "made"}}


EXAMS = [
    exam("企业存入100元，年利率5%，一年后的利息为（ ）元。", ["3", "5", "7", "9"], "B", "100×5%=5"),
    exam("下列属于流动资产的有（ ）。", ["现金", "厂房", "存货", "商誉"], '["A","C"]'),
    exam("下列不属于负债的是（ ）。", ["应付账款", "预收账款", "存货"], "存货"),
    exam("现金属于流动资产。", [], "正确"),
    exam("什么是资产？", [], "企业拥有的资源"),
]
_QUANT = [{"context": "You help.", "answer": f"print({n})", "question": f"Write a program for {n}."} for n in range(3)]
_PLAIN = [{"question": f"What is {n} + {n}?", "answer": str(2 * n)} for n in range(1, 4)]
_LAYOUTS: Mapping[str, Callable[[Path], Path]] = {
    "finance_qt": lambda folder: parquet(folder / "data" / "train-00000.parquet", _QUANT),
    "fincorpus": lambda folder: jsonl(folder / "data" / "fin_exam.jsonl.gz", EXAMS),
    "finpee": lambda folder: jsonl(folder / "mine.jsonl", [{"question": "求收益率。", "answer": "10%"}]),
    "jsonl": lambda folder: jsonl(folder / "rows.jsonl", _PLAIN),
    "parquet": lambda folder: parquet(folder / "rows.parquet", _PLAIN),
}


def write(name: str, folder: Path) -> str | None:
    """Write a source's made rows and return their folder; None for a source with real rows."""
    if name not in _LAYOUTS:
        return None
    _LAYOUTS[name](folder)
    return str(folder)
