"""Base class of the sources that read files: find the files, tag the rows, set aside what cannot be used."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from finr1.core.errors import ConfigError, DataError, RowError
from finr1.core.prompt import ASIDE, fill_spans, fill_text, load
from finr1.core.types import Kind, Message, Question, Split, stable_id
from finr1.parts.source.base import SetAside
from finr1.parts.source.reading import DataFile, SourceRow, find, read
from finr1.parts.source.rules import Rule, Rules, Tags

UNKNOWN = "unknown"  # licence


class FileSource(ABC):
    """A source that reads files in upstream's own layout.

    A row that cannot be used is added to `set_aside`, with file, line and reason; each `load` clears that list. Every
    row of a file gives a question or is set aside.

    Args:
        path: folder of the data set, or `hub:<owner>/<name>`.
        wording: prompt text, a file of finr1/core/prompt.
        rules: tags of the rows; see `Rules`.
        test_share: share of the documents with gold that are held out, chosen by a hash, in addition to upstream's own
            test files; None: `TEST_SHARE`.
        name: what the rows are called; empty: `NAME`.
        licence: of the data, for the data set's card.

    Raises:
        ConfigError: a setting is invalid, or the folder does not exist.
        DataError: a file cannot be read, has no usable row, or has rows of which nothing is known afterwards.
    """

    NAME: ClassVar[str]
    WORDING: ClassVar[str]
    RULES: ClassVar[Sequence[Rule]]
    FILES: ClassVar[Sequence[tuple[Split, str]]]  # glob patterns below `path`, in reading order
    COLUMNS: ClassVar[Sequence[str]] = ()
    ROW: ClassVar[type] = dict
    TEST_SHARE: ClassVar[float] = 0.0
    ASKED: Sequence[str] = ("question",)  # placeholders of what is asked; the others but for `ASIDE` hold its context
    REMEDY: ClassVar[str] = "fix the file, or download it again"  # for a file without any usable row

    def __init__(
        self,
        path: str,
        wording: str = "",
        rules: Sequence[Rule] | None = None,
        test_share: float | None = None,
        name: str = "",
        licence: str = "",
    ) -> None:
        self.licence = licence or UNKNOWN
        self.path, self.name, self.wording = path, name or self.NAME, wording or self.WORDING
        self.rules = Rules(self.RULES if rules is None else rules, f"source.{self.name}.rules")
        if "{" not in self.wording:
            load(self.wording, key=f"source.{self.name}.wording")
        self.template = ""  # replaces the wording in sources that take one
        self.test_share = self.TEST_SHARE if test_share is None else test_share
        if not 0 <= self.test_share <= 1:
            raise ConfigError(f"source.{self.name}.test_share", test_share, "not a share", "use 0 to 1")
        self.set_aside: list[SetAside] = []
        self.n_rows = 0

    def patterns(self) -> Sequence[tuple[Split, str]]:
        """Split and glob pattern of the files below `path`."""
        return self.FILES

    def files(self) -> Iterator[tuple[Split, DataFile]]:
        """The files to read and the split of each; a file belongs to the first pattern that matches it."""
        split_of: dict[DataFile, Split] = {}
        for split, pattern in self.patterns():
            for file in find(self.path, [pattern]):
                split_of.setdefault(file, split)
        yield from ((split, file) for file, split in split_of.items())

    @abstractmethod
    def questions(self, row: SourceRow, split: Split, file: DataFile) -> Iterable[Question]:
        """The questions of one row; RowError sets the row aside."""

    def load(self) -> Iterator[Question]:
        self.set_aside, self.n_rows = [], 0
        files = list(self.files())
        if not files:
            names = ", ".join(dict.fromkeys(pattern.rpartition("**/")[2] for _, pattern in self.patterns()))
            raise DataError(self.path, f"none of {names} in it", "put the data set's files there")
        for split, file in files:
            before, n_rows, n_used, n_set_aside = len(self.set_aside), 0, 0, 0
            for row in read(file, self.COLUMNS, self.ROW):
                n_rows += 1
                n_before, used = len(self.set_aside), False
                try:
                    if row.fault:
                        raise RowError(row.place, row.fault)
                    for question in self.questions(row, split, file):
                        yield question
                        used = True
                except RowError as error:
                    self.put_aside(error, split)
                n_used += used
                n_set_aside += not used and len(self.set_aside) > n_before
            if n_used + n_set_aside != n_rows:
                why = f"{n_used} rows that gave questions and {n_set_aside} set aside are not its {n_rows} rows"
                raise DataError(file.at, why, "report it")
            self.n_rows += n_rows
            aside = self.set_aside[before:]
            if not n_used and all(row.reason == "unreadable" for row in aside):
                why = f"no usable row; the first, {aside[0].place}: {aside[0].why}" if aside else "no row in it"
                raise DataError(file.at, why, self.REMEDY)

    def put_aside(self, error: RowError, split: Split) -> None:
        """Record place and reason of a row that does not become a question."""
        self.set_aside.append(SetAside(error.place, error.reason, error.why, split))

    def question(
        self,
        row: SourceRow,
        split: Split,
        *,
        document: str,
        gold: str | None,
        kind: Kind,
        tags: Tags,
        places: Mapping[str, str],
        choices: Mapping[str, str] | None = None,
        meta: Mapping[str, Any] | None = None,
        within: Mapping[str, str] | None = None,
    ) -> Question:
        """A question whose prompt is the wording with `places` filled in.

        `within` are placeholders that hold others: `{"dialogue": "{history}{question}"}`.

        Raises:
            RowError: the text cannot be encoded as UTF-8.
        """
        wording = tags.wording or self.wording
        template = fill_text(self.template or load(wording), **(within or {}))
        text, spans = fill_spans(template, places)
        filled = [(name, span) for name, found in spans.items() for span in found if span[0] < span[1]]
        try:
            for part in (text, gold or "", document, *(choices or {}).values()):
                part.encode()
        except UnicodeEncodeError as error:
            raise RowError(row.place, "half of a surrogate pair in its text") from error
        return Question(
            source=self.name,
            document_id=document,
            language=tags.language,
            module=tags.module,
            kind=tags.kind_or(kind),
            prompt=[Message(role="user", content=text)],
            gold=gold,
            split="test" if gold is not None and _held_out(document, self.test_share) else split,
            choices=choices or {},
            asked=[span for name, span in filled if name in self.ASKED],
            context=[span for name, span in filled if name not in (*self.ASKED, *ASIDE)],
            meta={"origin": row.origin, "domain": tags.domain, "wording": wording, **(meta or {})},
        )


def option_lines(choices: Mapping[str, str]) -> str:
    """The options on one line, as in Fin-R1's prompts: `A: …    B: …`."""
    return "    ".join(f"{letter}: {text}" for letter, text in choices.items())


def _held_out(document: str, test_share: float) -> bool:
    """Whether a document is held out: decided by a hash, the same on every machine."""
    return int(stable_id("split", document), 16) < test_share * 16**16
