"""FinQA, numerical reasoning over S&P 500 report pages: JSON arrays `train.json`, `dev.json`, `test.json`.

Upstream: GitHub czyssrs/FinQA (MIT). Train split: the train and dev files, whichever are there; held-out: the test file
(Fin-R1 distilled from all three). The gold is `exe_ans`, the executed program, since the annotator's `answer` is at
times empty, rounded or wrong. Wording: Fin-R1's README. One document is one report page, which ConvFinQA uses too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from finr1.errors import DataError
from finr1.prompt import fill
from finr1.source.base import data_folder, need, read_json_rows
from finr1.types import Message, Question, Split

FILES: dict[str, Split] = {"train.json": "train", "dev.json": "train", "test.json": "test"}
_NUMBER = re.compile(r"-?\s*\$?\s*(?:\d[\d,]*\.?\d*|\.\d+)")


class FinQA:
    """Questions with an executed answer.

    `tolerance` is the relative difference at which an answer still counts: `exe_ans` shows five decimals that no one
    writes. FinQA names none; 1% is that of the EnvCommons/FinQA environment.
    """

    def __init__(self, path: str, wording: str = "finqa.v1", tolerance: float = 0.01, name: str = "finqa") -> None:
        self.path, self.wording, self.tolerance, self.name = path, wording, tolerance, name

    def load(self) -> Iterator[Question]:
        """The files that are there, in order; DataError when none is, or naming the row that is not as upstream's."""
        folder = data_folder(self.path)
        files = [folder / name for name in FILES if (folder / name).is_file()]
        if not files:
            raise DataError(folder, f"none of {', '.join(FILES)} in it", "put the data set's own files there")
        for file in files:
            for place, row in read_json_rows(file):
                yield self._question(place, row, FILES[file.name])

    def _question(self, place: str, row: dict[str, Any], split: Split) -> Question:
        qa = need(row, "qa", place)
        value, shown = need(qa, "exe_ans", place), str(qa.get("answer", "")).strip()
        doubt, percent = agreement(value, shown)
        text = fill(
            self.wording,
            document=need(row, "filename", place),
            id=need(row, "id", place),
            pre_text="\n".join(need(row, "pre_text", place)),
            table=str(need(row, "table", place)),
            post_text="\n".join(need(row, "post_text", place)),
            question=need(qa, "question", place),
        )
        meta = {"row": row["id"], "program": qa.get("program", ""), "answer": shown, "doubt": doubt, "percent": percent}
        return Question(
            source=self.name,
            document_id=row["filename"],
            language="en",
            module="reasoning business",
            kind="yes_no" if isinstance(value, str) else "number",
            prompt=[Message(role="user", content=text)],
            gold=plain(value, place),
            split=split,
            # a gold in percentage points (16.9 for 16.9%) is read as such; a fraction (0.169) equals 16.9% by value
            meta={**meta, "tolerance": self.tolerance, **({"unit": "%"} if percent == "points" else {})},
        )


def plain(value: object, place: str) -> str:
    """`exe_ans` as text without exponent or trailing zeros: 1e-05 is 0.00001, 2057.0 is 2057, `yes` stays."""
    if isinstance(value, str) and value.strip().lower() in ("yes", "no"):
        return value.strip().lower()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value or abs(value) == float("inf"):
        raise DataError(place, f"exe_ans {value!r}", "it should be a number, yes or no")
    text = format(Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def agreement(value: object, shown: str) -> tuple[str, str]:
    """How the executed answer and the annotator's text fit together.

    Returns a doubt ("" none, "no answer", "unreadable", "sign", "value") and, where the text is a percentage of that
    size, whether the executed answer is in "points" (16.9) or a "fraction" (0.169).
    """
    if not shown:
        return "no answer", ""
    if isinstance(value, str):
        return ("" if shown.lower().startswith(value.strip().lower()) else "value"), ""
    match = _NUMBER.search(shown)
    if not match or not isinstance(value, (int, float)):
        return "unreadable", ""
    digits = re.sub(r"[\s$,]", "", match.group())
    written, room = float(digits), 0.51 * 10.0 ** -len(digits.partition(".")[2])
    percent = "%" in shown or "percent" in shown.lower()
    for factor in (1.0, 0.01, 100.0):
        if abs(abs(written) - abs(value / factor)) <= max(room, 0.01 * abs(written)):
            kind = {1.0: "points", 0.01: "fraction", 100.0: ""}[factor] if percent else ""
            return ("sign" if written * value < 0 else ""), kind
    return "value", ""
