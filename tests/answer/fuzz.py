"""Hostile strings for the verifier: no exception, no impossible verdict, no row above 10 ms of CPU time per 10 kB.

    make fuzz                                     1,000,000 rows
    python tests/answer/fuzz.py --rows 20000 --seed 7

A row is made from (seed, number) alone, so a failure is made again by `--seed S --first N --rows 1`. A row over the
limit is timed again before it counts, for another program can make a row late but none can make it early.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))

from finr1.answer.grade import Grade, grade
from finr1.answer.tags import parse
from finr1.core.types import Question

LIMIT_S = 0.010  # of CPU time per 10,000 bytes begun
BLOCK = 10_000
TIMED_AGAIN = 5
LARGEST = 100_000  # bytes
# rows of up to so many bytes, and how many of them
SIZES = ((200, 0.6), (5_000, 0.3), (LARGEST, 0.1))

_WORDS = r"""
0 1 9 一 点 半 负 百 万 亿 成 折 余 又 元 角 分 年 季 A B AB or and , . ; : - -- / // \ | ( ) [ ] { } < > = ≈ % ‰ $ £ ¥
^ * ** ! ? ' " ` _ # & ~ ± √ × ÷ ½ ² ﷺ ㍿ ﬀ ٣ Ⅷ π ∞ … 。 ， ： （ ） １ ％ 1,111 1.1 1'000 1.234,56 12,34,567 0x1F 1e9
1e999 1E+ 9**9**9 9^9^9 10^{ \times 10^{300} \frac{ \frac{1}{2} \frac12 \text{ \boxed{ \boxed{1} \boxed{} \left( \% {,}
\, \! <think> </think> <answer> </answer> bn bps 个百分点 百分之 千分之负 1分之 万亿 1亿2000万 三亿五千万 三成半 US$
2019年12月31日 2019-12-31 3Q19 答案是 故选 选 A、 (B) 不是 是否 yes no true 是 否 Bullish bearish 超过 下降 至 3rd 第
人民币 元 € A股 R&D 下滑 亏损 ↓ ▲ ≠ != <= √ 不完全 没错 除了 都对 或 错误 半 零 廿 \sqrt{ e^{ \frac1{ \pi <b> </b> _ __
... ¢ 1/0 __import__('os') %s%n nan inf quarter
"""
_SPACED = (
    " ", "\n", "\t", "\r\n", "\x00", "\u0301", "\u200b", "\U0001f600", "\ud800", "\udfff", "1 000", "1 1/2", " million",
    " basis points", " percentage points", "USD ", "minus ", "negative ", "twenty ", "two and a half ", "hundred ",
    "Q3 2019", "January 1, ", "The answer is ", "option ", "A. ", "not ", "0, 1, 2", "more than ", "decrease of ",
    "between ", " to ", "S&P ", "A is wrong ", "all except ", "or maybe ", "not sure ", "isn't ", "a loss of ",
    " decline ", " or more ", " is wrong ", "two-thirds of ", "three ", " years ", "($ in millions)", "Series A ",
    "non-", "label ", " out of ", " m ",
)  # fmt: skip
PIECES = (*_WORDS.split(), *_SPACED)

CHOICES = {"A": "2000", "B": "2400", "C": "财政部", "D": "All of the above"}
LABELS = {"0": "Bearish", "1": "Bullish", "2": "Neutral"}
ASKED = (
    ("number", "5", {}), ("number", "25.3%", {}), ("number", "-1.2亿", {}), ("number", "5%-7%", {}),
    ("number", "Q3 2019", {}), ("choice", "A", CHOICES), ("choice", "AC", CHOICES), ("choice", "B", {}),
    ("yes_no", "yes", {}), ("yes_no", "否", {}), ("label", "1", LABELS), ("label", "0 2", LABELS), ("label", "up", {}),
    ("text", "Apple Inc.", {}), ("text", "2019年12月31日", {}), ("text", "1.2183%", {}), ("text", "a; b", {}),
    ("code", "x = 1", {}),
)  # fmt: skip


class Failure(NamedTuple):
    """A row that broke a promise: its number, the string, what was asked and what went wrong."""

    row: int
    text: str
    asked: Question
    why: str


def hostile(seed: int, row: int) -> tuple[str, Question]:
    """The string of a row, and the question it is given as the answer of; one gold in eight is hostile too."""
    rng = random.Random(f"{seed}/{row}")
    largest = rng.choices([size for size, _ in SIZES], [share for _, share in SIZES])[0]
    size = int(largest ** rng.uniform(0.2, 1))
    text = _within(rng.choice(SHAPES)(rng, size), size)
    kind, gold, choices = rng.choice(ASKED)
    if rng.random() < 0.125:
        gold = _mixed(rng, rng.randint(1, 40)) or gold
        choices = {key: _mixed(rng, 10) for key in choices}
    meta = rng.choice(({}, {}, {"unit": "%"}, {"unit": "亿元"}, {"tolerance": 0.01}))
    prompt = [{"role": "user", "content": "?"}]
    more = {"choices": choices, "meta": meta, "id": str(row)}  # an id of its own: no hash of lone surrogates
    return text, Question("fuzz", "d", "en", "reasoning business", kind, prompt, gold, **more)  # type: ignore[arg-type]


def n_bytes(text: str) -> int:
    """The size of a text in UTF-8, lone surrogates as three bytes."""
    return len(text.encode("utf-8", "surrogatepass"))


def _within(text: str, size: int) -> str:
    while text and (large := n_bytes(text)) > size:
        text = text[: len(text) * size // large]
    return text


def _repeated(rng: random.Random, size: int) -> str:
    piece = "".join(rng.choices(PIECES, k=rng.randint(1, 3)))
    return piece * (size // len(piece) + 1)


def _mixed(rng: random.Random, size: int) -> str:
    return "".join(rng.choices(PIECES, k=size // 3 + 1))


def _characters(rng: random.Random, size: int) -> str:
    low, high = rng.choice(((0, 0x7F), (0, 0x2FF), (0x3000, 0x9FFF), (0xD800, 0xDFFF), (0xF900, 0xFFFF), (0, 0x10FFFF)))
    return "".join(chr(rng.randint(low, high)) for _ in range(size))


def _digits(rng: random.Random, size: int) -> str:
    digits = rng.choice(
        ("0123456789", "9", "0", "零一二三四五六七八九", "十百千万亿", "１２３", "01,.", "1 ", "1/", "1^-", "1eE+-")
    )
    return "".join(rng.choices(digits, k=size))


def _nested(rng: random.Random, size: int) -> str:
    opening, closing = rng.choice(
        (("(", ")"), ("\\boxed{", "}"), ("{", "}"), ("\\frac{", "}"), ("\\text{", "}"), ("（", "）"))
    )
    depth = size // (len(opening) + len(closing)) + 1
    return opening * depth + rng.choice(PIECES) + closing * (depth - rng.randint(0, 1))


def _framed(rng: random.Random, size: int) -> str:
    inner = _mixed(rng, max(size - 60, 1))
    return rng.choice(
        (f"<think>\na\n</think>\n<answer>\n{inner}\n</answer>", f"\\boxed{{{inner}}}", f"{inner} The answer is {inner}")
    )


SHAPES: tuple[Callable[[random.Random, int], str], ...] = (_repeated, _mixed, _characters, _digits, _nested, _framed)


def grade_row(text: str, question: Question) -> Grade:
    """What is fuzzed: a completion taken apart, and its text graded."""
    parse(text)
    return grade(text, question)


def broken(text: str, question: Question) -> str:
    """What is wrong with a row; empty if nothing is."""
    limit_s = LIMIT_S * -(-max(n_bytes(text), 1) // BLOCK)
    began = time.process_time()
    try:
        grades = grade_row(text, question)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    took_s = time.process_time() - began
    strict, scaled = grades
    if not {strict.value, scaled.value} <= {0.0, 1.0, None} or not (strict.why and scaled.why):
        return f"an impossible verdict: {grades}"
    if strict.value == 1 and scaled.value != 1:
        return f"strict but not scaled: {grades}"
    if took_s > limit_s:
        took_s = min(took_s, *(_timed(text, question) for _ in range(TIMED_AGAIN)))
    return f"{1000 * took_s:.1f} ms of CPU time, {1000 * limit_s:.0f} allowed" if took_s > limit_s else ""


def _timed(text: str, question: Question) -> float:
    gc.collect()
    began = time.process_time()
    grade_row(text, question)
    return time.process_time() - began


def run(seed: int, first: int, rows: int, folder: Path) -> list[Failure]:
    """Grade the rows from number `first` on; what fails is printed, and written to a file of `folder`."""
    failures: list[Failure] = []
    sizes: Counter[str] = Counter()
    largest, began = 0, time.process_time()
    print(f"fuzz: seed {seed}, rows {first} to {first + rows - 1}, up to {LARGEST} bytes each", flush=True)
    for row in range(first, first + rows):
        text, question = hostile(seed, row)
        size = n_bytes(text)
        largest = max(largest, size)
        sizes[next(f"up to {edge}" for edge, _ in SIZES if size <= edge)] += 1
        why = broken(text, question)
        if why:
            failures.append(Failure(row, text, question, why))
            path = folder / f"fuzz_{seed}_{row}.json"
            path.write_text(json.dumps({"why": why, "text": text, "question": question.to_json()}), encoding="utf-8")
            print(
                f"row {row} ({size} bytes, {question.kind}, gold {question.gold!a}): {why}\n  {text[:200]!a}\n  {path}"
            )
        if (row - first + 1) % 100_000 == 0:
            print(
                f"fuzz: {row - first + 1} rows, {len(failures)} failures, {time.process_time() - began:.0f} s",
                flush=True,
            )
    shares = ", ".join(f"{sizes[name]} {name}" for name in sorted(sizes, key=lambda name: int(name.split()[-1])))
    print(f"fuzz: {rows} rows ({shares} bytes; the largest {largest}), {len(failures)} failures", flush=True)
    return failures


def main() -> None:
    """Run, and exit with 1 if a row failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where failing strings go")
    options = parser.parse_args()
    sys.exit(bool(run(options.seed, options.first, options.rows, options.folder)))


if __name__ == "__main__":
    main()
