"""The answer verifier on 60,000 pairs of gold and answer whose truth is known, beside Math-Verify on the same pairs.

    python3 -m venv .venv-mv && .venv-mv/bin/pip install "math-verify[antlr4_13_2]==0.9.0"
    FINR1_DATA=<folder> python experiments/benchmarks/verifier.py --peer-python .venv-mv/bin/python

Half of the pairs are generated (source `worked`), half come from real rows (FinQA, ConvFinQA, TFNS, FinanceIQ,
FinCUGE).
A right answer is the gold by another writing, with the same value to the last digit; a wrong one is another value (the
sign, a decimal point moved by one, another leading digit, another last digit), another option, label or answer, in the
same writings. Truth is made with `decimal` and `fractions`, without the verifier. Speed counts CPU seconds of one pass
in one process, imports aside. Math-Verify is given its own extraction of strings for options, labels, and yes or no,
and runs without its timeouts.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

from omegaconf import OmegaConf

from experiments.benchmarks.figures import Figures
from finr1.answer.grade import grade
from finr1.cli.compose import CONF
from finr1.core.build import build
from finr1.core.types import Question

REAL = {"finqa": 6, "convfinqa": 8, "tfns": 1, "financeiq": 1, "fincuge": 1}  # source: pairs a question
KINDS = ("number", "choice", "label", "yes_no")

# Run by the peer's own Python: reads pairs, writes [CPU seconds, verdicts].
PEER = """
import json, sys, time
from math_verify import parse, verify, LatexExtractionConfig, ExprExtractionConfig, StringExtractionConfig
rows = json.load(open(sys.argv[1], encoding="utf-8"))
number = [LatexExtractionConfig(), ExprExtractionConfig()]
verdicts, began = [], time.process_time()
for gold, answer, names in rows:
    config = [StringExtractionConfig(strings=tuple(names))] if names else number
    gold, answer = (parse(text, config, parsing_timeout=None) for text in (gold, answer))
    verdicts.append(bool(verify(gold, answer, timeout_seconds=None)))
json.dump([time.process_time() - began, verdicts], open(sys.argv[2], "w"))
"""


class Pair(NamedTuple):
    """An answer to a question, and whether it is right."""

    question: Question
    answer: str
    right: bool


def separated(value: Decimal) -> str:
    """`-1,234.5`."""
    return f"{value:,f}"


_HAN = "零一二三四五六七八九"


def han(value: int) -> str:
    """A whole number below 10,000 as it is written in Chinese: 1050 is 一千零五十."""
    text, zero = "", False
    for unit, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = value // unit % 10
        if digit:
            text += ("零" if zero and text else "") + _HAN[digit] + name
        zero = digit == 0
    return text or "零"


Writing = Callable[[Decimal, random.Random], str | None]


def _percent(value: Decimal, rng: random.Random) -> str | None:
    return (
        f"{(value * 100).normalize():f}{rng.choice(('%', ' %', ' percent', chr(92) + '%'))}"
        if abs(value) < 10
        else None
    )


def _basis_points(value: Decimal, rng: random.Random) -> str | None:
    return (
        f"{(value * 10_000).normalize():f}{rng.choice((' bps', ' basis points', '个基点'))}" if abs(value) < 1 else None
    )


def _scaled(value: Decimal, rng: random.Random) -> str | None:
    size, unit = rng.choice(((10**6, " million"), (10**3, "k"), (10**9, "bn"), (10**4, "万元"), (10**8, "亿元")))
    return f"{(value / size).normalize():f}{unit}" if abs(value) * 20 >= size else None


def _power(value: Decimal, rng: random.Random) -> str | None:
    exponent = value.adjusted()
    shown = f"{value.scaleb(-exponent).normalize():f}"
    return rng.choice((f"{shown}e{exponent}", f"{shown} \\times 10^{{{exponent}}}")) if value else None


def _fraction(value: Decimal, rng: random.Random) -> str | None:
    ratio = Fraction(value)
    small = 1 < ratio.denominator <= 1000 and abs(ratio.numerator) < 100_000
    sign = "-" if ratio < 0 else ""
    over = (abs(ratio.numerator), ratio.denominator)
    return rng.choice((f"{sign}\\frac{{{over[0]}}}{{{over[1]}}}", f"{sign}{over[0]}/{over[1]}")) if small else None


def _han(value: Decimal, rng: random.Random) -> str | None:
    whole = value == value.to_integral_value() and 0 < abs(value) < 10_000
    return ("负" if value < 0 else "") + han(abs(int(value))) + rng.choice(("", "元")) if whole else None


def _brackets(value: Decimal, rng: random.Random) -> str | None:
    return (
        rng.choice((f"({separated(-value)})", f"$({separated(-value)})", f"−{separated(-value)}"))
        if value < 0
        else None
    )


def _full_width(value: Decimal, rng: random.Random) -> str | None:
    return f"{value:f}".translate({ord(c): ord(c) + 0xFEE0 for c in "0123456789.-"})


PLAIN: tuple[Writing, ...] = (
    lambda value, rng: f"{value:f}",
    lambda value, rng: separated(value),
    lambda value, rng: f"{value:f}" + ("0" if value.as_tuple().exponent < 0 else ".00"),  # type: ignore[operator]
    lambda value, rng: f"{rng.choice(('$', 'US$', '¥', 'RMB '))}{separated(value)}" if value >= 0 else None,
    lambda value, rng: f"{separated(value)} {rng.choice(('dollars', 'USD', '元', 'shares'))}",
    _power,
    _brackets,
    _full_width,
    _han,
)
BY_VALUE: tuple[Writing, ...] = (*PLAIN, _percent, _basis_points, _scaled, _fraction)
FRAMES = {  # the first four for every kind, the others for numbers
    "en": (
        "{}", "\\boxed{{{}}}", "The answer is {}.", "**{}**", "$\\boxed{{{}}}$", "x = {}", "So \\boxed{{\\text{{{}}}}}",
        "In 2019 it was {}", "As of December 31, 2019: {}", "The answer is {} because 3 + 4 = 7.", "(17 + 5) / 4 = {}",
        "Answer: {}\n",
    ),
    "zh": (
        "{}", "\\boxed{{{}}}", "答案是{}。", "答案：{}", "因此，结果为{}", "2019年为{}", "截至2019年12月31日为{}",
        "答案是{}，因为3+4=7", "(17+5)/4={}",
    ),
}  # fmt: skip


def value_of(gold: str) -> Decimal | None:
    """The value of a gold such as `0.06757`, `1,234` or `12.5%`; None for another."""
    try:
        return Decimal(gold.rstrip("%").replace(",", "")) * (Decimal("0.01") if gold.endswith("%") else 1)
    except InvalidOperation:
        return None


def number_pair(question: Question, right: bool, rng: random.Random) -> Pair | None:
    """The gold's value, or another, in some writing and frame; None where this writing does not suit the value."""
    value = value_of(question.gold or "")
    if value is None or (not right and value == 0):
        return None
    if not right:
        digits = list(str(value))
        at = next(i for i, digit in enumerate(digits) if digit in "123456789")
        digits[at] = str((int(digits[at]) + rng.randint(3, 5)) % 9 + 1)
        others = [-value, value * 10, Decimal("".join(digits))]
        if not isinstance(question.meta.get("tolerance"), float):  # beyond half of the last digit shown
            others.append(value + 2 * Decimal((0, (1,), int(value.as_tuple().exponent))))
        value = rng.choice(others)
    unit = question.meta.get("unit")
    if unit == "%":  # the bare figure is asked for
        figure = value * 100 if (question.gold or "").endswith("%") else value
        text = f"{figure.normalize():f}{rng.choice(('', '%', ' percent'))}"
    else:
        written = rng.choice(PLAIN if unit else BY_VALUE)(value, rng)
        if written is None:
            return None
        text = written
    return Pair(question, rng.choice(FRAMES[question.language]).format(text), right)


def named_pair(question: Question, right: bool, rng: random.Random) -> Pair | None:
    """The gold's option, label or yes/no, or another one, in some writing and frame."""
    gold = question.gold or ""
    if question.kind == "yes_no":
        says = {"yes": ("yes", "Yes.", "true", "是", "正确"), "no": ("no", "No.", "false", "否", "不正确")}
        yes = gold.strip().lower() in ("yes", "是", "true", "正确", "对")
        text = rng.choice(says["yes" if yes == right else "no"])
        return Pair(question, rng.choice(("{}", "\\boxed{{{}}}")).format(text), right)
    if gold not in question.choices:
        return None
    key = gold if right else rng.choice([key for key in question.choices if key != gold])
    meaning = question.choices[key]
    if question.kind == "choice":
        written = (
            key,
            f"({key})",
            f"{key}. {meaning}",
            f"{key}：{meaning}",
            f"选项{key}",
            f"**{key}**",
            f"Option {key}",
        )
    else:
        written = (key, meaning, f"{key} ({meaning})", f"{meaning}。", f'"{key}"')
    return Pair(question, rng.choice(FRAMES[question.language][:4]).format(rng.choice(written)), right)


def pairs_of(questions: Sequence[Question], n_pairs: int, rng: random.Random) -> list[Pair]:
    """`n_pairs` pairs, half of them right, over all the questions alike; no pair twice."""
    pairs: list[Pair] = []
    seen: set[tuple[str, str]] = set()
    usable = [question for question in questions if question.kind in KINDS and question.gold]
    for attempt in range(60 * n_pairs):
        if len(pairs) == n_pairs:
            break
        question = usable[attempt % len(usable)]
        make = number_pair if question.kind == "number" else named_pair
        pair = make(question, rng.random() < 0.5, rng)
        if pair and (question.id, pair.answer) not in seen:
            seen.add((question.id, pair.answer))
            pairs.append(pair)
    return pairs


def load(source: str, data: str, **settings: Any) -> list[Question]:
    """The questions of a source of conf/source."""
    root = OmegaConf.create({"seed": 0, "paths": {"data": data}})
    node: Any = OmegaConf.merge(root, {"source": OmegaConf.load(CONF / "source" / f"{source}.yaml")})
    node = OmegaConf.to_container(node, resolve=True)
    return list(build({**node["source"][source], **settings}).load())


def all_pairs(n_pairs: int, data: str, seed: int) -> dict[str, list[Pair]]:
    """Generated and real pairs, half and half; the real ones by the weights in REAL."""
    rng = random.Random(seed)
    half = n_pairs // 2
    worked = load("worked", data, n_train=max(half // 5, 20), n_test=1, difficulty=3, chinese_share=0.3, templates=None)
    rng.shuffle(worked)
    real = {source: load(source, data) for source in REAL}
    total = sum(REAL[source] * min(len(rows), 8000) for source, rows in real.items())
    found = {"generated": pairs_of(worked, n_pairs - half, rng), "real": []}
    for source, rows in real.items():
        rng.shuffle(rows)
        share = round(half * REAL[source] * min(len(rows), 8000) / total)
        found["real"] += pairs_of(rows, share, rng)
    return found


def own_verdicts(pairs: Sequence[Pair]) -> tuple[float, list[float | None]]:
    """CPU seconds of one pass, and the strict verdicts."""
    gc.collect()
    began = time.process_time()
    verdicts = [grade(answer, question).strict.value for question, answer, _ in pairs]
    return time.process_time() - began, verdicts


def peer_verdicts(pairs: Sequence[Pair], python: str) -> tuple[float, list[float | None]]:
    """The same of Math-Verify, run by its own Python."""
    rows = []
    for question, answer, _ in pairs:
        names = [*question.choices, *question.choices.values()] if question.kind != "choice" else [*question.choices]
        names = ["yes", "no", "true", "false", "是", "否", "正确", "不正确"] if question.kind == "yes_no" else names
        rows.append((question.gold, answer, names if question.kind != "number" else []))
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "pairs.json", Path(folder) / "verdicts.json"
        given.write_text(json.dumps(rows), encoding="utf-8")
        subprocess.run([python, "-c", PEER, str(given), str(found)], check=True, stderr=subprocess.DEVNULL)
        seconds, verdicts = json.loads(found.read_text(encoding="utf-8"))
    return seconds, [float(verdict) for verdict in verdicts]


def share_right(pairs: Sequence[Pair], verdicts: Sequence[float | None]) -> float:
    """The share of the pairs whose verdict is the truth; an undecided one is not."""
    return sum(verdict == pair.right for pair, verdict in zip(pairs, verdicts, strict=True)) / len(pairs)


def share_of(pairs: Sequence[Pair], verdicts: Sequence[float | None], verdict: float, right: bool) -> float:
    """The share of the pairs that have this verdict and this truth."""
    return sum(v == verdict and p.right == right for p, v in zip(pairs, verdicts, strict=True)) / len(pairs)


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer-python", default="", help="a Python with math-verify==0.9.0; without it no peer is run")
    parser.add_argument("--show", type=int, default=0, help="print so many pairs that were graded wrongly")
    options = parser.parse_args()
    if "FINR1_DATA" not in os.environ:
        parser.error("FINR1_DATA is not set; name the folder of the real rows")
    found = all_pairs(options.pairs, os.environ["FINR1_DATA"], options.seed)
    pairs = [*found["generated"], *found["real"]]
    random.Random(options.seed).shuffle(pairs)
    print(f"{len(pairs)} pairs, {len(found['real'])} of them real: {dict(Counter(p.question.kind for p in pairs))}")
    own_s, own = own_verdicts(pairs)
    peer_s, peer = peer_verdicts(pairs, options.peer_python) if options.peer_python else (None, None)
    figures = Figures("verifier")
    rate = len(pairs) / peer_s if peer_s else None
    figures.add("comparisons", len(pairs) / own_s, "> 20000 and > 20 x peer", "comparisons per CPU second", rate)
    figures.add(
        "accuracy", share_right(pairs, own), "> peer", "share of pairs", share_right(pairs, peer) if peer else None
    )
    for kind in KINDS:
        at = [i for i, pair in enumerate(pairs) if pair.question.kind == kind]
        some = [pairs[i] for i in at]
        theirs = share_right(some, [peer[i] for i in at]) if peer else None
        figures.add(
            f"accuracy_{kind}", share_right(some, [own[i] for i in at]), "> peer", f"share of {len(at)}", theirs
        )
    for name, verdict, truth in (("wrong_as_right", 1.0, False), ("right_as_wrong", 0.0, True)):
        theirs = share_of(pairs, peer, verdict, truth) if peer else None
        figures.add(name, share_of(pairs, own, verdict, truth), "< peer", "share of pairs", theirs)
    figures.add("undecided", own.count(None) / len(pairs), "< 0.01", "share of pairs")
    missed = [(p, v) for p, v in zip(pairs, own, strict=True) if v != p.right]
    for pair, verdict in missed[: options.show]:
        print(f"{pair.question.kind} gold {pair.question.gold!r} answer {pair.answer!r} right={pair.right}: {verdict}")
    if options.peer_python:
        figures.write()


if __name__ == "__main__":
    main()
