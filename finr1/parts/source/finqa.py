"""FinQA, numerical reasoning over S&P 500 report pages: JSON arrays `train.json`, `dev.json`, `test.json`.

Upstream: GitHub czyssrs/FinQA (MIT). Train split: the train and dev files, as far as present; held out: the test file
(Fin-R1 distilled from all three). The gold is `exe_ans`, the result of the program, since the annotated `answer` is
sometimes empty, rounded or wrong. Prompt: Fin-R1's README. A document is a report page, which ConvFinQA shares.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from finr1.core.types import Question, Split
from finr1.parts.source.executed import examine
from finr1.parts.source.files import FileSource
from finr1.parts.source.reading import DataFile, SourceRow, inside, need, table_of, text_of, texts_of
from finr1.parts.source.rules import Rule


class FinQA(FileSource):
    """Questions with an executed answer.

    Args:
        tolerance: relative difference at which an answer still counts as correct, since answers rarely have the five
            decimals of `exe_ans`. FinQA specifies none; 1% is that of the EnvCommons/FinQA environment.
        drop_doubtful: set rows aside whose executed answer, annotated answer and program disagree (`DISAGREE`);
            otherwise they are marked in `meta["doubt"]`.
    """

    NAME, WORDING = "finqa", "finqa.v1"
    FILES = (("train", "train.json"), ("train", "dev.json"), ("test", "test.json"))
    RULES = ({"language": "en", "module": "reasoning business", "domain": "numerical reasoning over company reports"},)

    def __init__(
        self,
        path: str,
        wording: str = "",
        rules: Sequence[Rule] | None = None,
        tolerance: float = 0.01,
        drop_doubtful: bool = False,
        name: str = "",
        licence: str = "",
    ) -> None:
        super().__init__(path, wording, rules, name=name, licence=licence)
        self.tolerance, self.drop_doubtful = tolerance, drop_doubtful

    def questions(self, row: SourceRow, split: Split, file: DataFile) -> Iterator[Question]:
        inner = inside(row, "qa")
        qa = inner.values
        value, shown, program = need(inner, "exe_ans"), str(qa.get("answer", "")).strip(), str(qa.get("program", ""))
        table = table_of(row, "table")
        question = text_of(inner, "question")
        gold, meta = examine(value, shown, program, table, row.place, self.drop_doubtful, question)
        places = {
            "document": text_of(row, "filename"),
            "id": text_of(row, "id"),
            "pre_text": "\n".join(texts_of(row, "pre_text")),
            "table": str(table),
            "post_text": "\n".join(texts_of(row, "post_text")),
            "question": question,
        }
        yield self.question(
            row,
            split,
            document=places["document"],
            gold=gold,
            kind="yes_no" if isinstance(value, str) else "number",
            tags=self.rules.tags(places),
            places=places,
            meta={"row": places["id"], **meta, "tolerance": self.tolerance},
        )
