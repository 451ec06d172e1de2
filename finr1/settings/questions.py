"""Settings of the questions stage."""

from __future__ import annotations

from dataclasses import dataclass

from finr1.core.errors import ConfigError


@dataclass
class QuestionsSettings:
    """Which questions of the sources are kept."""

    limit_per_source: int | None = None  # training questions per source, chosen at random with the seed; null: all
    drop_duplicates: bool = True
    near_duplicates: float | None = 0.8  # min Jaccard similarity of token bigrams; null: same wording only. Ours
    # remove training questions that a benchmark of this run asks too, on held-out documents, or that share an n-gram:
    decontaminate: bool = True
    overlap_words: int = 13  # n-gram length in words, in prompt or gold
    overlap_characters: int = 20  # n-gram length with Chinese characters, each counting as a word. Ours
    overlap_common: int = 10  # n-grams in more training documents than this are common phrases

    def __post_init__(self) -> None:
        if self.near_duplicates is not None and not 0.5 <= self.near_duplicates <= 1:
            why, remedy = "different questions would count as duplicates, or none would", "use 0.5 to 1, or null"
            raise ConfigError("questions.near_duplicates", self.near_duplicates, why, remedy)
        for key in ("overlap_words", "overlap_characters", "overlap_common"):
            if getattr(self, key) < 1:
                raise ConfigError(f"questions.{key}", getattr(self, key), "must be at least 1", "use 1 or more")
        if self.limit_per_source is not None and self.limit_per_source < 1:
            raise ConfigError(
                "questions.limit_per_source", self.limit_per_source, "no question would be left", "use 1 or more"
            )
