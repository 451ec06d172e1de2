"""Every source of conf/source: its gold, written as a completion, scores 1; corrupted, it scores 0."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from finr1.answer.tags import render
from finr1.cli.compose import CONF
from finr1.core.build import build
from finr1.core.errors import ConfigError
from finr1.core.types import Question
from finr1.parts.judge.base import JudgeItem
from finr1.parts.judge.exact import Exact
from finr1.parts.reward.accuracy import Accuracy
from finr1.parts.reward.base import RewardItem
from finr1.parts.reward.format import Format
from finr1.parts.source.table import TableSource
from tests.helpers import made

NAMES = sorted(path.stem for path in (CONF / "source").glob("*.yaml"))
OBJECTIVE = ("number", "choice", "yes_no", "label")
WITHOUT_OBJECTIVE = ("finance_instruct_500k", "finance_qt", "jsonl", "parquet")
MOST = 2500  # rows of each source


def _node(name: str, data: Path) -> Any:
    root = OmegaConf.create({"seed": 0, "paths": {"data": str(data)}})
    whole = OmegaConf.merge(root, {"source": OmegaConf.load(CONF / "source" / f"{name}.yaml")})
    node: Any = OmegaConf.to_container(whole, resolve=True)["source"]  # type: ignore[call-overload]
    assert set(node) == {name}
    return node[name]


def _questions(name: str, data: Path, folder: Path) -> list[Question]:
    """The source's real rows, or rows of our own where no real ones can be had."""
    node = _node(name, data)
    if made_path := made.write(name, folder):
        return _load({**node, "path": made_path})
    return _kept(name, data)


@functools.cache
def _kept(name: str, data: Path) -> list[Question]:
    """Of the real rows, read once for all tests of a process."""
    return _load(_node(name, data))


def _load(node: Any) -> list[Question]:
    try:
        rows = list(build(node).load())
    except ConfigError as error:
        pytest.skip(f"no files of this source: {error}")
    step = max(1, len(rows) // MOST)
    return rows[::step]


def _corrupted(question: Question) -> str:
    """Another answer of the same kind that no reading takes for the gold."""
    gold = question.gold or ""
    if question.kind in ("choice", "label"):
        named = list(gold) if question.kind == "choice" else gold.replace(";", " ").split()
        return next(key for key in sorted(question.choices) if key not in named)
    if question.kind == "yes_no":
        return "no" if gold.strip().lower() in ("yes", "是", "true", "正确", "对") else "yes"
    at = next((i for i, char in enumerate(gold) if char in "123456789"), None)
    if at is None:
        return "7"
    changed = str((int(gold[at]) + 4) % 9 + 1)  # another leading digit: the same at no power of ten
    return gold[:at] + changed + gold[at + 1 :]


@pytest.mark.parametrize("name", NAMES)
def test_gold_scores_one_and_corrupted_gold_zero(name: str, data_path: Path, tmp_path: Path) -> None:
    questions = [q for q in _questions(name, data_path, tmp_path) if q.gold is not None and q.kind in OBJECTIVE]
    assert bool(questions) != (name in WITHOUT_OBJECTIVE)
    judges, accuracy, form = (Exact(False), Exact(True)), (Accuracy(), Accuracy(scale_tolerant=True)), Format()
    for answers, expected in (([q.gold or "" for q in questions], 1.0), ([_corrupted(q) for q in questions], 0.0)):
        boxed = [f"\\boxed{{{answer}}}" for answer in answers]
        items = [JudgeItem(q, "because", text) for q, text in zip(questions, boxed, strict=True)]
        texts = [RewardItem(q, render("because", text), False) for q, text in zip(questions, boxed, strict=True)]
        verdicts = [verdict for judge in judges for verdict in judge.judge(items)]
        verdicts += [verdict for reward in accuracy for verdict in reward.grade(texts)]
        off = [
            f"{q.kind} gold {q.gold!r} answer {answer!r}: {verdict}"
            for q, answer, verdict in zip(questions * 4, answers * 4, verdicts, strict=True)
            if verdict.value != expected
        ]
        assert not off, f"{len(off)} of {len(verdicts)}: " + "; ".join(off[:5])
        assert all(verdict.value == 1.0 for verdict in form.grade(texts))


@pytest.mark.parametrize("name", NAMES)
def test_free_text_is_never_wrong_by_rule(name: str, data_path: Path, tmp_path: Path) -> None:
    """Of text a rule knows only that the very words are right, of programs nothing: the rest is a judge's."""
    questions = [q for q in _questions(name, data_path, tmp_path) if q.gold is not None and q.kind not in OBJECTIVE]
    for question in questions:
        expected = {"text": 1.0, "code": None}[question.kind]
        items = [JudgeItem(question, "because", answer) for answer in (question.gold or "", "别的 other words")]
        gold, other = Exact(False).judge(items)
        assert (gold.value, other.value) == (expected, None), f"{question.kind} {question.gold!r}: {gold} {other}"


@pytest.mark.parametrize("name", NAMES)
def test_ids_are_unique_and_stable_and_prompts_end_with_the_user(name: str, data_path: Path, tmp_path: Path) -> None:
    first = _questions(name, data_path, tmp_path)
    _kept.cache_clear()
    second = _questions(name, data_path, tmp_path)
    assert [q.id for q in first] == [q.id for q in second]
    assert len({q.id for q in first}) >= 0.99 * len(first)  # a few upstream rows are there twice, word for word
    assert all(q.prompt[-1]["role"] == "user" and q.text.strip() and q.document_id for q in first)
    assert all(Question.from_json(q.to_json()).id == q.id for q in first[:50])
    if name != "worked":
        assert all(q.meta["domain"] and q.meta["origin"] for q in first)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "worked"])
def test_the_rules_of_yaml_end_as_those_of_the_class(name: str) -> None:
    """A benchmark's node names no rules: its rows are then tagged by the class's, which must not drift."""
    from finr1.cli.nodes import resolve_target

    node = _node(name, Path())
    source = resolve_target(node["_target_"], name)
    if source is TableSource:  # yaml alone: a benchmark of the same rows gives the same last rule
        benchmarks = [OmegaConf.load(file)[file.stem].source for file in (CONF / "benchmark").glob("*.yaml")]
        assert all(other.rules[-1] == node["rules"][-1] for other in benchmarks if other.get("name") == name)
        return
    last = {tag: value for tag, value in node["rules"][-1].items() if tag != "kind"}
    assert last == source.RULES[-1] and node["wording"] == source.WORDING  # type: ignore[attr-defined]
