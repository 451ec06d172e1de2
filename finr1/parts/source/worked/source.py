"""Source `worked`: generated questions of financial calculation, in English and Chinese, with exact answers.

Every question carries the program that computes its answer, in FinQA's language (`finr1.answer.program`), from which
`engine=worked` writes a solution. A hash of template and parameters decides whether a question is for training or held
out (`template.side`): no seed, size or language makes the two overlap.
"""

import random
from collections.abc import Iterator, Mapping, Sequence

from finr1.core.errors import ConfigError
from finr1.core.types import Language, Question, Split, stable_id
from finr1.parts.source.worked import decide, interest, market, money, statement
from finr1.parts.source.worked.template import LIMITS, Template, make

TEMPLATES: Mapping[str, Template] = {
    template.name: template for module in (statement, interest, market, money, decide) for template in module.TEMPLATES
}
ATTEMPTS = 600  # draws without a new question after which a template counts as exhausted


class Worked:
    """`n_train` training and `n_test` held-out questions, no two with the same template and parameters.

    Held-out questions depend on `seed`, not on `n_train`.

    Args:
        difficulty: 0 (numbers of one digit and zeros), 1 easy, to 3 hard: size of the numbers, and which templates.
        chinese_share: expected share of Chinese questions.
        templates: names or groups (such as `bonds`) to use; None: all.

    Raises:
        ConfigError: a setting is invalid, or fewer different questions exist than asked for.
    """

    name = "worked"

    def __init__(
        self,
        n_train: int = 480,
        n_test: int = 256,
        seed: int = 0,
        difficulty: int = 1,
        chinese_share: float = 0.1,
        templates: Sequence[str] | None = None,
        licence: str = "",
    ) -> None:
        self.licence = licence
        for key, value in (("n_train", n_train), ("n_test", n_test)):
            if value < 0:
                raise ConfigError(f"source.worked.{key}", value, "must be at least 0", "use 0 or more")
        if difficulty not in LIMITS:
            raise ConfigError("source.worked.difficulty", difficulty, "no such difficulty", "use 0, 1, 2 or 3")
        if not 0 <= chinese_share <= 1:
            raise ConfigError("source.worked.chinese_share", chinese_share, "not a share", "use 0 to 1")
        self.n: dict[Split, int] = {"train": n_train, "test": n_test}
        self.seed, self.difficulty, self.chinese_share = seed, difficulty, chinese_share
        self.templates = _chosen(templates, difficulty)
        shares: dict[Language, float] = {"en": 1 - chinese_share, "zh": chinese_share}
        for language, share in shares.items():
            if share and not self._in(language):
                why = f"none of the chosen templates is written in {language}"
                remedy = "add some, or set chinese_share"
                raise ConfigError("source.worked.templates", list(templates or ()), why, remedy)

    def load(self) -> Iterator[Question]:
        """All training questions, then all held-out ones, each in a stable order."""
        for split in self.n:
            yield from self._questions(split)

    def _questions(self, split: Split) -> Iterator[Question]:
        rng = random.Random(stable_id("worked", self.seed, split))
        decks: dict[Language, _Deck] = {"en": _Deck(self._in("en"), rng), "zh": _Deck(self._in("zh"), rng)}
        seen: set[str] = set()
        while len(seen) < self.n[split]:
            language: Language = "zh" if rng.random() < self.chinese_share else "en"
            deck = decks[language]
            question = None
            while question is None and deck.templates:
                template = deck.next()
                question = self._new(template, language, split, rng, seen)
                if question is None:
                    deck.drop(template)
            if question is None:
                why = f"only {len(seen)} different {split} questions exist at difficulty {self.difficulty}"
                raise ConfigError(f"source.worked.n_{split}", self.n[split], why, "ask for fewer, or raise difficulty")
            seen.add(question.document_id)
            yield question

    def _in(self, language: Language) -> list[Template]:
        return [template for template in self.templates if template.text(language)]

    def _new(
        self, template: Template, language: Language, split: Split, rng: random.Random, seen: set[str]
    ) -> Question | None:
        for _ in range(ATTEMPTS):
            question = make(template, language, rng, self.difficulty)
            if question and question.split == split and question.document_id not in seen:
                return question
        return None


class _Deck:
    """Deals templates evenly: all of them once in random order, then again."""

    def __init__(self, templates: list[Template], rng: random.Random) -> None:
        self.templates, self._rng = templates, rng
        self._hand: list[Template] = []

    def next(self) -> Template:
        if not self._hand:
            self._hand = self._rng.sample(self.templates, len(self.templates))
        return self._hand.pop()

    def drop(self, template: Template) -> None:
        self.templates = [t for t in self.templates if t is not template]


def _chosen(names: Sequence[str] | None, difficulty: int) -> list[Template]:
    groups = {template.group for template in TEMPLATES.values()}
    for name in names or ():
        if name not in TEMPLATES and name not in groups:
            known = ", ".join(sorted(groups)) + "; " + ", ".join(TEMPLATES)
            raise ConfigError("source.worked.templates", name, "no such template or group", f"use some of {known}")
    chosen = [
        template
        for template in TEMPLATES.values()
        if template.level <= max(1, difficulty) and (names is None or template.name in names or template.group in names)
    ]
    if not chosen:
        why = f"none of them is asked at difficulty {difficulty}"
        raise ConfigError("source.worked.templates", list(names or ()), why, "raise difficulty or choose others")
    return chosen
