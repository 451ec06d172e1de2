"""Every benchmark of conf/benchmark loads the same questions each time, with golds that score 1."""

from __future__ import annotations

import csv
import functools
from pathlib import Path
from typing import Any

import pytest

from finr1.answer.grade import grade
from finr1.cli import compose
from finr1.core.build import build, build_all
from finr1.core.errors import ConfigError, DataError
from finr1.core.types import Question
from finr1.evaluation.scores.figures import units_of
from finr1.parts.benchmark.base import Benchmark
from tests.helpers import made
from tests.helpers.runner import DATA

pytestmark = pytest.mark.slow  # 14 s: every benchmark reads all its rows
NAMES = sorted(path.stem for path in (compose.CONF / "benchmark").glob("*.yaml"))
SUMS = [
    {"q": f"What is {n} + {n}?", "a": str(2 * n), "page": f"p{n // 2}", "level": "easy" if n < 12 else "hard"}
    for n in range(20)
]
GENERIC = [
    "benchmark=[table]",
    "benchmark.table.source.template='Sum: {question} Box it.'",
    "benchmark.table.source.fields={question: q, gold: a, document: page}",
    "benchmark.table.source.rules=[{language: en, kind: number, module: reasoning business, domain: sums}]",
]


def node(name: str, *more: str) -> dict[str, Any]:
    """The benchmark's node as a run would have it."""
    composed = compose.plain(compose.compose([f"benchmark=[{name}]", f"paths.data={DATA}", *more]))
    return composed["benchmark"][name]  # type: ignore[no-any-return]


def load(name: str, folder: Path, **settings: Any) -> tuple[Benchmark, list[Question]]:
    """The benchmark with its questions, of the real rows or, where there are none, of made ones."""
    if name in ("table", "finance_instruct"):
        rows: list[Any] = [
            {"question": f"Q{n}?", "answer": str(n), "user": f"U{n}?", "assistant": f"T{n}"} for n in range(400)
        ]
        return _load(
            {
                **node(name, f"benchmark.{name}.source.path={made.jsonl(folder / 'train.jsonl', rows).parent}"),
                **settings,
            }
        )
    return _load({**node(name), **settings}) if settings else _whole(name)


@functools.cache
def _whole(name: str) -> tuple[Benchmark, list[Question]]:
    """Of the real rows, read once for the tests of a process."""
    return _load(node(name))


def _load(values: dict[str, Any]) -> tuple[Benchmark, list[Question]]:
    benchmark: Benchmark = build(values)
    try:
        return benchmark, list(benchmark.load())
    except ConfigError as error:
        pytest.skip(f"no files of this benchmark: {error}")


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_the_same_questions_each_time_and_their_golds_are_right(name: str, tmp_path: Path) -> None:
    benchmark, questions = load(name, tmp_path)
    assert benchmark.name == name
    assert len(questions) >= 40 and len({q.id for q in questions}) == len(questions)
    assert [q.id for q in questions] == [q.id for q in benchmark.load()]
    assert all(q.gold for q in questions)
    wrong = [q.gold for q in questions if q.kind != "code" and grade(rf"\boxed{{{q.gold}}}", q).strict.value != 1]
    assert not wrong


@pytest.mark.parametrize("name", [name for name in NAMES if name != "worked"])
def test_its_categories_are_there_and_a_sample_stands_for_the_whole(name: str, tmp_path: Path) -> None:
    _, every = load(name, tmp_path)
    _, some = load(name, tmp_path, limit=min(40, len(every) - 1))
    assert len(some) == min(40, len(every) - 1) and {q.id for q in some} < {q.id for q in every}
    if name != "table":  # it names no categories
        units = units_of(some).values()
        assert sum(unit.weight for unit in units) == pytest.approx(len(every))


def _write(folder: Path, kind: str) -> Path:
    if kind == "csv":
        with (folder / "rows.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(SUMS[0]))
            writer.writeheader()
            writer.writerows(SUMS)
        return folder / "rows.csv"
    return {"jsonl": made.jsonl, "json": made.array, "parquet": made.parquet}[kind](
        folder / "deep" / f"rows.{kind}", SUMS
    )


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet"])
def test_any_file_is_a_benchmark_by_yaml_alone(kind: str, tmp_path: Path) -> None:
    path = _write(tmp_path, kind)
    for place in (path, tmp_path):
        questions = list(build(node("table", *GENERIC, f"benchmark.table.source.path={place}")).load())
        assert [q.gold for q in questions] == [str(2 * n) for n in range(20)]
        assert questions[3].text == "Sum: What is 3 + 3? Box it." and questions[3].kind == "number"
        assert len({unit.document for unit in units_of(questions).values()}) == 10


def test_what_the_generic_benchmark_lacks_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"source\.table\.path=None: no file to read"):
        build(node("table"))
    path = f"benchmark.table.source.path={_write(tmp_path, 'jsonl')}"
    with pytest.raises(
        Exception, match=r"source\.table\.template=.*: nothing fills \{level\}; add \{level: <column>\}"
    ):
        build(node("table", *GENERIC, path, "benchmark.table.source.template='{question} {level}'"))
    with pytest.raises(DataError, match="no key `nope`; set `fields` to the names of its columns"):
        list(build(node("table", *GENERIC, path, "benchmark.table.source.fields={question: nope, gold: a}")).load())


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("path=null", r"path=None: no file to read; set benchmark\.table\.source\.path=<file"),
        ("tolerance=2", r"tolerance=2: not a relative difference"),
        ("rules.0.kind=numbr", r"rules\.0\.kind=numbr: no such value; use number, "),
    ],
)
def test_a_fault_inside_a_benchmark_names_the_key_where_it_stands(setting: str, words: str) -> None:
    known = ["benchmark=[table]", "benchmark.table.source.path=x.jsonl", f"benchmark.table.source.{setting}"]
    with pytest.raises(ConfigError, match=rf"^benchmark\.table\.source\.{words}"):
        build_all(compose.plain(compose.compose(known))["benchmark"])


def test_the_five_of_fin_r1_follow_its_size_rule() -> None:
    composed = compose.plain(compose.compose(["+experiment=eval_fin"]))["benchmark"]
    assert list(composed) == ["finqa", "convfinqa", "ant_finance", "tfns", "finance_instruct"]
    assert [node["limit"] for node in composed.values()] == [1000] * 5
    assert composed["finance_instruct"]["share"] == 0.1
