"""Overlap between questions: near-duplicates by MinHash, and benchmark contamination by shared n-grams.

Prompts are compared without boilerplate: only what is asked and its context (`prompt.parts_of`), without links and
without phrases that many rows of a source repeat (its instructions). A token is a word, a number or one Chinese
character.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from unicodedata import normalize
from zlib import crc32

import numpy as np

from finr1.answer.golds import same_gold
from finr1.core.prompt import LINK, clauses, parts_of, sentence_that_asks
from finr1.core.types import Question, stable_id

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Tokens = NDArray[np.uint32]
    Hashes = NDArray[np.uint64]

_CJK = "\u3400-\u9fff\uf900-\ufaff"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")
_DIGIT = re.compile(r"\d")
_IS_CHINESE = re.compile(f"[{_CJK}]").match
_CHINESE_BIT = np.uint32(1 << 31)  # set in the tokens of Chinese characters
_NO_HASHES: Hashes = np.empty(0, np.uint64)

# Boilerplate: a phrase of PHRASE_TOKENS tokens in PHRASE_SHARE of a source's sampled rows, and in PHRASE_ROWS at least.
PHRASE_TOKENS, PHRASE_SHARE, PHRASE_ROWS, SAMPLED_ROWS = 8, 0.05, 20, 1000
N_PERM, N_BANDS, SEED = 128, 32, 42  # pairs of similarity 0.8 share a band with probability 1 - (1 - 0.8**4)**32
SHORT, ANCHOR = (
    6,
    4,
)  # tokens that a held-out row without an n-gram needs to count as one, and those of one of its texts
_FUNCTION = "a an the is are was were be of please kindly 的 了 请 吗 呢"


def words_of(text: str) -> list[str]:
    """The case-folded tokens of a text, without links."""
    return _TOKEN.findall(LINK.sub(" ", normalize("NFKC", text).casefold()))


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


_FUNCTION_WORDS = tokens_of(_FUNCTION)


class Parts(NamedTuple):
    """The tokens of what is asked, and of its context, each as one array per text."""

    asked: list[Tokens]
    context: list[Tokens]


class Runs(NamedTuple):
    """The unbroken runs of tokens of a row, of which an n-gram is part, and the tokens of its choices one by one."""

    prompt: list[Tokens]  # what is asked and its context
    others: list[Tokens]  # list of choices, gold
    choices: list[Tokens]


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

    def parts(self, question: Question) -> Parts:
        """The parts of a prompt without boilerplate; without a context, a sentence with a question mark asks alone."""
        texts = parts_of(question)
        sentences = [] if texts.context else clauses("\n".join(texts.asked))
        if (asking := sentence_that_asks(sentences)) is not None:
            texts = texts._replace(asked=[sentences.pop(asking)], context=sentences)
        asked, context = ([tokens_of(text) for text in part] for part in texts)
        return Parts(*([piece[self._is_content(piece)] for piece in part] for part in (asked, context)))

    def runs(self, question: Question) -> Runs:
        """The runs of a row: an n-gram never spans removed boilerplate."""
        options = question.choices if question.kind == "choice" else {}
        listed = " ".join(f"{letter} {text}" for letter, text in options.items())
        prompt = [run for piece in _pieces(question) for run in self._runs_of(piece)]
        others = [run for text in (listed, question.gold or "") for run in self._runs_of(tokens_of(text))]
        return Runs(prompt, others, list(map(tokens_of, options.values())))

    def _runs_of(self, piece: Tokens) -> list[Tokens]:
        content = self._is_content(piece)
        edges = np.flatnonzero(np.diff(content)) + 1
        split = zip(np.split(piece, edges), np.split(content, edges), strict=True)
        return [run for run, is_content in split if len(run) and is_content.all()]

    def _is_content(self, piece: Tokens) -> NDArray[np.bool_]:
        is_content = np.ones(len(piece), bool)
        for start in np.flatnonzero(_is_in(ngram_hashes(piece, PHRASE_TOKENS), self._boilerplate)):
            is_content[start : start + PHRASE_TOKENS] = False
        return is_content


def _pieces(question: Question) -> list[Tokens]:
    asked, context = parts_of(question)
    return [tokens_of(text) for text in (*context, *asked)]


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

    Near-duplicates have the same figures in the same order, the same choices, the same gold (where both show one that
    can be compared), a Jaccard similarity of at least `threshold` between the token bigrams of their contexts, and ask
    the same (`_asks_the_same`).
    """
    from rensa import RMinHash, RMinHashLSH

    lsh = RMinHashLSH(threshold, N_PERM, N_BANDS)
    kept_by_duplicate: dict[int, int] = {}
    order = sorted(range(len(questions)), key=lambda i: questions[i].gold is None)  # those with gold are kept
    parts = {i: reader.parts(questions[i]) for i in order}
    for start in range(0, len(order), 1000):
        chunk = order[start : start + 1000]
        shingles = [_shingles([*parts[i].asked, *parts[i].context], _figures_and_choices(questions[i])) for i in chunk]
        for i, sketch in zip(chunk, RMinHash.from_token_sets(shingles, N_PERM, SEED), strict=True):
            for j in sorted(lsh.query(sketch)):
                if (
                    _same_gold(questions[i], questions[j], bool(parts[i].context))
                    and similarity(parts[i].context, parts[j].context) >= threshold
                    and _asks_the_same(questions[i], questions[j], parts[i], parts[j], threshold)
                ):
                    kept_by_duplicate[i] = j
                    break
            else:
                lsh.insert(i, sketch)
    return kept_by_duplicate


def _asks_the_same(first: Question, second: Question, one: Parts, other: Parts, threshold: float) -> bool:
    """Whether two questions with similar contexts ask the same: in the same content words, or in similar words.

    On one passage one word makes another question (`cause`, `effect`), whose answer may be the same by chance; similar
    words ask the same only if the golds tell: one number, or one gold where there is no passage.
    """
    if _content_words(one.asked) == _content_words(other.asked):
        return True
    if similarity(one.asked, other.asked) < threshold or (one.context and first.kind != "number"):
        return False
    if first.gold is None or second.gold is None:
        return not one.context
    return words_of(first.gold) == words_of(second.gold)


def _content_words(pieces: Sequence[Tokens]) -> list[list[int]]:
    return [piece[~np.isin(piece, _FUNCTION_WORDS)].tolist() for piece in pieces]


def similarity(first: Sequence[Tokens], second: Sequence[Tokens]) -> float:
    """Jaccard similarity of the token bigrams of two parts; 1.0 if both are empty."""
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


def _same_gold(first: Question, second: Question, on_text: bool) -> bool:
    """Whether the golds agree, or cannot be compared: free text, but for what is asked `on_text`."""
    if on_text and first.gold and second.gold and {"text", "code"} & {first.kind, second.kind}:
        return words_of(first.gold) == words_of(second.gold)
    return same_gold(first, second)


def shared_ngrams(
    questions: Sequence[Question],
    held_out: Sequence[Question],
    reader: TokenReader,
    words: int,
    characters: int,
    common: int,
) -> dict[int, int]:
    """Index of each question that shares an n-gram with a held-out one -> index of that one.

    An n-gram is a run of `words` tokens, or of `characters` if Chinese ones are among them, in prompt or gold. A
    held-out row whose prompt has none counts as one n-gram of all its texts: those asked, their context and the
    choices, `SHORT` tokens or more in all. N-grams in more than `common` training documents are common phrases and are
    ignored (Brown et al. 2020, arXiv 2005.14165, App. C: more than ten). Rows made from templates (`meta["template"]`)
    share them by design within a source, and are compared with other sources only.
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
    """The n-grams of held-out rows, each with the first row that has it (`owners`); the short rows come last."""

    def __init__(self, rows: Sequence[tuple[int, Runs]], words: int, characters: int) -> None:
        self.words, self.characters = words, characters
        ngrams = [_joined(self._long([*runs.prompt, *runs.others])) for _, runs in rows]
        row_of_ngram = np.repeat(np.array([i for i, _ in rows], np.int64), [len(hashes) for hashes in ngrams])
        self.ngrams, first = np.unique(_joined(ngrams), return_index=True)
        self.owners: list[int] = row_of_ngram[first].tolist()
        self._short: dict[int, list[tuple[int, list[Tokens]]]] = defaultdict(list)  # by the first tokens of the longest
        for i, runs in rows:
            texts = sorted([*runs.prompt, *runs.choices], key=len, reverse=True)
            is_short = not any(len(hashes) for hashes in self._long(runs.prompt))
            if texts and is_short and len(texts[0]) >= ANCHOR and sum(map(len, texts)) >= SHORT:
                self._short[int(ngram_hashes(texts[0][:ANCHOR], ANCHOR)[0])].append((len(self.owners), texts))
                self.owners.append(i)
        self._anchors = np.array(sorted(self._short), np.uint64)

    def _long(self, runs: Sequence[Tokens]) -> Iterator[Hashes]:
        for run in runs:
            n_chinese = np.concatenate([[0], np.cumsum(run >= _CHINESE_BIT)])
            for n, with_chinese in ((self.words, False), (self.characters, True)):
                if len(run) >= n:
                    yield ngram_hashes(run, n)[(n_chinese[n:] > n_chinese[:-n]) == with_chinese]

    def shared(self, runs: Runs) -> list[int]:
        """The index of each n-gram that a row has too."""
        own = [*runs.prompt, *runs.others]
        ngrams = np.unique(_joined(self._long(own)))
        shared: list[int] = np.searchsorted(self.ngrams, ngrams[_is_in(ngrams, self.ngrams)]).tolist()
        starts = _joined(ngram_hashes(run, ANCHOR) for run in own)
        for start in np.unique(starts[_is_in(starts, self._anchors)]).tolist():
            shared += [i for i, texts in self._short[start] if all(any(_within(t, run) for run in own) for t in texts)]
        return shared


def _within(tokens: Tokens, run: Tokens) -> bool:
    """Whether a run has these tokens, in a row."""
    data, wanted, at = run.tobytes(), tokens.tobytes(), -1
    while (at := data.find(wanted, at + 1)) % tokens.itemsize and at >= 0:
        pass
    return at >= 0
