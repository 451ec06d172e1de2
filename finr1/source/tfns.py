"""TFNS, Twitter Financial News Sentiment: `sent_train.csv` and `sent_valid.csv` with columns `text,label`.

Upstream: hub zeroshot/twitter-financial-news-sentiment (MIT). Fin-R1 used all 11.93k rows; here the validation file is
the held-out split. Wording: Fin-R1's (arXiv 2503.16252 v5, Fig. 6).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from finr1.errors import DataError
from finr1.prompt import fill
from finr1.source.base import data_folder, read_csv
from finr1.types import Message, Question, Split, stable_id

LABELS = {"0": "Bearish", "1": "Bullish", "2": "Neutral"}
FILES: dict[Split, str] = {"train": "sent_train.csv", "test": "sent_valid.csv"}
_LINK = re.compile(r"https?://\S+")


class Tfns:
    """Tweets with one of three labels. A document is a tweet without its links: the same news often comes twice."""

    def __init__(self, path: str, wording: str = "tfns.v1", name: str = "tfns") -> None:
        self.path, self.wording, self.name = path, wording, name

    def load(self) -> Iterator[Question]:
        """Both files, in order; DataError names the row of a wrong label."""
        folder = data_folder(self.path)
        for split, file in FILES.items():
            for place, row in read_csv(folder / file, ("text", "label")):
                label, text = row["label"].strip(), row["text"].strip()
                if label not in LABELS:
                    raise DataError(place, f"label {label!r}", f"labels are {', '.join(LABELS)}")
                if not text:
                    raise DataError(place, "an empty text", "mend or delete that row")
                yield Question(
                    source=self.name,
                    document_id=f"tfns/{stable_id(' '.join(_LINK.sub(' ', text).casefold().split()))}",
                    language="en",
                    module="non-reasoning business",
                    kind="label",
                    prompt=[Message(role="user", content=fill(self.wording, text=text))],
                    gold=label,
                    split=split,
                    choices=LABELS,
                )
