"""TFNS, Twitter Financial News Sentiment: `sent_train.csv` and `sent_valid.csv` with columns `text,label`.

Upstream: hub zeroshot/twitter-financial-news-sentiment (MIT). Fin-R1 trained on all 11.93k rows; here the validation
file is held out. Prompt: Fin-R1's (arXiv 2503.16252 v5, Fig. 6).
"""

from __future__ import annotations

from collections.abc import Iterator

from finr1.core.errors import RowError
from finr1.core.prompt import LINK
from finr1.core.types import Question, Split, stable_id
from finr1.parts.source.files import FileSource
from finr1.parts.source.reading import DataFile, SourceRow, text_of

LABELS = {"0": "Bearish", "1": "Bullish", "2": "Neutral"}


class Tfns(FileSource):
    """Tweets with one of three labels. Tweets that differ only in links are one document: news is often repeated."""

    NAME, WORDING, COLUMNS = "tfns", "tfns.v1", ("text", "label")
    FILES = (("train", "sent_train.csv"), ("test", "sent_valid.csv"))
    RULES = ({"language": "en", "module": "non-reasoning business", "domain": "sentiment of financial tweets"},)

    def questions(self, row: SourceRow, split: Split, file: DataFile) -> Iterator[Question]:
        label, text = text_of(row, "label"), text_of(row, "text")
        if label not in LABELS:
            raise RowError(row.place, f"label {label!r}", f"labels are {', '.join(LABELS)}")
        if not text:
            raise RowError(row.place, "an empty text")
        yield self.question(
            row,
            split,
            document=f"tfns/{stable_id(' '.join(LINK.sub(' ', text).casefold().split()))}",
            gold=label,
            kind="label",
            tags=self.rules.tags({"text": text}),
            places={"text": text},
            choices=LABELS,
        )
