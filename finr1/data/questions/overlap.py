"""What questions have in common with each other: near-duplicates by MinHash, contamination by shared n-grams.

Compared is what a prompt says beyond its wording: the values that a text of `finr1.core.prompt` was filled with,
without links, and without phrases that a good share of a source's rows repeat (the instructions of a source whose
prompts are its own). A token is a word, a number, or one Chinese character.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING
from unicodedata import normalize
from zlib import crc32

import numpy as np

from finr1.core.prompt import unfill
from finr1.core.types import Question, stable_id

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Tokens = NDArray[np.uint32]
    Hashes = NDArray[np.uint64]

_CJK = "\u3400-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")
_LINK = re.compile(r"https?://\S+")
_DIGIT = re.compile(r"\d")
_IS_CHARACTER = re.compile(f"[{_CJK}]").match
_CHARACTER = np.uint32(1 << 31)  # this bit of a token says that it is a Chinese character


# A phrase of this many tokens in this share of a source's rows (and in so many of those looked at) is its instructions.
PHRASE, PHRASE_SHARE, PHRASE_ROWS, ROWS_LOOKED_AT = 8, 0.05, 20, 1000
N_PERM, N_BANDS, SEED = 128, 32, 42  # pairs of similarity 0.8 meet in a band with probability 1 - (1 - 0.8**4)**32
SHORT = 8  # held-out texts of SHORT words or more, yet shorter than an n-gram, count as one (Brown et al. 2020, App. C)


def words_of(text: str) -> list[str]:
    """Folded tokens of a text, links left out."""
    return _TOKEN.findall(_LINK.sub(" ", normalize("NFKC", text).casefold()))


@lru_cache(1 << 20)
def _number(word: str) -> int:
    """31 bits that depend on the word alone, and the mark of a Chinese character."""
    number = crc32(word.encode("utf-8", "surrogatepass")) & 0x7FFFFFFF
    return number | (int(_CHARACTER) if _IS_CHARACTER(word) else 0)


def tokens_of(text: str) -> Tokens:
    """The text's tokens as numbers."""
    words = words_of(text)
    return np.fromiter(map(_number, words), np.uint32, len(words))


def windows(tokens: Tokens, n: int) -> Hashes:
    """A 64-bit hash of each run of `n` tokens, in order; empty for a shorter text."""
    size = len(tokens) - n + 1
    if size < 1:
        return np.empty(0, np.uint64)
    spread = (tokens.astype(np.uint64) + np.uint64(n)) * np.uint64(0x9E3779B97F4A7C15)
    spread ^= spread >> np.uint64(29)
    hashes = np.zeros(size, np.uint64)
    for k in range(n):
        hashes = (hashes ^ spread[k : k + size]) * np.uint64(0xD6E8FEB86659FD93)
        hashes ^= hashes >> np.uint64(32)
    return hashes


class Reader:
    """Reads questions as pieces of tokens, without the phrases that the rows of their source share."""

    def __init__(self, questions: Iterable[Question]) -> None:
        by_source: dict[str, list[Question]] = defaultdict(list)
        for question in questions:
            by_source[question.source].append(question)
        phrases = [np.empty(0, np.uint64)]
        for rows in by_source.values():
            sample = random.Random(0).sample(rows, min(len(rows), ROWS_LOOKED_AT))
            counts: Counter[int] = Counter()
            for question in sample:
                counts.update({int(phrase) for piece in _pieces(question) for phrase in windows(piece, PHRASE)})
            needed = max(PHRASE_ROWS, PHRASE_SHARE * len(sample))
            phrases.append(np.array([phrase for phrase, n in counts.items() if n >= needed], np.uint64))
        self._phrases = np.unique(np.concatenate(phrases))

    def pieces(self, question: Question) -> list[Tokens]:
        """The question's text, a piece a value of its wording."""
        return [self._cut(piece) for piece in _pieces(question)]

    def parts(self, question: Question) -> list[Tokens]:
        """The runs of tokens that n-grams are taken from: no run crosses a cut; the gold is one too."""
        gold = [tokens_of(question.gold)] if question.gold else []
        return [run for piece in [*_pieces(question), *gold] for run in self._runs(piece)]

    def _kept(self, piece: Tokens) -> NDArray[np.bool_]:
        kept = np.ones(len(piece), bool)
        for start in np.flatnonzero(_among(windows(piece, PHRASE), self._phrases)):
            kept[start : start + PHRASE] = False
        return kept

    def _cut(self, piece: Tokens) -> Tokens:
        return piece[self._kept(piece)]

    def _runs(self, piece: Tokens) -> list[Tokens]:
        kept = self._kept(piece)
        if kept.all():
            return [piece]
        edges = np.flatnonzero(np.diff(kept)) + 1
        return [run for run, keep in zip(np.split(piece, edges), np.split(kept, edges), strict=True) if keep[0]]


def _pieces(question: Question) -> list[Tokens]:
    return [tokens_of(value) for message in question.prompt for value in unfill(message["content"])]


def _among(values: Hashes, known: Hashes) -> NDArray[np.bool_]:
    """Which values are in `known`, which is sorted."""
    if not len(known) or not len(values):
        return np.zeros(len(values), bool)
    return known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values  # type: ignore[no-any-return]


def near_duplicates(questions: Sequence[Question], reader: Reader, threshold: float) -> dict[int, int]:
    """Index of each question that nearly repeats another -> index of that other one, which stays.

    Nearly the same: the same figures in the same order, the same choices, the same gold (where both show one and a rule
    can compare it), and a Jaccard similarity of at least `threshold` between their pairs of adjacent tokens. Where both
    have the same wording, what they share whole, such as a report page, is left out of that.
    """
    from rensa import RMinHash, RMinHashLSH

    lsh = RMinHashLSH(threshold, N_PERM, N_BANDS)
    found: dict[int, int] = {}
    order = sorted(range(len(questions)), key=lambda i: questions[i].gold is None)  # those with gold stay
    pieces = {i: reader.pieces(questions[i]) for i in order}
    for start in range(0, len(order), 1000):
        chunk = order[start : start + 1000]
        shingles = [_marked(pieces[i], _essentials(questions[i])) for i in chunk]
        for i, sketch in zip(chunk, RMinHash.from_token_sets(shingles, N_PERM, SEED), strict=True):
            for j in sorted(lsh.query(sketch)):
                if _same_gold(questions[i], questions[j]) and similarity(pieces[i], pieces[j]) >= threshold:
                    found[i] = j
                    break
            else:
                lsh.insert(i, sketch)
    return found


def similarity(first: Sequence[Tokens], second: Sequence[Tokens]) -> float:
    """Jaccard similarity of the pairs of adjacent tokens, over the pieces in which the two differ."""
    if len(first) == len(second):
        differ = [k for k, (a, b) in enumerate(zip(first, second, strict=True)) if not np.array_equal(a, b)]
        first, second = [first[k] for k in differ], [second[k] for k in differ]
    one, other = (set(_pairs(pieces).tolist()) for pieces in (first, second))
    return len(one & other) / len(one | other) if one or other else 1.0


def _pairs(pieces: Sequence[Tokens]) -> Hashes:
    """Pairs of adjacent tokens; the token itself in a piece of one."""
    return np.concatenate([windows(piece, min(2, max(1, len(piece)))) for piece in pieces] or [np.empty(0, np.uint64)])


def _marked(pieces: Sequence[Tokens], mark: int) -> list[bytes]:
    """The pairs as MinHash takes them, made to differ from those of questions with other essentials."""
    data = (_pairs(pieces) ^ np.uint64(mark)).tobytes()
    return [data[i : i + 8] for i in range(0, len(data), 8)] or [mark.to_bytes(8, "little")]


def _essentials(question: Question) -> int:
    """A number that differs where figures or choices do."""
    figures = [word for word in words_of(question.text) if _DIGIT.search(word)]
    choices = [(key, words_of(text)) for key, text in question.choices.items()]
    return int(stable_id(figures, choices), 16)


def _same_gold(first: Question, second: Question) -> bool:
    if first.gold is None or second.gold is None or "text" in (first.kind, second.kind) or first.kind == "code":
        return True
    return words_of(first.gold) == words_of(second.gold)


def shared_grams(
    questions: Sequence[Question],
    held_out: Sequence[Question],
    reader: Reader,
    words: int,
    characters: int,
    common: int,
) -> dict[int, int]:
    """Index of each question that shares a telling n-gram with a held-out one -> index of that one.

    An n-gram is a run of `words` tokens, or of `characters` if Chinese ones are among them, of prompt or gold; a
    held-out text that is shorter, but not shorter than `SHORT` words, is one as a whole. Those in more than `common`
    training documents are phrases that tell nothing (Brown et al. 2020, arXiv 2005.14165, App. C: more than ten). Rows
    made from templates (`meta["template"]`) share them with their source's other rows by design, and are compared
    with those of other sources only.
    """
    families: dict[str, list[int]] = defaultdict(list)
    for i, question in enumerate(held_out):
        families[_family(question)].append(i)
    indexes = {
        family: _Grams([(i, reader.parts(held_out[i])) for i in rows], words, characters)
        for family, rows in families.items()
    }
    documents = {q.document_id: n for n, q in enumerate(questions)}
    hits: dict[str, list[tuple[int, list[int]]]] = {family: [] for family in indexes}
    for i, question in enumerate(questions):
        parts, own = reader.parts(question), _family(question)
        for family, index in indexes.items():
            if (not own or family != own) and (places := index.places(parts)):
                hits[family].append((i, places))
    found: dict[int, int] = {}
    for family, rows in hits.items():
        spread = Counter(k for k, _ in {(k, documents[questions[i].document_id]) for i, places in rows for k in places})
        for i, places in rows:
            if telling := [k for k in places if spread[k] <= common]:
                found.setdefault(i, indexes[family].owner[telling[0]])
    return found


def _family(question: Question) -> str:
    return question.source if "template" in question.meta else ""


class _Grams:
    """The n-grams of held-out rows, sorted, each with the first row that has it."""

    def __init__(self, rows: Sequence[tuple[int, Sequence[Tokens]]], words: int, characters: int) -> None:
        self.words, self.characters = words, characters
        self.short = sorted({len(parts[0]) for _, parts in rows if self._is_short(parts)})
        grams, owners = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for i, parts in rows:
            whole = [windows(parts[0], len(parts[0]))] if self._is_short(parts) else []
            for found in (*self._long(parts), *whole):
                grams.append(found)
                owners.append(np.full(len(found), i))
        self.keys, first = np.unique(np.concatenate(grams), return_index=True)
        self.owner: list[int] = np.concatenate(owners)[first].tolist()

    def _is_short(self, parts: Sequence[Tokens]) -> bool:
        """One run of English beside short ones, too short for an n-gram, long enough to tell."""
        if not parts or not SHORT <= len(parts[0]) < self.words or (parts[0] >= _CHARACTER).any():
            return False
        return all(len(part) < SHORT for part in parts[1:])

    def _long(self, parts: Sequence[Tokens]) -> Iterator[Hashes]:
        for part in parts:
            chinese = np.concatenate([[0], np.cumsum(part >= _CHARACTER)])
            for n, wanted in ((self.words, False), (self.characters, True)):
                if len(part) >= n:
                    yield windows(part, n)[(chinese[n:] - chinese[:-n] > 0) == wanted]

    def places(self, parts: Sequence[Tokens]) -> list[int]:
        """Which of the keys are in a text, as indices."""
        grams = [*self._long(parts), *(windows(part, n) for part in parts for n in self.short)]
        mine = np.unique(np.concatenate([np.empty(0, np.uint64), *grams]))
        places: list[int] = np.searchsorted(self.keys, mine[_among(mine, self.keys)]).tolist()
        return places
