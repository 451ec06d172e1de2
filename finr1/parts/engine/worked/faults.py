"""The faults that engine `worked` plants in traces, for the filter to detect."""

import random
from collections.abc import Mapping
from dataclasses import replace

from finr1.answer.program import Value, reference, short, step_values
from finr1.core.types import Language
from finr1.parts.engine.worked.trace import Solution, Trace, write

# Name -> default weight.
FAULTS: Mapping[str, float] = {
    "slipped_number": 0.3,
    "missing_step": 0.2,
    "repeated_step": 0.15,
    "off_topic": 0.15,
    "wrong_answer": 0.2,
}
OFF_TOPIC: Mapping[Language, tuple[str, ...]] = {
    "en": (
        "The cat slept on the warm roof all afternoon.",
        "Mountains look blue when the morning fog is thin.",
        "My cousin plays the violin in a small orchestra.",
        "Penguins swim faster than most people can run.",
        "The soup tastes better with fresh basil leaves.",
        "Old trains had wooden seats and small windows.",
    ),
    "zh": (
        "猫在屋顶上睡了一下午。",
        "早晨的山在雾里很美。",
        "我表弟在乐队里拉小提琴。",
        "企鹅游得很快。",
        "汤里加点香菜更好喝。",
    ),
}


def plant(solution: Solution, style: str, fault: str, rng: random.Random) -> Trace:
    """Return a trace with exactly one fault of this kind, obvious or subtle."""
    if fault == "slipped_number":
        return write(_slip(solution, style, rng), style)
    clean = write(solution, style)
    if fault == "wrong_answer":
        return clean._replace(answer=_other_answer(solution, rng))
    lines = list(clean.lines)
    equations = [i for i, line in enumerate(lines) if " = " in line]
    if fault == "missing_step":
        return clean._replace(lines=_without_derivation(solution, lines, equations, rng))
    at = rng.choice(equations)
    if fault == "repeated_step":
        return clean._replace(lines=lines[:at] + [lines[at]] * rng.randint(3, 4) + lines[at + 1 :])
    if fault == "off_topic":  # replaces an equation
        unrelated = rng.sample(OFF_TOPIC[solution.language], rng.randint(1, 3))
        return clean._replace(lines=lines[:at] + unrelated + lines[at + 1 :])
    raise KeyError(fault)


def _without_derivation(solution: Solution, lines: list[str], equations: list[int], rng: random.Random) -> list[str]:
    """Half of the time leave out one of several equations, so that a value has no source; else all of them."""
    if len(equations) > 1 and len(lines) > 3 and rng.random() < 0.5:
        removed = rng.choice(equations[:-1])
        return lines[:removed] + lines[removed + 1 :]
    sentences = [line for i, line in enumerate(lines) if i not in equations]
    return [*sentences[:1], solution.say("so", gold=solution.gold)]


def _slip(s: Solution, style: str, rng: random.Random) -> Solution:
    """Change one result; half of the time, later results and the answer are computed from it."""
    candidates = [i for i, value in enumerate(s.values) if not isinstance(value, str)]
    if style == "leap":  # only the result of an expression is shown
        end = s.program[-1]
        sides = [i for i in map(reference, (end.left, end.right)) if i is not None]
        candidates = sides if end.name == "greater" else [s.last]
    candidates = [i for i in candidates if s.program[i].name not in ("table_max", "table_min")]
    index = rng.choice(candidates)
    wrong = _near(s.number(index), rng)
    if rng.random() < 0.5:
        return replace(s, shown={index: wrong})
    values = step_values(s.program, s.table, {index: wrong})
    return replace(s, values=values, gold=_answer(s, values))


def _near(value: float, rng: random.Random) -> float:
    """Return another number of the same size: the leading digits change a little, never by a power of ten."""
    text = short(abs(value))
    place = len(text.partition(".")[0]) - 1
    if abs(value) < 1:
        place = -1 if value == 0 else -(len(text) - len(text[2:].lstrip("0")) - 1)
    unit = 10.0 ** (place - (1 if len(text.replace(".", "").strip("0")) > 1 else 0))
    choices = [value + sign * k * unit for k in (1, 2, 3) for sign in (1, -1)]
    choices = [c for c in choices if (c > 0) == (value >= 0) and c != 0 and not _same_digits(c, value)]
    return round(rng.choice(choices), 8)


def _same_digits(a: float, b: float) -> bool:
    return short(abs(a)).replace(".", "").strip("0") == short(abs(b)).replace(".", "").strip("0")


def _answer(s: Solution, values: list[Value]) -> str:
    """Return the answer that these results give."""
    old, new = s.values[-1], values[-1]
    if isinstance(new, str) or isinstance(old, str):
        return s.gold if new == old else _flip(s)
    if s.final == "label":
        return s.gold if (new > 0) - (new < 0) == (old > 0) - (old < 0) else _by_sign(s, new)
    if s.final == "choice":
        return min(s.choices, key=lambda letter: abs(float(s.choices[letter]) - new))
    return short(new * 100, 4) + "%" if s.final == "percent" else short(new, 6)


def _flip(s: Solution) -> str:
    if s.final == "pair":
        return "B" if s.gold == "A" else "A"
    return {"yes": "no", "no": "yes", "是": "否", "否": "是"}[s.gold]


def _by_sign(s: Solution, value: float) -> str:
    names = list(s.choices)
    return names[(value > 0) - (value < 0) + 1] if len(names) == 3 else names[value > 0]


def _other_answer(s: Solution, rng: random.Random) -> str:
    if s.final in ("yes_no", "pair"):
        return _flip(s)
    if s.final in ("label", "choice"):
        return rng.choice([name for name in s.choices if name != s.gold])
    figure = float(s.gold.removesuffix("%"))
    return short(_near(figure, rng)) + ("%" if s.gold.endswith("%") else "")
