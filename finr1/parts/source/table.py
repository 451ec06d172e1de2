"""Any file with one question per row, configured in yaml alone: which column holds what, and which tags the rows get.

Used by `conf/source/{jsonl,parquet,finance_instruct_500k,finance_qt,finpee}.yaml` and `conf/benchmark/table.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from finr1.answer.choices import letters_named
from finr1.answer.golds import kind_of
from finr1.core.errors import ConfigError, RowError
from finr1.core.types import Kind, Question, Split, stable_id
from finr1.parts.source.files import FileSource, option_lines
from finr1.parts.source.hub import HUB
from finr1.parts.source.reading import DataFile, SourceRow, need, text_of
from finr1.parts.source.rules import AUTO, Rule

_SPECIAL = ("gold", "choices", "document", "category")
_HELD_OUT = re.compile(r"(?:^|[-_./])(?:test|valid|validation|val|dev|eval)(?:[-_./\d]|$)")  # in a file's path
_LABEL, _TEXT = ("label", "key", "letter", "id"), ("text", "content", "value", "option")  # of choices that are objects
_LETTERS = "ABCDEFGH"


class TableSource(FileSource):
    """One question per row of a JSONL, JSON, CSV or Parquet file (also `.gz`), by column names.

    `path` is a file, a folder or `hub:<owner>/<name>`. `files` are glob patterns below it; files that match
    `test_files` are held out whole.

    `fields` maps each part of a question to its column:

    - `gold`: the reference answer; rows without one are never scored;
    - `choices`: a list of columns, or one column that holds a list of texts or objects, a mapping, or `{label: [...],
      text: [...]}`. Options are named after their columns or labels where those are single letters, else A, B, …; the
      gold is then a letter, several letters, a label, an option's text, or a list of these; with `first_choice` (0 or
      1), the number of an option;
    - `document`: rows with the same value stay in one split; default: a hash of the question's fields;
    - `category`: kept as `meta["category"]`, for `stratify` and the report;
    - every other name fills the placeholder of that name in the wording, or in `template`, which replaces it.

    `tolerance` is the precision of its numbers: `exact`; `shown`, half of the last digit shown; a relative difference,
    for golds such as 0.06757 that show more digits than anyone writes (6.76%); None: an integer is exact, another
    number as shown. The kind `auto` of a rule is that of each row's own gold and options (`kind_of`).
    """

    NAME, WORDING = "table", "question.v1"
    FILES = tuple(("train", f"**/*.{suffix}") for suffix in ("jsonl", "jsonl.gz", "json", "csv", "parquet"))
    RULES = ({"language": "en", "module": "professional knowledge", "domain": "finance"},)
    REMEDY = "set `fields` to the names of its columns, or fix the file"

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
        tolerance: float | str | None = None,
        first_choice: int | None = None,
    ) -> None:
        super().__init__(str(path or ""), wording, rules, test_share, name, licence)
        key = f"source.{self.name}"
        if not path:
            remedy = f"set {key}.path=<file, folder or {HUB}owner/name>, or leave it out: '~{key}'"
            raise ConfigError(f"{key}.path", None, "no file to read", remedy)
        self._train, self._test = files, test_files
        columns = {"question": "question", "gold": "answer"} if fields is None else fields
        self.fields = {field: column for field, column in columns.items() if column is not None}
        if not set(self.fields) - set(_SPECIAL):
            why = "no field fills a placeholder of the wording"
            raise ConfigError(f"{key}.fields", self.fields, why, "add {question: <column>}")
        if tolerance not in (None, "exact", "shown") and not (
            isinstance(tolerance, float | int) and 0 <= tolerance < 1
        ):
            remedy = "use e.g. 0.01, or exact, shown or null"
            raise ConfigError(f"{key}.tolerance", tolerance, "not a relative difference", remedy)
        if first_choice not in (None, 0, 1):
            raise ConfigError(
                f"{key}.first_choice", first_choice, "options are counted from 0 or 1", "use 0, 1 or null"
            )
        self.template, self.tolerance, self.first_choice = template, tolerance, first_choice
        self._has_gold_column = False
        if "question" not in self.fields:  # the last of them asks
            self.ASKED = [name for name in self.fields if name not in _SPECIAL][-1:]
        for place in re.findall(r"\{(\w+)\}", template):
            if place != "choices" and place not in self.fields:
                remedy = f"add {{{place}: <column>}} to its fields"
                raise ConfigError(f"{key}.template", template, f"nothing fills {{{place}}}", remedy)

    def patterns(self) -> Sequence[tuple[Split, str]]:
        train = self.FILES if self._train is None else [("train", pattern) for pattern in self._train]
        return [*(("test", pattern) for pattern in self._test), *train]

    def files(self) -> Iterator[tuple[Split, DataFile]]:
        """The files; ConfigError where patterns that name no split match files of several."""
        found = list(super().files())
        named = self._train is not None and any(map(_HELD_OUT.search, self._train))
        train = [file.at.removeprefix(self.path) for split, file in found if split == "train" and not named]
        held_out = [at for at in train if _HELD_OUT.search(at)]
        if held_out and len(held_out) < len(train):
            other = next(at for at in train if at not in held_out)
            why = f"files of several splits are read as one: {other}, {held_out[0]}"
            remedy = "name those to read, and in test_files those to hold out, as in [data/train-*]"
            raise ConfigError(f"source.{self.name}.files", list(self._train or ("all",)), why, remedy)
        yield from found

    def load(self) -> Iterator[Question]:
        self._has_gold_column = False
        yield from super().load()
        if "gold" in self.fields and not self._has_gold_column:
            remedy = "name the column, or null for questions without gold"
            why = f"no row of {self.path} has this column"
            raise ConfigError(f"source.{self.name}.fields.gold", self.fields["gold"], why, remedy)

    def questions(self, row: SourceRow, split: Split, file: DataFile) -> Iterator[Question]:
        columns = {name: column for name, column in self.fields.items() if name not in _SPECIAL}
        places = {name: text_of(row, column) for name, column in columns.items()}
        if not any(places.values()):
            raise RowError(row.place, f"empty {', '.join(columns.values())}")
        document = str(need(row, self.fields["document"])) if "document" in self.fields else stable_id(places)
        document = f"{self.name}/{document}"
        tags = self.rules.tags({**row.values, **places, "file": file.name})
        choices, labels = self._choices(row, tags.kind == AUTO)
        value = row.values.get(self.fields["gold"]) if "gold" in self.fields else None
        self._has_gold_column = self._has_gold_column or self.fields.get("gold") in row.values
        kind: Kind = "choice" if choices else "text"
        if tags.kind == AUTO and value is not None and not isinstance(value, list):
            kind = kind_of(str(value), choices)
        if not choices or tags.kind != "text":  # options make a question a choice
            kind = tags.kind_or("choice" if choices and self._is_number(value) else kind)
        category = {"category": str(need(row, self.fields["category"]))} if "category" in self.fields else {}
        question = self.question(
            row,
            split,
            document=document,
            gold=self._gold(row, value, kind, choices, labels),
            kind=kind,
            tags=tags._replace(kind=kind),
            places={**places, "choices": option_lines(choices)},
            choices=choices,
            meta=category | ({} if self.tolerance is None or kind != "number" else {"tolerance": self.tolerance}),
        )
        if kind == "choice" and any(option not in question.text for option in choices.values()):
            shown = ("template", self.template) if self.template else ("wording", question.meta["wording"])
            why, remedy = "it does not show the choices", "put {choices} into it, or use e.g. wording=financeiq.v1"
            raise ConfigError(f"source.{self.name}.{shown[0]}", shown[1], why, remedy)
        yield question

    def _choices(self, row: SourceRow, optional: bool) -> tuple[dict[str, str], dict[str, str]]:
        """The options by letter, and the letters by the options' own labels."""
        given = self.fields.get("choices")
        if given is None:
            return {}, {}
        if not isinstance(given, str):
            texts = [str(need(row, column) or "").strip() for column in given]
            return {letter: text for letter, text in zip(self._letters(given), texts, strict=True) if text}, {}
        value = need(row, given)
        if optional and (value is None or value == []):
            return {}, {}
        if isinstance(value, Mapping) and any(isinstance(item, list) for item in value.values()):
            columns = [value.get(_key_among(names, value)) for names in (_LABEL, _TEXT)]
            pairs = list(zip(*columns, strict=False)) if all(isinstance(column, list) for column in columns) else []
        elif isinstance(value, Mapping):
            pairs = [(label, text) for label, text in value.items() if text is not None]
        elif isinstance(value, Sequence) and not isinstance(value, str):
            objects = [item for item in value if isinstance(item, Mapping)]
            pairs = [(item.get(_key_among(_LABEL, item), ""), item.get(_key_among(_TEXT, item))) for item in objects]
            pairs = pairs if len(objects) == len(value) else [("", text) for text in value]
        else:
            pairs = []
        if not 0 < len(pairs) <= len(_LETTERS) or any(isinstance(text, Mapping | list | None) for _, text in pairs):
            raise RowError(row.place, f"`{given}` is not a list of up to {len(_LETTERS)} choices")
        labels = [str(label).strip() for label, _ in pairs]
        letters = labels if all(re.fullmatch("[A-Za-z]", label) for label in labels) else list(_LETTERS[: len(labels)])
        choices = {letter.upper(): str(text).strip() for letter, (_, text) in zip(letters, pairs, strict=True)}
        return choices, dict(zip(labels, choices, strict=False))

    def _letters(self, columns: Sequence[str]) -> Sequence[str]:
        """The options' letters: the names of their columns if all are letters, else A, B, …"""
        if all(re.fullmatch("[A-Za-z]", column) for column in columns):
            return [column.upper() for column in columns]
        if len(columns) > len(_LETTERS):
            why = f"{len(columns)} columns"
            raise ConfigError(f"source.{self.name}.fields.choices", list(columns), why, f"name up to {len(_LETTERS)}")
        return _LETTERS[: len(columns)]

    def _gold(
        self, row: SourceRow, value: Any, kind: Kind, choices: Mapping[str, str], labels: Mapping[str, str]
    ) -> str | None:
        if value is None or value != value or not str(value).strip():  # NaN is an empty cell
            return None
        several = isinstance(value, list) and kind == "choice"  # a list of correct options
        if isinstance(value, Mapping) or (isinstance(value, list) and not (several and value)):
            raise RowError(row.place, f"`{self.fields['gold']}` is not a single value")
        golds = [str(item).strip() for item in (value if several else [value])]
        if kind != "choice":
            return golds[0]
        correct: set[str] = set()
        for gold in golds:
            if gold in labels:
                letters = {labels[gold]}
            elif self._is_number(gold) or (re.fullmatch(r"\d", gold) and gold not in choices.values()):
                letters = set(self._numbered(row, int(gold), list(choices)))
            else:
                letters, _ = letters_named(gold, "".join(choices), choices)
            if not letters:
                raise RowError(row.place, f"answer {gold[:60]!r} is none of the choices {', '.join(choices)}")
            correct |= letters
        return "".join(sorted(correct))

    def _is_number(self, gold: Any) -> bool:
        """Whether a gold is the number of an option."""
        return self.first_choice is not None and re.fullmatch(r"\d", str(gold).strip()) is not None

    def _numbered(self, row: SourceRow, number: int, letters: Sequence[str]) -> str:
        """The letter of the option with this number; empty if there is none."""
        if self.first_choice is None:
            why = f"answer {number} is a number, and source.{self.name}.first_choice does not say from where it counts"
            raise RowError(row.place, why)
        place = number - self.first_choice
        return letters[place] if 0 <= place < len(letters) else ""


def _key_among(names: Sequence[str], item: Mapping[str, Any]) -> str:
    return next((name for name in names if name in item), "")
