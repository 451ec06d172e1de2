"""FinanceIQ, Chinese finance certificate exams: `{dev,test}/<subject>.csv` with columns `,Question,A,B,C,D,Answer`.

Upstream: GitHub Duxiaoman-DI/XuanYuan, hub Duxiaoman-DI/FinanceIQ (CC BY-NC-SA 4.0). Its `dev` (five rows per subject,
meant as few-shot examples) is the train split here and its `test` is held out; Fin-R1 distilled from both. Prompt: the
examples in Fin-R1's README.
"""

from __future__ import annotations

from collections.abc import Iterator

from finr1.core.errors import RowError
from finr1.core.types import Question, Split
from finr1.parts.source.files import FileSource, option_lines
from finr1.parts.source.reading import DataFile, SourceRow

LETTERS = ("A", "B", "C", "D")


class FinanceIQ(FileSource):
    """Single-choice exam questions; the subject is the file name."""

    NAME, WORDING, COLUMNS = "financeiq", "financeiq.v1", ("", "Question", *LETTERS, "Answer")
    FILES = (("train", "dev/*.csv"), ("test", "test/*.csv"))
    RULES = ({"language": "zh", "module": "professional knowledge", "domain": "金融从业资格考试"},)

    def questions(self, row: SourceRow, split: Split, file: DataFile) -> Iterator[Question]:
        fields = {name: value.strip() for name, value in row.values.items()}
        answer, subject = fields["Answer"].upper(), file.name.removesuffix(".csv")
        if answer not in LETTERS:
            raise RowError(row.place, f"answer {row.values['Answer']!r}", f"answers are {', '.join(LETTERS)}")
        choices = {letter: fields[letter] for letter in LETTERS}
        if not fields["Question"] or not all(choices.values()):
            raise RowError(row.place, "an empty question" if not fields["Question"] else "an empty option")
        yield self.question(
            row,
            split,
            document=f"financeiq/{'dev' if split == 'train' else 'test'}/{subject}/{fields['']}",
            gold=answer,
            kind="choice",
            tags=self.rules.tags({"subject": subject, "question": fields["Question"]}),
            places={"question": fields["Question"], "choices": option_lines(choices)},
            choices=choices,
            meta={"subject": subject},
        )
