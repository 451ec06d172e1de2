"""Settings of the questions stage."""

from __future__ import annotations

from dataclasses import dataclass

from finr1.core.errors import ConfigError


@dataclass
class QuestionsSettings:
    """What happens to the questions of all sources before anything is asked."""

    limit_per_source: int | None = None  # training questions a source, a seeded choice; null: all
    drop_duplicates: bool = True
    near_duplicates: float | None = 0.8  # least Jaccard similarity of pairs of words; null: equal wordings only. Ours
    # drop training questions that a benchmark of this run asks too, whose document is held out, or that share text:
    decontaminate: bool = True
    overlap_words: int = 13  # such a run of words in both, of prompt or gold
    overlap_characters: int = 20  # the same where Chinese characters are in it, one counting as a word. Ours
    overlap_common: int = 10  # runs in more training documents than this are common phrases

    def __post_init__(self) -> None:
        if self.near_duplicates is not None and not 0.5 <= self.near_duplicates <= 1:
            why, remedy = "other questions would count as the same, or none", "use 0.5 to 1, or null"
            raise ConfigError("questions.near_duplicates", self.near_duplicates, why, remedy)
        for key in ("overlap_words", "overlap_characters", "overlap_common"):
            if getattr(self, key) < 1:
                raise ConfigError(f"questions.{key}", getattr(self, key), "must be at least 1", "use 1 or more")
        if self.limit_per_source is not None and self.limit_per_source < 1:
            raise ConfigError(
                "questions.limit_per_source", self.limit_per_source, "nothing would be asked", "use 1 or more"
            )
