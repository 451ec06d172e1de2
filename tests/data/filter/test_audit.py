"""The audit: every answer judge on a share of the traces, kappa by hand, what the report says of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from finr1.core.errors import ConfigError
from finr1.core.files import canonical, read_json
from finr1.core.jsonl import read_jsonl
from finr1.core.types import Trace, Verdict
from finr1.data.filter.run import run
from finr1.data.filter.verdicts import is_audited
from finr1.evaluation.report.agreement import KINDS, agreement, other_judges, pairs, short
from finr1.evaluation.scores.kappa import cohen_kappa
from finr1.parts.judge.base import JudgeItem, ask_all, cascade
from finr1.parts.judge.base import decided as decide
from finr1.settings.filter import FilterSettings
from finr1.settings.root import JudgeSettings
from tests.helpers.stages import question, stage_context, write_rows

SETTINGS = {
    "judge": {
        "answer": {
            "exact": {"_target_": "finr1.parts.judge.exact.Exact"},
            "says": {"_target_": "tests.data.filter.test_audit.Says"},
        },
    },
    "filter": {"scale_tolerant": True},
}


class Says:
    """An answer judge for these tests: the reasoning tells it what to say (`says 1`, `says 0`, `says ?`)."""

    name = "says"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def judge(self, items: Sequence[JudgeItem]) -> list[Verdict]:
        self.asked += [item.reasoning for item in items]
        values = {"1": 1.0, "0": 0.0, "?": None}
        return [Verdict(values[item.reasoning[-1]], why="as told") for item in items]


def judges(**answers: str) -> dict[str, Says]:
    """Judges by name, each with the digit of an item's reasoning that it goes by: `says 10` is 1 for a, 0 for b."""

    class At(Says):
        def __init__(self, place: int) -> None:
            super().__init__()
            self.place = place

        def judge(self, items: Sequence[JudgeItem]) -> list[Verdict]:
            return super().judge(
                [JudgeItem(item.question, item.reasoning[: self.place], item.answer) for item in items]
            )

    return {name: At(int(place)) for name, place in answers.items()}


def test_an_audited_item_is_asked_of_every_judge_once() -> None:
    of = question("q", "1")
    items = [JudgeItem(of, words, "a") for words in ("10?", "?01", "??0", "???", "111")]
    three = judges(a="1", b="2", c="3")
    decided = cascade(three, items)
    assert [(verdict.value, by) for verdict, by in decided] == [
        (1.0, "a"), (0.0, "b"), (0.0, "c"), (None, ""), (1.0, "a"),
    ]  # fmt: skip
    assert {name: len(judge.asked) for name, judge in three.items()} == {"a": 5, "b": 3, "c": 2}
    rows = ask_all(judges(a="1", b="2", c="3"), items, every=range(5))
    assert [[row[name].value for name in "abc"] for row in rows] == [
        [1.0, 0.0, None], [None, 0.0, 1.0], [None, None, 0.0], [None, None, None], [1.0, 1.0, 1.0],
    ]  # fmt: skip
    assert [decide(row)[1] for row in rows] == ["a", "b", "c", "", "a"], "an audit changed who decides"
    one = judges(a="1", b="2", c="3")
    assert [list(row) for row in ask_all(one, items, every=[4])] == [["a"], ["a", "b"], [*"abc"], [*"abc"], [*"abc"]]
    assert {name: len(judge.asked) for name, judge in one.items()} == {"a": 5, "b": 4, "c": 3}


def test_the_share_is_a_seeded_choice_that_grows() -> None:
    ids = [f"{i:016x}" for i in range(4000)]
    tenth, third = ({i for i in ids if is_audited(i, share, 0)} for share in (0.1, 0.3))
    assert tenth < third and 330 < len(tenth) < 470 and 1100 < len(third) < 1300  # 400 ± 19, 1200 ± 29
    assert {i for i in ids if is_audited(i, 0.1, 1)} != tenth
    assert all(is_audited(i, 1, 0) for i in ids) and not any(is_audited(i, 0, 0) for i in ids)


@pytest.mark.parametrize(
    ("table", "agreement_", "kappa", "marginals"),
    [
        # Cohen's usual example: p_o = 35/50 = 0.7, p_e = 0.5·0.6 + 0.5·0.4 = 0.5, κ = 0.2/0.5
        ((20, 5, 10, 15), 0.7, 0.4, (0.5, 0.6)),
        # p_o = 0.9, p_e = 0.9·0.9 + 0.1·0.1 = 0.82, κ = 0.08/0.18: high agreement, little beyond chance
        ((85, 5, 5, 5), 0.9, 0.08 / 0.18, (0.9, 0.9)),
        ((0, 5, 5, 0), 0.0, -1.0, (0.5, 0.5)),  # p_e = 0.5: always the other way
        ((5, 0, 0, 5), 1.0, 1.0, (0.5, 0.5)),
        ((7, 3, 0, 0), 0.7, 0.0, (1.0, 0.7)),  # a always says 1: p_e = 0.7 = p_o
        ((9, 0, 0, 0), 1.0, None, (1.0, 1.0)),  # p_e = 1: nothing to divide by
        ((0, 0, 0, 4), 1.0, None, (0.0, 0.0)),
        ((0, 4, 0, 0), 0.0, 0.0, (1.0, 0.0)),  # p_o = p_e = 0
    ],
)
def test_kappa_by_hand(
    table: tuple[int, int, int, int], agreement_: float, kappa: float | None, marginals: tuple[float, float]
) -> None:
    found = cohen_kappa(table)
    assert found.agreement == pytest.approx(agreement_)
    assert (found.ones_a, found.ones_b) == pytest.approx(marginals)
    assert found.kappa is None if kappa is None else found.kappa == pytest.approx(kappa, abs=1e-12)
    swapped = cohen_kappa([table[0], table[2], table[1], table[3]])
    assert (swapped.kappa, swapped.ones_a, swapped.ones_b) == (found.kappa, found.ones_b, found.ones_a)


def filtered(run_dir: Path, told: Sequence[tuple[str, str, str]], share: float = 1.0, **answer: Any) -> Path:
    """A run whose filter has judged these traces: (source, the answer to a gold of 5, what the judge is to say).

    An answer in words is to a question that asks for text: no rule reads it.
    """
    questions = [
        question(f"q{i}", "5", source=source, kind="number" if "boxed" in said else "text")
        for i, (source, said, _) in enumerate(told)
    ]
    traces = [
        Trace(q.id, 0, "t", f"says {says}", answer, answer)
        for q, (_, answer, says) in zip(questions, told, strict=True)
    ]
    for folder, name, rows in (("1_questions", "questions", questions), ("2_traces", "traces", traces)):
        write_rows(run_dir / folder / f"{name}.jsonl", rows)
    nodes = answer or SETTINGS["judge"]["answer"]
    settings = FilterSettings(reasoning=False, audit_share=share)
    with stage_context(run_dir, "filter", judge=JudgeSettings(nodes), filter=settings) as ctx:
        run(ctx)
    return run_dir


RIGHT, WRONG = "\\boxed{5}", "\\boxed{6}"
# 4 agree (2 right, 2 wrong), 1 only rules, 2 only judge, 1 judge silent, 1 rules silent, in two sources
TOLD = [
    *(("finqa", RIGHT, "1"), ("finqa", RIGHT, "1"), ("finqa", WRONG, "0"), ("finqa", RIGHT, "0")),
    *(("tfns", WRONG, "1"), ("tfns", WRONG, "1"), ("tfns", WRONG, "0"), ("tfns", RIGHT, "?")),
    ("tfns", "in words", "1"),
]


def table_of(run_dir: Path, settings: Any = SETTINGS) -> Any:
    return agreement(run_dir / "3_filtered", run_dir / "1_questions", settings)


def test_the_table_by_source_and_a_sample_of_each_disagreement(tmp_path: Path) -> None:
    found = table_of(filtered(tmp_path, TOLD))
    rows = {row["source"]: row for row in found["tables"]["says"]}
    cells = ("n", "both", "only_rules", "only_judge", "neither", "only_one_decided")
    assert {source: tuple(row[cell] for cell in cells) for source, row in rows.items()} == {
        "all sources": (7, 2, 1, 2, 2, 2),
        "finqa": (4, 2, 1, 0, 1, 0),
        "tfns": (3, 0, 0, 2, 1, 2),
    }
    # all: p_o = 4/7; rules say 1 of 3/7, the judge of 4/7: p_e = 12/49 + 12/49 = 24/49; κ = (28 - 24)/(49 - 24)
    assert rows["all sources"]["kappa"] == pytest.approx(4 / 25) and rows["all sources"]["agreement"] == 4 / 7
    assert (rows["all sources"]["rules"], rows["all sources"]["judge"]) == pytest.approx((3 / 7, 4 / 7))
    # finqa: p_o = 3/4, marginals 3/4 and 2/4, p_e = 3/8 + 1/8 = 1/2, κ = 1/2
    assert rows["finqa"]["kappa"] == pytest.approx(0.5)
    # tfns: the rules never say right: p_o = 1/3 = p_e = 1·(1/3), κ = 0
    assert rows["tfns"]["kappa"] == pytest.approx(0.0)
    kinds = [(sample["source"], sample["kind"]) for sample in found["samples"]]
    assert sorted(kinds) == sorted([("finqa", KINDS[0]), ("tfns", KINDS[1]), ("tfns", KINDS[1])])
    only_rules = next(sample for sample in found["samples"] if sample["source"] == "finqa")
    assert (only_rules["question"], only_rules["gold"], only_rules["judge_why"]) == ("q3", "5", "as told")
    assert only_rules["answer"] == "5" and found["note"] == ""


def test_the_audit_changes_no_outcome_and_marks_only_its_share(tmp_path: Path) -> None:
    names = ("verdicts", "good", "bad", "undecided")
    plain, audited, half = (filtered(tmp_path / str(share), TOLD, share) for share in (0.0, 1.0, 0.5))
    for name in names:
        rows = [list(read_jsonl(run_dir / "3_filtered" / f"{name}.jsonl")) for run_dir in (plain, audited, half)]
        without = [[{k: v for k, v in row.items() if k != "answers"} for row in some] for some in rows]
        assert without[0] == without[1] == without[2]
        assert not any("answers" in row for row in rows[0])
        marked = [row["trace_id"] for row in rows[2] if "answers" in row]
        assert marked == [row["trace_id"] for row in rows[2] if is_audited(row["trace_id"], 0.5, 0)]
        assert all(list(row["answers"]) == ["exact", "says"] for row in rows[1])
    assert canonical(read_json(plain / "3_filtered" / "filter_summary.json")) == canonical(
        read_json(audited / "3_filtered" / "filter_summary.json")
    )


def test_where_nothing_can_be_compared_it_says_so(tmp_path: Path) -> None:
    found = table_of(filtered(tmp_path, TOLD, share=0.0))
    assert found["note"].startswith("Rules and says decided no trace in common") and not found["samples"]
    (row, *_) = found["tables"]["says"]
    assert (row["n"], row["kappa"], row["agreement"]) == (0, None, None)
    one = {"judge": {"answer": {"exact": SETTINGS["judge"]["answer"]["exact"]}}}
    assert table_of(tmp_path, one) == {
        "judges": ["exact"], "tables": {}, "samples": [], "note": "Only one answer judge (exact): nothing to compare.",
    }  # fmt: skip
    assert agreement(None, None, SETTINGS) is None and agreement(tmp_path, tmp_path, SETTINGS) is None
    assert other_judges({}) == [] and other_judges(SETTINGS) == ["says"]


def test_a_judge_that_decides_alone_is_compared_without_an_audit(tmp_path: Path) -> None:
    alone = {"says": SETTINGS["judge"]["answer"]["says"]}
    run_dir = filtered(tmp_path, TOLD, share=0.0, **alone)
    found = table_of(run_dir, {"judge": {"answer": alone}})
    assert found["tables"]["says"][0]["n"] == 7 and found["note"] == ""


def test_at_most_n_of_a_kind_whatever_their_order(tmp_path: Path) -> None:
    told = [("finqa", "\\boxed{5}", "0")] * 9
    run_dir = filtered(tmp_path, told)
    found = agreement(run_dir / "3_filtered", run_dir / "1_questions", SETTINGS, n=3)
    assert len(found["samples"]) == 3
    path = run_dir / "3_filtered" / "verdicts.jsonl"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    again = agreement(run_dir / "3_filtered", run_dir / "1_questions", SETTINGS, n=3)
    assert {s["trace_id"] for s in again["samples"]} == {s["trace_id"] for s in found["samples"]}
    assert len(list(pairs(run_dir / "3_filtered", SETTINGS))) == 9


def test_the_page_shows_it(tmp_path: Path) -> None:
    from finr1.evaluation.report.gather import summarise
    from finr1.evaluation.report.page import render

    run_dir = filtered(tmp_path, TOLD)
    folders = {"questions": run_dir / "1_questions", "filter": run_dir / "3_filtered"}
    from finr1.core.files import write_json

    write_json(folders["filter"] / "manifest.json", {"settings": SETTINGS, "counts": {}, "seconds": 1.0, "began": 1.0})
    page = render(summarise("r", run_dir, folders), {"questions": {}, "samples": []})
    assert "<th>rules and says</th>" in page and '<td class="n"><b>0.16</b></td>' in page
    assert page.count("rules wrong, judge right") == 2 and "no trace in common" not in page
    one = {"settings": {"judge": {"answer": {"exact": {"_target_": "finr1.parts.judge.exact.Exact"}}}}, "counts": {}}
    write_json(folders["filter"] / "manifest.json", {**one, "seconds": 1.0, "began": 1.0})
    page = render(summarise("r", run_dir, folders), {"questions": {}, "samples": []})
    assert "Only one answer judge (exact): nothing to compare." in page and "rules and says" not in page


def test_small_parts() -> None:
    assert short("x" * 520) == "x" * 520 and short("a" * 300 + "b" * 300) == "a" * 200 + " […] " + "b" * 300
    with pytest.raises(ConfigError, match=r"filter\.audit_share=1\.5: it is a share of the traces; use 0 to 1"):
        FilterSettings(audit_share=1.5)
