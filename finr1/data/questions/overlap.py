"""Overlap between questions: near-duplicates by MinHash, and benchmark contamination by shared n-grams.

Prompts are compared without boilerplate: only the values filled into a template of `finr1.core.prompt`, without links
and without phrases that many rows of a source repeat (its instructions). A token is a word, a number or one Chinese
character.
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

from finr1.answer.golds import same_gold
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
_IS_CHINESE = re.compile(f"[{_CJK}]").match
_CHINESE_BIT = np.uint32(1 << 31)  # set in the tokens of Chinese characters
_NO_HASHES: Hashes = np.empty(0, np.uint64)

# Boilerplate: a phrase of PHRASE_TOKENS tokens in PHRASE_SHARE of a source's sampled rows, and in PHRASE_ROWS at least.
PHRASE_TOKENS, PHRASE_SHARE, PHRASE_ROWS, SAMPLED_ROWS = 8, 0.05, 20, 1000
N_PERM, N_BANDS, SEED = 128, 32, 42  # pairs of similarity 0.8 share a band with probability 1 - (1 - 0.8**4)**32
SHORT = 8  # held-out texts from this many words up to an n-gram count as one n-gram (Brown et al. 2020, App. C)


def words_of(text: str) -> list[str]:
    """The case-folded tokens of a text, without links."""
    return _TOKEN.findall(_LINK.sub(" ", normalize("NFKC", text).casefold()))


@lru_cache(1 << 20)
def _token_id(word: str) -> int:
    """A 31-bit hash of the word, and the bit that marks a Chinese character."""
    token_id = crc32(word.encode("utf-8", "surrogatepass")) & 0x7FFFFFFF
    return token_id | (int(_CHINESE_BIT) if _IS_CHINESE(word) else 0)


def tokens_of(text: str) -> Tokens:
    """The text's tokens as numbers."""
    words = words_of(text)
    return np.fromiter(map(_token_id, words), np.uint32, len(words))


def ngram_hashes(tokens: Tokens, n: int) -> Hashes:
    """A 64-bit hash of each run of `n` tokens, in order; empty for a shorter text."""
    size = len(tokens) - n + 1
    if size < 1:
        return _NO_HASHES
    spread = (tokens.astype(np.uint64) + np.uint64(n)) * np.uint64(0x9E3779B97F4A7C15)
    spread ^= spread >> np.uint64(29)
    hashes = np.zeros(size, np.uint64)
    for k in range(n):
        hashes = (hashes ^ spread[k : k + size]) * np.uint64(0xD6E8FEB86659FD93)
        hashes ^= hashes >> np.uint64(32)
    return hashes


class TokenReader:
    """Reads the tokens of questions without the boilerplate of their sources, which it learns from these questions."""

    def __init__(self, questions: Iterable[Question]) -> None:
        by_source: dict[str, list[Question]] = defaultdict(list)
        for question in questions:
            by_source[question.source].append(question)
        boilerplate: set[int] = set()
        for rows in by_source.values():
            sample = random.Random(0).sample(rows, min(len(rows), SAMPLED_ROWS))
            counts: Counter[int] = Counter()
            for question in sample:
                phrases = [ngram_hashes(piece, PHRASE_TOKENS) for piece in _pieces(question)]
                counts.update(set(_joined(phrases).tolist()))
            needed = max(PHRASE_ROWS, PHRASE_SHARE * len(sample))
            boilerplate.update(phrase for phrase, n in counts.items() if n >= needed)
        self._boilerplate = np.array(sorted(boilerplate), np.uint64)

    def pieces(self, question: Question) -> list[Tokens]:
        """The prompt's tokens, one array per value of its wording."""
        return [piece[self._is_content(piece)] for piece in _pieces(question)]

    def runs(self, question: Question) -> list[Tokens]:
        """The unbroken runs of tokens of prompt and gold: an n-gram never spans removed boilerplate."""
        gold = [tokens_of(question.gold)] if question.gold else []
        runs: list[Tokens] = []
        for piece in [*_pieces(question), *gold]:
            content = self._is_content(piece)
            edges = np.flatnonzero(np.diff(content)) + 1
            split = zip(np.split(piece, edges), np.split(content, edges), strict=True)
            runs += [run for run, is_content in split if is_content.all()]
        return runs

    def _is_content(self, piece: Tokens) -> NDArray[np.bool_]:
        is_content = np.ones(len(piece), bool)
        for start in np.flatnonzero(_is_in(ngram_hashes(piece, PHRASE_TOKENS), self._boilerplate)):
            is_content[start : start + PHRASE_TOKENS] = False
        return is_content


def _pieces(question: Question) -> list[Tokens]:
    return [tokens_of(value) for message in question.prompt for value in unfill(message["content"])]


def _joined(hashes: Iterable[Hashes]) -> Hashes:
    return np.concatenate([_NO_HASHES, *hashes])


def _is_in(values: Hashes, ordered: Hashes) -> NDArray[np.bool_]:
    """Which values are among `ordered`, a sorted array."""
    if not len(ordered):
        return np.zeros(len(values), bool)
    places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return ordered[places] == values  # type: ignore[no-any-return]


def near_duplicates(questions: Sequence[Question], reader: TokenReader, threshold: float) -> dict[int, int]:
    """Index of each near-duplicate -> index of the question that it repeats, which is kept.

    Near-duplicates have the same figures in the same order, the same choices, the same gold (where both show one and a
    rule can compare it), and a Jaccard similarity of at least `threshold` between their token bigrams. Pieces that both
    share as a whole, such as a report page, are left out of the similarity.
    """
    from rensa import RMinHash, RMinHashLSH

    lsh = RMinHashLSH(threshold, N_PERM, N_BANDS)
    kept_by_duplicate: dict[int, int] = {}
    order = sorted(range(len(questions)), key=lambda i: questions[i].gold is None)  # those with gold are kept
    pieces = {i: reader.pieces(questions[i]) for i in order}
    for start in range(0, len(order), 1000):
        chunk = order[start : start + 1000]
        shingles = [_shingles(pieces[i], _figures_and_choices(questions[i])) for i in chunk]
        for i, sketch in zip(chunk, RMinHash.from_token_sets(shingles, N_PERM, SEED), strict=True):
            for j in sorted(lsh.query(sketch)):
                if same_gold(questions[i], questions[j]) and similarity(pieces[i], pieces[j]) >= threshold:
                    kept_by_duplicate[i] = j
                    break
            else:
                lsh.insert(i, sketch)
    return kept_by_duplicate


def similarity(first: Sequence[Tokens], second: Sequence[Tokens]) -> float:
    """Jaccard similarity of the token bigrams, over the pieces in which the two differ; 1.0 if they differ in none."""
    if len(first) == len(second):
        different = [(a, b) for a, b in zip(first, second, strict=True) if not np.array_equal(a, b)]
        first, second = [a for a, _ in different], [b for _, b in different]
    a, b = (set(_bigrams(pieces).tolist()) for pieces in (first, second))
    return len(a & b) / len(a | b) if a or b else 1.0


def _bigrams(pieces: Sequence[Tokens]) -> Hashes:
    """The hashes of all bigrams; the token itself for a piece of one token."""
    return _joined(ngram_hashes(piece, min(2, max(1, len(piece)))) for piece in pieces)


def _shingles(pieces: Sequence[Tokens], salt: int) -> list[bytes]:
    """The bigrams as MinHash takes them; questions of another salt share none."""
    data = (_bigrams(pieces) ^ np.uint64(salt)).tobytes()
    return [data[i : i + 8] for i in range(0, len(data), 8)] or [salt.to_bytes(8, "little")]


def _figures_and_choices(question: Question) -> int:
    """A 64-bit hash of the question's figures and choices."""
    figures = [word for word in words_of(question.text) if _DIGIT.search(word)]
    choices = [(key, words_of(text)) for key, text in question.choices.items()]
    return int(stable_id(figures, choices), 16)


def shared_ngrams(
    questions: Sequence[Question],
    held_out: Sequence[Question],
    reader: TokenReader,
    words: int,
    characters: int,
    common: int,
) -> dict[int, int]:
    """Index of each question that shares an n-gram with a held-out one -> index of that one.

    An n-gram is a run of `words` tokens, or of `characters` if Chinese ones are among them, in prompt or gold; a
    shorter held-out text of at least `SHORT` words counts as one n-gram. N-grams in more than `common` training
    documents are common phrases and are ignored (Brown et al. 2020, arXiv 2005.14165, App. C: more than ten). Rows made
    from templates (`meta["template"]`) share them by design within a source, and are compared with other sources only.
    """
    families: dict[str, list[int]] = defaultdict(list)
    for i, question in enumerate(held_out):
        families[_template_source(question)].append(i)
    indexes = {
        family: _NgramIndex([(i, reader.runs(held_out[i])) for i in rows], words, characters)
        for family, rows in families.items()
    }
    hits: dict[str, list[tuple[int, list[int]]]] = {family: [] for family in indexes}  # (question, n-grams it shares)
    for i, question in enumerate(questions):
        runs, own_family = reader.runs(question), _template_source(question)
        for family, index in indexes.items():
            if (not own_family or family != own_family) and (ngrams := index.shared(runs)):
                hits[family].append((i, ngrams))
    partners: dict[int, int] = {}
    for family, rows in hits.items():
        pairs = {(ngram, questions[i].document_id) for i, ngrams in rows for ngram in ngrams}
        n_documents = Counter(ngram for ngram, _ in pairs)
        for i, ngrams in rows:
            if rare := [ngram for ngram in ngrams if n_documents[ngram] <= common]:
                partners.setdefault(i, indexes[family].owners[rare[0]])
    return partners


def _template_source(question: Question) -> str:
    """The source of a row made from a template; "" for any other row."""
    return question.source if "template" in question.meta else ""


class _NgramIndex:
    """The n-grams of held-out rows, each with the first row that has it (`owners`)."""

    def __init__(self, rows: Sequence[tuple[int, Sequence[Tokens]]], words: int, characters: int) -> None:
        self.words, self.characters = words, characters
        self.short_lengths = sorted({len(runs[0]) for _, runs in rows if self._is_short(runs)})
        ngrams: list[Hashes] = []
        for _, runs in rows:
            whole = [ngram_hashes(runs[0], len(runs[0]))] if self._is_short(runs) else []
            ngrams.append(_joined([*self._long(runs), *whole]))
        row_of_ngram = np.repeat(np.array([i for i, _ in rows], np.int64), [len(hashes) for hashes in ngrams])
        self.ngrams, first = np.unique(_joined(ngrams), return_index=True)
        self.owners: list[int] = row_of_ngram[first].tolist()

    def _is_short(self, runs: Sequence[Tokens]) -> bool:
        """Whether the first run is English, of `SHORT` words or more but below an n-gram, and the others shorter."""
        if not runs or not SHORT <= len(runs[0]) < self.words or (runs[0] >= _CHINESE_BIT).any():
            return False
        return all(len(run) < SHORT for run in runs[1:])

    def _long(self, runs: Sequence[Tokens]) -> Iterator[Hashes]:
        for run in runs:
            n_chinese = np.concatenate([[0], np.cumsum(run >= _CHINESE_BIT)])
            for n, with_chinese in ((self.words, False), (self.characters, True)):
                if len(run) >= n:
                    yield ngram_hashes(run, n)[(n_chinese[n:] > n_chinese[:-n]) == with_chinese]

    def shared(self, runs: Sequence[Tokens]) -> list[int]:
        """The index of each n-gram that a text has too."""
        short = (ngram_hashes(run, n) for run in runs for n in self.short_lengths)
        ngrams = np.unique(_joined([*self._long(runs), *short]))
        shared: list[int] = np.searchsorted(self.ngrams, ngrams[_is_in(ngrams, self.ngrams)]).tolist()
        return shared
