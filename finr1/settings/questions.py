"""Settings of the questions stage."""

from dataclasses import dataclass

from finr1.settings.bounds import Bounded, least, within


@dataclass
class QuestionsSettings(Bounded, key="questions"):
    """Which questions of the sources are kept."""

    # training questions per source, chosen at random with the seed; null: all
    limit_per_source: int | None = least(None, 1, why="no question would be left")
    drop_duplicates: bool = True
    # min Jaccard similarity of token bigrams; null: same wording only. Ours
    near_duplicates: float | None = within(0.8, 0.5, 1, why="not a usable similarity of duplicates")
    # remove training questions that also occur in a benchmark of this run, share an n-gram with one, or are on held-out
    # documents
    decontaminate: bool = True
    overlap_words: int = least(13, 1)  # n-gram length in words, in prompt or gold
    overlap_characters: int = least(20, 1)  # n-gram length with Chinese characters, each counting as a word. Ours
    overlap_common: int = least(10, 1)  # n-grams in more training documents than this are common phrases
