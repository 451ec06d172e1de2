"""The questions stage at Fin-R1's size: 60,000 generated rows within 90 s and 1.5 GB, and its recall of planted rows.

    python experiments/benchmarks/questions.py [--rows 60000]

Two kinds of rows: `worked` (short, all made from templates) and `Pages` below (250 words each, with duplicates,
near-duplicates and contaminated rows planted, so that recall can be counted).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from experiments.benchmarks.figures import Figures, stage
from finr1.core.types import Message, Question, Split, stable_id

HERE = "experiments.benchmarks.questions.Pages"
N_TEST = 1500
SHARES = {"copy": 0.03, "near": 0.05, "leak": 0.02}  # of the rows: planted


class Pages:
    """Report pages of random words with figures and a question each; `meta["planted"]` says what is planted."""

    name = "pages"

    def __init__(self, n_train: int, seed: int = 0) -> None:
        self.n_train, self.seed = n_train, seed

    def load(self) -> Iterator[Question]:
        """Held-out rows, then training rows."""
        rng = random.Random(self.seed)
        letters = "abcdefghijklmnopqrstuvwxyz"
        words = ["".join(rng.choices(letters, k=rng.randint(2, 10))) for _ in range(20_000)]
        held = [self._page(rng, words) for _ in range(N_TEST)]
        for page in held:
            yield self._question(page, "test", "")
        pages: list[list[str]] = []
        for _ in range(self.n_train):
            kind = rng.choices([*SHARES, "new"], [*SHARES.values(), 1 - sum(SHARES.values())])[0] if pages else "new"
            page = self._page(rng, words)
            if kind == "copy":
                page = [word.upper() for word in rng.choice(pages)]
            elif kind == "near":
                page = list(rng.choice(pages))
                for _ in range(5):  # five of some 250 words replaced: 92% of the bigrams stay
                    place = rng.choice([i for i, word in enumerate(page) if word.isalpha()])
                    page[place] = rng.choice(words)
            elif kind == "leak":
                start = rng.randrange(100)
                page[50:50] = rng.choice(held)[start : start + 20]
            pages += [page] if kind == "new" else []
            yield self._question(page, "train", kind)

    @staticmethod
    def _page(rng: random.Random, words: list[str]) -> list[str]:
        return [str(rng.randrange(10_000)) if rng.random() < 0.1 else rng.choice(words) for _ in range(250)]

    @staticmethod
    def _question(page: list[str], split: Split, planted: str) -> Question:
        text = " ".join(page)
        gold = str(sum(int(word) for word in page if word.isdigit()))
        return Question(
            source="pages",
            document_id=f"pages/{stable_id(text)}",
            language="en",
            module="reasoning business",
            kind="number",
            prompt=[Message(role="user", content=text)],
            gold=gold,
            split=split,
            meta={"planted": planted},
        )


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=60_000)
    rows = parser.parse_args().rows
    figures = Figures("questions")
    with tempfile.TemporaryDirectory() as folder:
        common = ("stage=questions", f"paths.runs={folder}")
        worked = (f"source.worked.n_train={rows}", "source.worked.difficulty=3", "source.worked.templates=null")
        seconds, memory = stage(*common, "name=worked", *worked)
        figures.add("worked_seconds", seconds, "< 90", f"s for {rows} rows")
        figures.add("worked_memory", memory, "< 1.5", "GB")
        pages = f"{{_target_: {HERE}, n_train: {rows}}}"
        held = f"{{_target_: finr1.parts.benchmark.held_out.HeldOut, source: {{_target_: {HERE}, n_train: 0}}}}"
        nodes = ("source=[]", "benchmark=[]", f"+source.pages={pages}", f"+benchmark.pages={held}")
        seconds, memory = stage(*common, "name=pages", *nodes)
        figures.add("pages_seconds", seconds, "< 90", f"s for {rows} rows")
        figures.add("pages_memory", memory, "< 1.5", "GB")
        planted = {
            question.id: question.meta["planted"] for question in Pages(rows).load() if question.split == "train"
        }
        path = Path(folder) / "pages" / "1_questions" / "removed.jsonl"
        removed = [json.loads(line)["id"] for line in path.read_text(encoding="utf-8").splitlines()]
    there, found = Counter(planted.values()), Counter(planted[row] for row in set(removed))
    for kind in SHARES:
        figures.add(f"found_{kind}", found[kind] / there[kind], "> 0.99", "share of planted rows")
    figures.add("removed_new", found["new"] / there["new"], "< 0.001", "share of sound rows")
    figures.write()


if __name__ == "__main__":
    main()
