"""The questions stage: what is dropped and why, that nothing is lost, and that the choice is seeded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finr1.core.errors import ConfigError, DataError
from finr1.core.jsonl import read_jsonl
from finr1.core.types import Question
from finr1.data.questions.run import choose, decontaminate, drop_duplicates, run
from finr1.settings.questions import QuestionsSettings
from tests.helpers.stages import question, stage_context


def test_duplicates_fold_case_width_and_space_and_keep_the_row_with_gold() -> None:
    hidden = question("What is  2 + 2?", None)
    shown = question("what is ２ + 2?", "4", source="other")
    alone = question("What is 2 + 3?", "5")
    kept, removals = drop_duplicates([hidden, shown, alone])
    assert kept == [shown, alone]
    assert [(r.question.id, r.reason, r.partner) for r in removals] == [(hidden.id, "duplicate", shown.id)]


def test_the_same_wording_with_other_choices_is_another_question() -> None:
    first = question("Which?", "A", kind="choice", choices={"A": "one", "B": "two"})
    second = question("Which?", "A", kind="choice", choices={"A": "three", "B": "four"})
    kept, removals = drop_duplicates([first, second])
    assert kept == [first, second]
    assert removals == []


def test_contradictory_golds_are_all_taken_out_each_with_a_partner_of_another_gold() -> None:
    rows = [question("q", "1"), question("Q", "1"), question("q ", "2"), question("other", "2")]
    kept, removals = drop_duplicates(rows)
    assert kept == [rows[3]]
    assert {r.question.id for r in removals} == {row.id for row in rows[:3]}
    gold = {row.id: row.gold for row in rows}
    assert all(r.reason == "contradictory_gold" and gold[r.partner] != r.question.gold for r in removals)


def test_golds_that_say_the_same_do_not_contradict_each_other() -> None:
    for kind, golds in (
        ("number", ("12.5%", "0.125", "1/8")),
        ("number", ("1,200,000", "1.2 million")),
        ("yes_no", ("yes", "Yes.", "True")),
        ("number", ("5:1", "5:1 ")),
    ):
        rows = [question(f"q{' ' * n}", gold, kind=kind) for n, gold in enumerate(golds)]
        kept, removals = drop_duplicates(rows)
        assert kept == rows[:1] and {removal.reason for removal in removals} == {"duplicate"}, golds
    for first, second in (("12.5%", "12.4%"), ("12", "12.4"), ("5:1", "5:2")):
        rows = [question("q", first, kind="number"), question("q ", second, kind="number")]
        assert drop_duplicates(rows)[0] == [], (first, second)


def test_decontaminate_goes_by_wording_and_by_document_across_sources() -> None:
    held = question("Asked?", split="test", document_id="AAA/2009/page_1.pdf")
    same_words = question("asked?", document_id="BBB/2009/page_2.pdf", source="convfinqa")
    same_page = question("Another?", document_id="AAA/2009/page_1.pdf", source="convfinqa")
    free = question("Free?", document_id="AAA/2009/page_3.pdf")
    kept, removals = decontaminate([same_words, same_page, free], [held])
    assert kept == [free]
    tweet = question("Profit up 5% at Acme https://t.co/A", split="test")
    for text in (
        "profit up 5% at Acme",
        "What is the mood?\nTweet: Profit up  5% at Acme https://t.co/B\nAnswer 0, 1 or 2.",
    ):
        assert [r.reason for r in decontaminate([question(text)], [tweet])[1]] == ["in_benchmark"]
    assert decontaminate([question("Profit up 15% at Acme"), question("Up 5% at Acme")], [tweet])[1] == []
    assert [(r.question, r.reason, r.partner) for r in removals] == [
        (same_words, "in_benchmark", held.id),
        (same_page, "benchmark_document", held.id),
    ]


def test_choice_is_per_source_seeded_ordered_and_stable_when_rows_are_added() -> None:
    rows = [question(f"{source}{i}", source=source) for source in "ab" for i in range(40)]
    first = choose(rows, 10, seed=0)
    assert first == choose(rows, 10, seed=0)
    assert [sum(q.source == s for q in first) for s in "ab"] == [10, 10]
    assert first == [q for q in rows if q in first]
    assert first != choose(rows, 10, seed=1)
    more = [*rows, *(question(f"c{i}", source="c") for i in range(5))]
    assert choose(more, 10, seed=0)[:20] == first
    assert choose(rows, None, seed=0) == rows


def _tweets(folder: Path, train: list[str], valid: list[str]) -> dict[str, Any]:
    """Two files in the layout of TFNS; returns the `_target_` node of the source."""
    folder.mkdir()
    for name, rows in (("sent_train.csv", train), ("sent_valid.csv", valid)):
        (folder / name).write_text("\r\n".join(["text,label", *rows, ""]))
    return {"_target_": "finr1.parts.source.tfns.Tfns", "path": str(folder)}


def test_run_writes_every_row_somewhere(tmp_path: Path) -> None:
    train = [f"Stock {i} rises,1" for i in range(8)] + [
        "STOCK 0 rises,1",
        "Up 5%,1",
        "Up 5%,0",
        "Held out http://a.b,2",
    ]
    node = _tweets(tmp_path / "tfns", train, ["Held out http://c.d,2"])
    benchmark = {"tfns": {"_target_": "finr1.parts.benchmark.held_out.HeldOut", "source": node}}
    settings = {"source": {"tfns": node}, "benchmark": benchmark, "questions": QuestionsSettings(limit_per_source=5)}
    with stage_context(tmp_path / "run", "questions", **settings) as ctx:
        counts = run(ctx)
    questions = [Question.from_json(row) for row in read_jsonl(ctx.folder / "questions.jsonl")]
    removed = list(read_jsonl(ctx.folder / "removed.jsonl"))
    assert counts["removed"] == {"duplicate": 1, "contradictory_gold": 2, "in_benchmark": 1}
    assert (counts["read"], counts["questions"], counts["not_chosen"], len(removed)) == (12, 5, 3, 4)
    assert counts["by_source"] == {"tfns": 5} and counts["by_language"] == {"en": 5}
    assert len(questions) == 5 and all(q.split == "train" and q.gold == "1" for q in questions)
    assert all(set(row) == {"id", "reason", "partner", "source"} for row in removed)


def test_rows_that_a_source_set_aside_are_kept_with_their_place(tmp_path: Path) -> None:
    node = _tweets(tmp_path / "tfns", ["Up 5%,1", "Down,7", "Flat"], ["x,2"])
    with stage_context(tmp_path / "run", "questions", source={"tfns": node}) as ctx:
        counts = run(ctx)
    assert (counts["read"], counts["questions"], counts["set_aside"]) == (1, 1, 2)
    assert counts["removed"] == {"unreadable": 2} and counts["by_domain"] == {"sentiment of financial tweets": 1}
    place = f"{tmp_path / 'tfns' / 'sent_train.csv'} row"
    assert list(read_jsonl(ctx.folder / "removed.jsonl")) == [
        {"source": "tfns", "reason": "unreadable", "place": f"{place} 2 (line 3)", "why": "label '7'"},
        {
            "source": "tfns",
            "reason": "unreadable",
            "place": f"{place} 3 (line 4)",
            "why": "1 fields under a header of 2",
        },
    ]


def test_nothing_left_is_one_clear_line(tmp_path: Path) -> None:
    node = _tweets(tmp_path / "tfns", ["Up 5%,1", "Up 5%,0"], ["x,2"])
    with (
        stage_context(tmp_path / "run", "questions", source={"tfns": node}) as ctx,
        pytest.raises(DataError, match=r"source=\[tfns\]: no question left of 2 read, 2 removed; ") as error,
    ):
        run(ctx)
    assert "\n" not in str(error.value)


def test_no_source_and_a_limit_of_zero_are_refused(tmp_path: Path) -> None:
    with stage_context(tmp_path, "questions") as ctx, pytest.raises(ConfigError, match="there are no questions"):
        run(ctx)
    with pytest.raises(ConfigError, match=r"questions\.limit_per_source=0"):
        QuestionsSettings(limit_per_source=0)


def test_the_same_row_twice_goes_even_where_equal_wordings_may_stay(tmp_path: Path) -> None:
    node = _tweets(tmp_path / "tfns", ["Up 5%,1", "up 5%,1", "Up 5%,1"], ["x,2"])
    settings = QuestionsSettings(drop_duplicates=False)
    with stage_context(tmp_path / "run", "questions", source={"tfns": node}, questions=settings) as ctx:
        counts = run(ctx)
    assert counts["questions"] == 2 and counts["removed"] == {"duplicate": 1}


def test_free_text_with_two_golds_is_a_duplicate_not_a_contradiction() -> None:
    rows = [question("q", "one way", kind="text"), question("Q", "another", kind="text")]
    kept, removals = drop_duplicates(rows)
    assert kept == rows[:1] and [(r.reason, r.partner) for r in removals] == [("duplicate", rows[0].id)]


def test_near_duplicates_held_out_documents_and_shared_text_go_with_their_partners(tmp_path: Path) -> None:
    news = "Shares of the maker of small engines rise after a strong report on sales abroad and at home"
    more = "Oil falls for the third day as traders weigh new supply from the north against weak demand in Asia"
    train = [f"{news},1", f"{news} today,1", f"BREAKING {more},0", "Held out http://a.b,2", "Other news,2"]
    tfns = _tweets(tmp_path / "tfns", train, ["Held out http://c.d,2"])
    asked = _tweets(tmp_path / "asked", ["x,2"], [f"{more} now,0"])
    benchmark = {"asked": {"_target_": "finr1.parts.benchmark.held_out.HeldOut", "source": asked}}
    with stage_context(tmp_path / "run", "questions", source={"tfns": tfns}, benchmark=benchmark) as ctx:
        counts = run(ctx)
    kept = {row["id"]: row for row in read_jsonl(ctx.folder / "questions.jsonl")}
    removed = {row["reason"]: row for row in read_jsonl(ctx.folder / "removed.jsonl")}
    assert set(removed) == {"near_duplicate", "benchmark_overlap", "held_out_document"} and len(kept) == 2
    assert news in kept[removed["near_duplicate"]["partner"]]["prompt"][0]["content"]
    assert all(row["partner"] for row in removed.values())
    assert counts["checked"] == {"asked": 1}
    cell = {"source": "tfns", "module": "non-reasoning business", "language": "en"}
    assert counts["distribution"] == [{**cell, "read": 5, "kept": 2}]


def test_what_was_not_checked_is_not_called_checked(tmp_path: Path) -> None:
    node = _tweets(tmp_path / "tfns", ["Up 5%,1"], ["x,2"])
    settings = QuestionsSettings(decontaminate=False, near_duplicates=None)
    with stage_context(tmp_path / "run", "questions", source={"tfns": node}, questions=settings) as ctx:
        assert run(ctx)["checked"] is None


@pytest.mark.parametrize("wrong", [{"near_duplicates": 0.2}, {"overlap_words": 0}, {"overlap_common": 0}])
def test_thresholds_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"questions.{next(iter(wrong))}="):
        QuestionsSettings(**wrong)
