"""ConvFinQA, FinQA's questions as conversations: one question per turn, with the earlier turns in its prompt.

Upstream: GitHub czyssrs/ConvFinQA (MIT), `data.zip`. Four layouts, distinguished by the keys of each row:

- native: `train.json`, `dev.json`, `test_private.json` (no gold), one conversation per row (`annotation.exe_ans_list`);
- turn files: `train_turn.json`, `dev_turn.json`, `test_turn_private.json`, one turn per row (`cur_dial`, `turn_ind`);
- `convfinqa_dev.json` of Program-of-Thoughts: text and table as strings, gold for the last turn only;
- `convfinqa_dataset.json`, a cleaned copy: gold for every turn, but corrupt tables, which are replaced by those of the
  file above if it is present.

Fin-R1's 14.12k rows are all turns of all splits; here dev and test are held out. Prompt, table and history: the example
in Fin-R1's README, and FinGPT/fingpt-convfinqa, which it quotes. A document is a report page, as in FinQA.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from finr1.answer.program import Table
from finr1.core.errors import RowError
from finr1.core.types import Question, Split
from finr1.parts.source.executed import examine
from finr1.parts.source.files import FileSource
from finr1.parts.source.reading import (
    DataFile,
    SourceRow,
    find,
    inside,
    items_of,
    need,
    read,
    table_of,
    text_of,
    texts_of,
)
from finr1.parts.source.rules import Rule

# per split: groups of files with the same conversations; the first file present is read
GROUPS: Mapping[Split, Sequence[Sequence[str]]] = {
    "train": (("train.json", "train_turn.json"),),
    "test": (
        ("dev.json", "dev_turn.json", "convfinqa_dataset.json", "convfinqa_dev.json"),
        ("test_private.json", "test_turn_private.json"),
    ),
}
_PAGE = re.compile(r"^(?:Single|Double)_(.+?\.pdf)(?:-\d+|$)")


class _Conversation(NamedTuple):
    """Per turn: question, executed answer (None: not published), annotated answer, program; and the report page."""

    questions: Sequence[str]
    answers: Sequence[Any]
    shown: Sequence[str]
    programs: Sequence[str]
    page: Mapping[str, str]  # pre_text, table, post_text as the prompt shows them
    table: Table = ()
    turns: Sequence[int] = ()  # turns that become questions; empty: all


class ConvFinQA(FileSource):
    """One question with an executed answer per turn. `tolerance` and `drop_doubtful` are those of `FinQA`.

    `files` (glob patterns by split) replaces the automatic choice among upstream's files.
    """

    NAME, WORDING = "convfinqa", "convfinqa.v1"
    FILES = tuple((split, name) for split, groups in GROUPS.items() for group in groups for name in group)
    RULES = (
        {
            "language": "en",
            "module": "reasoning business",
            "domain": "conversational numerical reasoning over company reports",
        },
    )

    def __init__(
        self,
        path: str,
        wording: str = "",
        rules: Sequence[Rule] | None = None,
        files: Mapping[Split, Sequence[str]] | None = None,
        tolerance: float = 0.01,
        drop_doubtful: bool = False,
        name: str = "",
        licence: str = "",
    ) -> None:
        super().__init__(path, wording, rules, name=name, licence=licence)
        self.chosen, self.tolerance, self.drop_doubtful = files, tolerance, drop_doubtful
        self._tables: dict[str, str] = {}

    def files(self) -> Iterator[tuple[Split, DataFile]]:
        if self.chosen is not None:
            for split, patterns in self.chosen.items():
                yield from ((split, file) for file in find(self.path, patterns))
            return
        for split, groups in GROUPS.items():
            for group in groups:
                files = (file for name in group for file in find(self.path, [f"**/{name}"]))
                yield from ((split, file) for file in islice(files, 1))

    def load(self) -> Iterator[Question]:
        rows = (row for file in find(self.path, ["**/convfinqa_dev.json"]) for row in read(file) if not row.fault)
        self._tables = {text_of(row, "id"): _table_of_text(row) for row in rows}
        yield from super().load()

    def questions(self, row: SourceRow, split: Split, file: DataFile) -> Iterator[Question]:
        row_id = text_of(row, "id")
        if "annotation" in row.values:
            talk = _native(row)
        elif "dialogue" in row.values:
            talk = _cleaned(row, self._tables.get(row_id))
        elif "questions" in row.values:
            talk = _derived(row)
        else:
            raise RowError(row.place, "none of `annotation`, `dialogue`, `questions` in it")
        page = _PAGE.match(row_id)
        document = row.values.get("filename") or (page[1] if page else None)
        if not isinstance(document, str):
            raise RowError(row.place, f"no report page in its id {row_id[:60]!r}")
        if not talk.questions:
            raise RowError(row.place, "no question in its conversation")
        for turn in talk.turns or range(len(talk.questions)):
            try:
                yield self._question(row, split, talk, turn, row_id, document)
            except RowError as error:  # sets one turn aside, not the conversation
                self.put_aside(error, split)

    def _question(
        self, row: SourceRow, split: Split, talk: _Conversation, turn: int, row_id: str, document: str
    ) -> Question:
        value = talk.answers[turn] if turn < len(talk.answers) else None
        program = str(talk.programs[turn]) if turn < len(talk.programs) else ""
        shown = talk.shown[turn] if turn < len(talk.shown) else ""
        gold, meta = None, {"program": program, "answer": shown, "doubt": "", "percent": ""}
        if value is not None:
            place = f"{row.place} turn {turn}"
            asked = talk.questions[turn]
            gold, meta = examine(value, shown or None, program, talk.table, place, self.drop_doubtful, asked)
        history = [
            line
            for question, answer in zip(talk.questions[:turn], _history(talk.answers, turn), strict=True)
            for line in (f"Question: {question}\n", *([f"Answer: {answer}\n"] if answer is not None else []))
        ]
        places = {**talk.page, "history": "".join(history), "question": talk.questions[turn]}
        return self.question(
            row,
            split,
            document=document,
            gold=gold,
            kind="yes_no" if isinstance(value, str) else "number",
            tags=self.rules.tags(places),
            places=places,
            within={"dialogue": "{history}Question: {question}"},
            meta={"row": row_id, "turn": turn, **meta, "tolerance": self.tolerance},
        )


def _history(answers: Sequence[Any], turn: int) -> list[Any]:
    """The answers before a turn; None where they are not published."""
    return [*answers[:turn], *[None] * (turn - len(answers[:turn]))]


def _native(row: SourceRow) -> _Conversation:
    inner = inside(row, "annotation")
    questions = texts_of(inner, "dialogue_break" if "dialogue_break" in inner.values else "cur_dial")
    table = table_of(row, "table")
    page = {
        "pre_text": inner.values.get("amt_pre_text") or " ".join(texts_of(row, "pre_text")),
        "table": inner.values.get("amt_table") or html(table),
        "post_text": inner.values.get("amt_post_text") or " ".join(texts_of(row, "post_text")),
    }
    turns: tuple[int, ...] = ()
    if "turn_ind" in inner.values or "cur_dial" in inner.values:
        turn = inner.values.get("turn_ind", len(items_of(inner, "cur_dial")) - 1)
        if not isinstance(turn, int) or not 0 <= turn < len(questions):
            raise RowError(row.place, f"turn {turn} of {len(questions)}")
        turns = (turn,)
    # the annotator's own answers are those of the FinQA questions: the last turn's, for a conversation of one of them
    qa = row.values.get("qa")
    shown = [""] * (len(questions) - 1) + [str(qa.get("answer", "")).strip() if isinstance(qa, dict) else ""]
    programs = items_of(inner, "turn_program")
    return _Conversation(questions, items_of(inner, "exe_ans_list"), shown, programs, page, table, turns)


def _derived(row: SourceRow) -> _Conversation:
    questions = texts_of(row, "questions")
    unknown = [None] * (len(questions) - 1)
    return _Conversation(
        questions,
        [*unknown, need(row, "answer")],
        [],
        [],
        {"pre_text": text_of(row, "text"), "table": _table_of_text(row), "post_text": ""},
    )


def _table_of_text(row: SourceRow) -> str:
    """A table that is a text (rows by line, cells by ` | `, `-` for an empty corner) as the prompt shows it."""
    rows = [[cell.strip() for cell in line.split(" | ")] for line in text_of(row, "table").split("\n")]
    rows[0][0] = rows[0][0].removeprefix("-")
    return html(rows)


def _cleaned(row: SourceRow, shown_table: str | None) -> _Conversation:
    talk, doc = inside(row, "dialogue"), inside(row, "doc")
    columns = {name: inside(inside(doc, "table"), name).values for name in inside(doc, "table").values}
    labels = list(dict.fromkeys(label for column in columns.values() for label in column))
    table = [["", *columns], *([label, *(str(c.get(label, "")) for c in columns.values())] for label in labels)]
    return _Conversation(
        texts_of(talk, "conv_questions"),
        items_of(talk, "executed_answers"),
        texts_of(talk, "conv_answers"),
        texts_of(talk, "turn_program"),
        {
            "pre_text": text_of(doc, "pre_text"),
            "table": shown_table or html(table),
            "post_text": text_of(doc, "post_text"),
        },
        table,
    )


def html(table: Table) -> str:
    """A table as upstream's `amt_table` shows it: rows numbered from 1."""
    rows = "".join(
        f"<tr><td>{number}</td>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>"
        for number, row in enumerate(table, 1)
    )
    return f"<table class='wikitable'>{rows}</table>"
