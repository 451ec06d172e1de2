"""Templates, and how one becomes a question: draw parameters, run the program, reject numbers that are too long."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from finr1.answer.program import ProgramError, Value, short, step_values
from finr1.core.types import Kind, Language, Message, Question, Split, stable_id

Final = Literal["number", "percent", "yes_no", "label", "choice", "pair"]
Params = Mapping[str, float]

TEST_SHARE = 0.2  # of the parameter space of every template


# by difficulty: most significant digits of a parameter, of a result, and the largest result
LIMITS: Mapping[int, tuple[int, int, float]] = {
    0: (1, 2, 20_000),
    1: (2, 3, 2000),
    2: (3, 5, 100_000),
    3: (5, 7, 10_000_000),
}
KINDS: Mapping[Final, Kind] = {
    "number": "number",
    "percent": "number",
    "yes_no": "yes_no",
    "label": "label",
    "choice": "choice",
    "pair": "choice",
}
COMPANIES: Mapping[Language, tuple[str, ...]] = {
    "en": ("Acme", "Delta", "Orion", "Nova", "Apex", "Metro"),
    "zh": ("甲公司", "乙公司", "丙公司", "丁公司"),
}
YES_NO: Mapping[Language, Mapping[str, str]] = {"en": {"yes": "yes", "no": "no"}, "zh": {"yes": "是", "no": "否"}}


class Draw:
    """Draws parameters whose size depends on the difficulty."""

    def __init__(self, rng: random.Random, difficulty: int) -> None:
        self.rng, self.difficulty = rng, difficulty
        # shared by all amounts of a question at difficulty 0: 70 + 20, not 70 + 2
        self.unit = rng.choice((1, 10, 100, 1000))

    def pick(self, *values: float) -> float:
        return self.rng.choice(values)

    def _by(self, easy: Sequence[float], middle: range, hard: range, unit: float = 1) -> float:
        if self.difficulty <= 1:  # at 0 the same values; `fits` refuses those of two digits
            return self.rng.choice(easy)
        return self.rng.choice(middle) if self.difficulty == 2 else round(self.rng.choice(hard) * unit, 6)

    def amount(self) -> float:
        easy = _AMOUNTS if self.difficulty else range(2 * self.unit, 10 * self.unit, self.unit)
        return self._by(easy, range(20, 1000, 5), range(1000, 10_000, 25))

    def small(self) -> float:
        """An amount of one or two digits."""
        return self._by((2, 3, 4, 5, 6, 8, 9, 10, 12, 15, 20, 25, 30, 40), range(11, 100), range(100, 1000), 0.1)

    def rate(self) -> float:
        """An interest rate, fee or tax rate, in percent."""
        return self._by((2, 3, 4, 5, 6, 8, 10, 20), range(1, 25), range(2, 60), 0.5)

    def share(self) -> float:
        """A margin or growth rate, in percent below 100."""
        return self._by((5, 10, 20, 25, 30, 40, 50, 60, 75, 80), range(2, 96), range(5, 190), 0.5)

    def times(self) -> float:
        """A ratio or multiple, from 0.5 up."""
        return self._by((0.5, 1.5, 2, 2.5, 3, 4, 5, 6), range(2, 40), range(5, 400), 0.1)

    def count(self) -> float:
        """A number of years or units."""
        return self._by((2, 3, 4, 5, 6, 8), range(2, 16), range(3, 40))


_AMOUNTS = (20, 30, 40, 50, 60, 70, 80, 90, 100, 120, 150, 160, 180, 200, 240, 250, 300, 400, 500, 600, 800, 900)


class Text:
    """A template's text in one language; `{name}` stands for a parameter, `{table}` for the rendered table.

    Args:
        facts: the given values.
        labels: what each operation computes; the last one is the answer.
        ask: alternative wordings of the question.
        table: rows of cells, header first.
        choices: label to meaning, in the order result < 0, = 0, > 0 (or < 0, > 0).
    """

    def __init__(
        self,
        facts: str,
        labels: Sequence[str],
        *ask: str,
        table: Sequence[Sequence[str]] = (),
        choices: Mapping[str, str] | None = None,
    ) -> None:
        self.facts, self.labels, self.ask, self.table, self.choices = facts, labels, ask, table, choices or {}


@dataclass(frozen=True)
class Template:
    """One kind of question: a program over drawn parameters, and its text.

    `level` is the lowest difficulty at which it is used. With `in_percent`, sums, differences and multiples of
    percentages are shown as percentages.
    """

    name: str
    group: str
    draw: Callable[[Draw], Params]
    program: str
    final: Final
    en: Text | None
    zh: Text | None = None
    level: int = 1
    in_percent: bool = False

    def text(self, language: Language) -> Text | None:
        return self.en if language == "en" else self.zh


def side(template: str, params: Params) -> Split:
    """Train or test, by template and parameters alone: no run can train on what another run holds out."""
    return "test" if int(stable_id("worked", template, _plain(params)), 16) % 1000 < TEST_SHARE * 1000 else "train"


def document_id(template: str, params: Params) -> str:
    """The id of a set of parameters of a template."""
    return "worked/" + stable_id(template, _plain(params))


def _plain(params: Params) -> list[tuple[str, str]]:
    return sorted((name, short(value)) for name, value in params.items())


def digits(value: float) -> int:
    """Significant digits of a value: 3 for 0.125, 2 for 1200."""
    return len(short(value, 9).lstrip("-").replace(".", "").strip("0"))


def fits(params: Params, values: Sequence[Value], difficulty: int) -> bool:
    """Whether all numbers are as short and small as `LIMITS` of the difficulty demand, and all parameters positive."""
    for_params, for_results, largest = LIMITS[difficulty]
    numbers = [value for value in values if not isinstance(value, str)]
    return all(digits(value) <= for_params and value > 0 for value in params.values()) and all(
        digits(value) <= for_results
        and abs(value) <= largest
        and abs(value - round(value, 8)) < 1e-12 * max(1, abs(value))
        for value in numbers
    )


def make(template: Template, language: Language, rng: random.Random, difficulty: int) -> Question | None:
    """One question from one draw of parameters; None if the draw does not fit the difficulty."""
    text = template.text(language)
    if text is None:
        raise ValueError(f"template {template.name} has no words in {language}")
    draw = Draw(rng, difficulty)
    params = template.draw(draw)
    names = {name: short(value) for name, value in params.items()} | _context(draw, language)
    program = template.program.format_map(names)
    rows = [[cell.format_map(names) for cell in row] for row in text.table]
    if rows and "table_" in program:
        program = program.replace("ROW", rows[1][0])
    try:
        values = step_values(program, rows)
    except ProgramError:  # e.g. division by zero
        return None
    if not fits(params, values, difficulty):
        return None
    result = values[-1]
    if template.final in ("number", "percent", "choice") and isinstance(result, float) and result <= 0:
        return None
    choices, gold = _gold(template.final, text, result, language, rng)
    if choices is None:
        return None
    style_seed = rng.randrange(1000)
    ask = text.ask[style_seed % len(text.ask)]
    prompt = ask.format_map(names | {"table": "\n".join(" | ".join(row) for row in rows)})
    if template.final == "choice":
        prompt += "\n" + " ".join(f"{letter}: {option}" for letter, option in choices.items())
    is_number = KINDS[template.final] == "number"
    meta: dict[str, Any] = {
        "program": program,
        "template": template.name,
        "group": template.group,
        "final": template.final,
        **({"unit": "%" if template.final == "percent" else "", "tolerance": "exact"} if is_number else {}),
        "facts": text.facts.format_map(names),
        "labels": [label.format_map(names) for label in text.labels],
        "in_percent": template.in_percent,
        "table": rows,
        "difficulty": difficulty,
        "style_seed": style_seed,
    }
    return Question(
        source="worked",
        document_id=document_id(template.name, params),
        language=language,
        module="professional knowledge" if template.final == "label" else "reasoning business",
        kind=KINDS[template.final],
        prompt=[Message(role="user", content=prompt)],
        gold=gold,
        split=side(template.name, params),
        choices=choices,
        meta=meta,
    )


def _context(draw: Draw, language: Language) -> dict[str, str]:
    """Context that does not change the answer: a company, years, table rows that are not needed."""
    year = draw.rng.randrange(2015, 2023)
    names = {f"y{i}": str(year + i) for i in range(3)} | {f"x{i}": short(draw.amount()) for i in range(3)}
    return names | {"co": draw.rng.choice(COMPANIES[language])}


def _gold(
    final: Final, text: Text, result: Value, language: Language, rng: random.Random
) -> tuple[Mapping[str, str] | None, str]:
    """The choices to show and the gold."""
    if isinstance(result, str):
        if final == "pair":
            return text.choices, "A" if result == "yes" else "B"
        return {}, YES_NO[language][result]
    if final == "label":
        names = list(text.choices)
        sign = (result > 0) - (result < 0)
        return text.choices, names[sign + 1] if len(names) == 3 else names[sign > 0]
    if final == "percent":
        return {}, short(result * 100) + "%"
    if final == "choice":
        wrong = list(dict.fromkeys(short(result * factor) for factor in (2, 0.5, 1.5, 3, 0.8, 1.2)))
        options = rng.sample([w for w in wrong if w != short(result) and digits(float(w)) <= digits(result) + 1], 2)
        options.insert(rng.randrange(3), short(result))
        choices = dict(zip("ABC", options, strict=True))
        return choices, next(letter for letter, option in choices.items() if option == short(result))
    return {}, short(result)
