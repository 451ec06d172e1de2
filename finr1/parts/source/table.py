"""Questions from rows with named fields, one a row: what the generic sources and the simplest data sets share."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from finr1.answer.choices import letters_named
from finr1.core.errors import ConfigError, RowError
from finr1.core.types import Kind, Question, Split, stable_id
from finr1.parts.source.files import FileSource, option_lines
from finr1.parts.source.reading import HUB, DataFile, SourceRow, need, text_of
from finr1.parts.source.rules import Rule

_SPECIAL = ("gold", "choices", "document")
_LETTERS = "ABCDEFGH"


class TableSource(FileSource):
    """One question a row, by field names.

    `fields` maps what a question needs to the columns that hold it: `gold` (rows without one are never scored),
    `choices` (a list of columns, or one column with a list or a mapping; the gold is then a letter, several, an
    option's text, or a list of these; options are called as their columns where those are letters, else A, B, …),
    `document` (what must not straddle a split; default: the places), and every `{place}` of the wording, or of the
    `template` that stands in its place. `path` is a folder, a file, or
    `hub:<owner>/<name>`; `files` are patterns in it, `test_files` those of files held out whole. `tolerance` is the
    relative difference at which a number still counts: golds such as 0.06757 show more digits than anyone writes
    (6.76%). 0: the precision that the gold shows.
    """

    FIELDS: ClassVar[Sequence[tuple[str, Any]]] = (("question", "question"), ("gold", "answer"))
    KIND: ClassVar[Kind] = "text"
    PATTERNS: ClassVar[Sequence[str]]
    FILES = ()
    REMEDY = "say by `fields` which of its columns hold what, or mend the file"

    def __init__(
        self,
        path: str | None,
        files: Sequence[str] | None = None,
        fields: Mapping[str, Any] | None = None,
        wording: str = "",
        rules: Sequence[Rule] | None = None,
        test_share: float | None = None,
        test_files: Sequence[str] = (),
        name: str = "",
        licence: str = "",
        template: str = "",
        tolerance: float = 0.0,
    ) -> None:
        super().__init__(str(path or ""), wording, rules, test_share, name, licence)
        if not path:
            self.no_path()
        self._train, self._test = self.PATTERNS if files is None else files, test_files
        named = self.FIELDS if fields is None else fields.items()
        self.fields = {name: column for name, column in named if column is not None}
        if not set(self.fields) - set(_SPECIAL):
            why = "it fills no place of the wording"
            raise ConfigError(f"source.{self.name}.fields", self.fields, why, "add {question: <column>}")
        if not 0 <= tolerance < 1:
            raise ConfigError(f"source.{self.name}.tolerance", tolerance, "not a relative difference", "use e.g. 0.01")
        self.template, self.tolerance = template, tolerance
        for place in re.findall(r"\{(\w+)\}", template):
            if place != "choices" and place not in self.fields:
                remedy = f"add {{{place}: <column>}} to its fields"
                raise ConfigError(f"source.{self.name}.template", template, f"nothing fills {{{place}}}", remedy)

    def no_path(self) -> None:
        """ConfigError: nothing says where the rows are."""
        remedy = f"set source.{self.name}.path=<file, folder or {HUB}owner/name>"
        raise ConfigError(f"source.{self.name}.path", None, "it does not say where the rows are", remedy)

    def patterns(self) -> Sequence[tuple[Split, str]]:
        return [*(("test", name) for name in self._test), *(("train", name) for name in self._train)]

    def questions(self, row: SourceRow, split: Split, file: DataFile) -> Iterator[Question]:
        names = {name: column for name, column in self.fields.items() if name not in _SPECIAL}
        places = {name: text_of(row, column) for name, column in names.items()}
        choices = self._choices(row)
        if not any(places.values()):
            raise RowError(row.place, f"nothing in {', '.join(names.values())}")
        document = str(need(row, self.fields["document"])) if "document" in self.fields else stable_id(places)
        document = f"{self.name}/{document}"
        tags = self.rules.tags({**row.values, **places, "file": file.name})
        kind: Kind = tags.kind or ("choice" if choices else self.KIND)
        yield self.question(
            row,
            split,
            document=document,
            gold=self._gold(row, kind, choices),
            kind=kind,
            tags=tags,
            places={**places, "choices": option_lines(choices)},
            choices=choices,
            meta={"tolerance": self.tolerance} if self.tolerance and kind == "number" else {},
        )

    def _choices(self, row: SourceRow) -> dict[str, str]:
        given = self.fields.get("choices")
        if given is None:
            return {}
        if not isinstance(given, str):
            texts = [str(need(row, column) or "").strip() for column in given]
            return {letter: text for letter, text in zip(self._letters(given), texts, strict=True) if text}
        value = need(row, given)
        if isinstance(value, Mapping):
            return {str(letter): str(text).strip() for letter, text in value.items() if text is not None}
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) > len(_LETTERS):
            raise RowError(row.place, f"`{given}` is no list of up to {len(_LETTERS)} choices")
        return {letter: str(text).strip() for letter, text in zip(_LETTERS, value, strict=False)}

    def _letters(self, columns: Sequence[str]) -> Sequence[str]:
        """What the options in these columns are called: the columns' names where they are letters, else A, B, …"""
        if all(re.fullmatch("[A-Za-z]", column) for column in columns):
            return [column.upper() for column in columns]
        if len(columns) > len(_LETTERS):
            why = f"{len(columns)} columns"
            raise ConfigError(f"source.{self.name}.fields.choices", list(columns), why, f"name up to {len(_LETTERS)}")
        return _LETTERS[: len(columns)]

    def _gold(self, row: SourceRow, kind: Kind, choices: Mapping[str, str]) -> str | None:
        value = row.values.get(self.fields["gold"]) if "gold" in self.fields else None
        if value is None or value != value or not str(value).strip():  # NaN is how a table shows nothing
            return None
        several = isinstance(value, list) and kind == "choice"  # each right option by itself
        if isinstance(value, Mapping) or (isinstance(value, list) and not (several and value)):
            raise RowError(row.place, f"`{self.fields['gold']}` is no single value")
        golds = [str(item).strip() for item in (value if several else [value])]
        if kind != "choice":
            return golds[0]
        found: set[str] = set()
        for gold in golds:
            letters, _ = letters_named(gold, "".join(choices), choices)
            if not letters:
                raise RowError(row.place, f"answer {gold[:60]!r} names none of the choices {', '.join(choices)}")
            found |= letters
        return "".join(sorted(found))
