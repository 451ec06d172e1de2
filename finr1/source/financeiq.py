"""FinanceIQ, Chinese finance certificate exams: `{dev,test}/<subject>.csv` with columns `,Question,A,B,C,D,Answer`.

Upstream: GitHub Duxiaoman-DI/XuanYuan (CC BY-NC-SA 4.0). Its `dev` (five rows a subject, meant as few-shot examples) is
the train split here, its `test` the held-out one; Fin-R1 distilled from both. Wording: the examples in Fin-R1's README.
"""

from __future__ import annotations

from collections.abc import Iterator

from finr1.errors import DataError
from finr1.prompt import fill
from finr1.source.base import data_folder, read_csv
from finr1.types import Message, Question, Split

LETTERS = ("A", "B", "C", "D")
FOLDERS: dict[Split, str] = {"train": "dev", "test": "test"}


class FinanceIQ:
    """Single-choice exam questions; the file's name is the subject."""

    def __init__(self, path: str, wording: str = "financeiq.v1", name: str = "financeiq") -> None:
        self.path, self.wording, self.name = path, wording, name

    def load(self) -> Iterator[Question]:
        """Both folders, subject by subject; DataError names the row whose answer is no letter."""
        folder = data_folder(self.path)
        for split, part in FOLDERS.items():
            files = sorted((folder / part).glob("*.csv"))
            if not files:
                raise DataError(folder / part, "no <subject>.csv in it", "put the data set's own files there")
            for file in files:
                for place, row in read_csv(file, ("", "Question", *LETTERS, "Answer")):
                    answer = row["Answer"].strip().upper()
                    if answer not in LETTERS:
                        raise DataError(place, f"answer {row['Answer']!r}", f"answers are {', '.join(LETTERS)}")
                    choices = {letter: row[letter].strip() for letter in LETTERS}
                    options = "    ".join(f"{letter}: {text}" for letter, text in choices.items())
                    text = fill(self.wording, question=row["Question"].strip(), choices=options)
                    yield Question(
                        source=self.name,
                        document_id=f"financeiq/{part}/{file.stem}/{row['']}",
                        language="zh",
                        module="professional knowledge",
                        kind="choice",
                        prompt=[Message(role="user", content=text)],
                        gold=answer,
                        split=split,
                        choices=choices,
                        meta={"subject": file.stem},
                    )
