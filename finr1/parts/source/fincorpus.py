"""FinCorpus, the exam part: `fin_exam.jsonl` (or `.gz`), `{"text": …, "meta": {"source": …}}`, one question a line.

Upstream: hub Duxiaoman-DI/FinCorpus (Apache-2.0), read as a stream. `text` is the stem, then options on lines of
their own (`A、…`, `A．…`, `A.…`), then a line `答案：…` and often one with an explanation. The answer is a letter,
several, a JSON list of them, an option's text, or free text where there are no options; a row without an answer is
distilled, never scored. Fin-R1 used 235.21k rows. Prompt: the exam text with its options (Fin-R1's README).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from finr1.answer.choices import letters_named
from finr1.answer.yes_no import polarity
from finr1.core.errors import RowError
from finr1.core.types import Kind, Question, Split, stable_id
from finr1.parts.source.files import FileSource
from finr1.parts.source.reading import DataFile, SourceRow, text_of

_OPTION = re.compile(r"^\s*([A-Ha-hＡ-Ｈ])\s*[、．.:：)）]\s*(.*)$")
_ANSWER = re.compile(r"^\s*(?:参考|正确|标准)?答案\s*[:：]\s*(.*)$")
_WHY = re.compile(r"^\s*(?:分析解释|答案解析|试题解析|解析|分析|解释)\s*[:：]")
_PUNCTUATION = "。.;；,， "


class Exam(NamedTuple):
    """The parts of an exam text; `answer` is None if there is no answer line."""

    stem: str
    choices: Mapping[str, str]
    answer: str | None


def split_exam(text: str) -> Exam:
    """Split an exam text into stem, options and answer; the explanation is dropped."""
    stem: list[str] = []
    choices: dict[str, str] = {}
    answer: list[str] | None = None
    for line in text.splitlines():
        answer_line, option = _ANSWER.match(line), _OPTION.match(line)
        if _WHY.match(line):
            break
        if answer_line:
            answer = [answer_line[1]]
        elif answer is not None:
            answer.append(line)
        elif option and "ABCDEFGH"[len(choices) : len(choices) + 1] == (letter := _ascii(option[1])):
            choices[letter] = option[2].strip()
        elif choices:
            choices[list(choices)[-1]] += "\n" + line if line.strip() else ""
        else:
            stem.append(line)
    said = None if answer is None else "\n".join(answer).strip()
    return Exam("\n".join(stem).strip(), choices, said or None)


def _ascii(letter: str) -> str:
    return (chr(ord(letter) - 0xFEE0) if letter > "z" else letter).upper()


def read_answer(exam: Exam) -> tuple[Kind, str | None]:
    """Kind and gold of an exam question; ValueError if the answer is none of the options."""
    if exam.answer is None:
        return ("choice" if exam.choices else "text"), None
    if not exam.choices:
        said = _unlisted(exam.answer)
        plain = said.strip(_PUNCTUATION)
        return ("yes_no" if len(plain) <= 3 and polarity(plain) else "text"), said
    # items one by one: an option's text may contain a comma
    answers = [str(item) for item in json.loads(exam.answer)] if exam.answer.startswith("[") else [exam.answer]
    letters: set[str] = set()
    for answer in answers:
        named, _ = letters_named(answer.strip(_PUNCTUATION), "".join(exam.choices), exam.choices)
        if not named:
            raise ValueError(f"answer {answer[:60]!r} is none of the options {', '.join(exam.choices)}")
        letters |= named
    if not letters:
        raise ValueError(f"answer {exam.answer[:60]!r} is none of the options {', '.join(exam.choices)}")
    return "choice", "".join(sorted(letters))


def _unlisted(answer: str) -> str:
    """The items of an answer that is a JSON list, joined; any other text as it is."""
    try:
        listed = json.loads(answer) if answer.startswith('["') else None
    except ValueError:
        return answer
    return "；".join(str(item).strip() for item in listed) if isinstance(listed, list) and listed else answer


class FinCorpus(FileSource):
    """Exam questions: choices (one letter or several), 对/错, and free text."""

    NAME, WORDING = "fincorpus", "fincorpus.v1"
    FILES = (("train", "**/fin_exam.jsonl"), ("train", "**/fin_exam.jsonl.gz"))
    RULES = ({"language": "zh", "module": "professional knowledge", "domain": "金融考试"},)

    def questions(self, row: SourceRow, split: Split, file: DataFile) -> Iterator[Question]:
        exam = split_exam(text_of(row, "text"))
        if not exam.stem or len(exam.choices) == 1:
            raise RowError(row.place, "only one option" if exam.stem else "no question before its options or answer")
        try:
            kind, gold = read_answer(exam)
        except ValueError as error:
            raise RowError(row.place, str(error)) from error
        meta = row.values.get("meta")
        origin = str(meta.get("source", "")) if isinstance(meta, Mapping) else ""
        document = f"fincorpus/{stable_id(exam.stem, sorted(exam.choices.values()))}"
        options = "".join(f"\n{letter}、{text}" for letter, text in exam.choices.items())
        yield self.question(
            row,
            split,
            document=document,
            gold=gold,
            kind=kind,
            tags=self.rules.tags({"question": exam.stem, "source": origin, "kind": kind}),
            places={"question": exam.stem, "choices": options},
            within={"question": "{question}{choices}"},
            choices=exam.choices,
            meta={"source": origin},
        )
