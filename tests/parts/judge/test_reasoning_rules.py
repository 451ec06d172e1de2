"""The seven criteria on hand-written traces, and on the planted faults of the worked teacher."""

from collections import Counter
from typing import Any

import pytest

from finr1.answer.tags import parse
from finr1.core.types import CRITERIA, Question
from finr1.parts.engine.base import Request
from finr1.parts.engine.worked.engine import WorkedEngine
from finr1.parts.judge.base import JudgeItem
from finr1.parts.judge.reasoning_rules import ReasoningRules
from finr1.parts.judge.rules.trace import asked_part
from finr1.parts.judge.rules.words import steps, words
from finr1.parts.source.worked.source import Worked
from finr1.settings.sampling import Sampling


def question(kind: str, text: str, gold: str, **more: Any) -> Question:
    prompt = [{"role": "user", "content": text}]
    language = more.pop("language", "en")
    return Question("test", "d", language, "reasoning business", kind, prompt, gold, **more)  # type: ignore[arg-type]


def failed(asked: Question, reasoning: str, answer: str, **thresholds: Any) -> set[str]:
    (verdicts,) = ReasoningRules(**thresholds).judge([JudgeItem(asked, reasoning, answer)])
    assert tuple(sorted(verdicts)) == tuple(sorted(CRITERIA))
    assert all(verdict.why for verdict in verdicts.values())
    return {name for name, verdict in verdicts.items() if verdict.value != 1}


RENT = question(
    "number",
    "Table Data: [['', '2005', '2006'], ['rental expense', '86,842,000', '92,710,000']]\n"
    "Question: what was the percentage change in total rental expense under operating leases from 2005 to 2006?",
    "6.76%",
)
RENT_TRACE = """Okay, the total rental expense under operating leases was $86,842,000 in 2005 and $92,710,000 in 2006.

To find the percentage change, I subtract the old value from the new one: 92,710,000 - 86,842,000 = 5,868,000.

Then divide by the old value: 5,868,000 / 86,842,000 ≈ 0.06757.

Converting to a percentage gives 0.06757 × 100 = 6.757%, which rounds to 6.76%."""
TAX = question(
    "choice",
    "某酒厂为增值税一般纳税人，销售白酒4000斤，取得销售收入13560元（含增值税）。"
    "白酒消费税定额税率为0.5元/斤，比例税率为20%。应缴纳的消费税税额为（ ）元。",
    "C",
    language="zh",
    choices={"A": "2000", "B": "2400", "C": "4400", "D": "5000"},
)
TAX_TRACE = """首先，白酒消费税实行复合计征，增值税税率为13%。
不含税销售额 = 13560 ÷ (1 + 13%) = 12000元。
从价税 = 12000 × 20% = 2400元，从量税 = 4000 × 0.5 = 2000元。
合计应缴纳消费税 = 2400 + 2000 = 4400元，因此选C。"""
TWEET = question(
    "label",
    "Below is a finance-related tweet. Please analyze its sentiment. Text: Cemex cut at Credit Suisse on weak outlook",
    "0",
    choices={"0": "Bearish", "1": "Bullish", "2": "Neutral"},
)
TWEET_TRACE = (
    "The tweet says that Cemex was cut by Credit Suisse. A cut is a downgrade, and the outlook is weak. "
    "Both are bad news for the stock. So the sentiment is Bearish."
)
MARGIN = question("yes_no", "Revenue was 500, operating income 60. Did the operating margin exceed 10%?", "yes")
MARGIN_TRACE = (
    "Operating income was 60 and revenue was 500.\nThe margin is 60 / 500 = 12%.\n12% is greater than 10%: yes."
)
SOUND = [
    (RENT, RENT_TRACE, "\\boxed{6.76\\%}"),
    (TAX, TAX_TRACE, "\\boxed{C、4400}"),
    (TWEET, TWEET_TRACE, "\\boxed{0}"),
    (MARGIN, MARGIN_TRACE, "yes"),
]


@pytest.mark.parametrize(("asked", "reasoning", "answer"), SOUND)
def test_sound_traces_hold_all_seven(asked: Question, reasoning: str, answer: str) -> None:
    assert failed(asked, reasoning, answer) == set()


def test_internal_consistency_sees_a_slip() -> None:
    assert failed(RENT, RENT_TRACE.replace("= 5,868,000", "= 5,688,000"), "6.76%") >= {"internal_consistency"}
    assert "internal_consistency" in failed(MARGIN, MARGIN_TRACE.replace("greater", "less"), "yes")


def test_logical_consistency_sees_an_answer_that_does_not_follow() -> None:
    assert failed(RENT, RENT_TRACE, "7.1%") == {"logical_consistency"}  # not the gold
    assert failed(RENT, RENT_TRACE + "\nSo the answer is 7.5%.", "6.76%") == {"logical_consistency"}
    assert failed(RENT, RENT_TRACE + "\nSo the answer is 6.76%.", "6.76%") == set()
    assert failed(MARGIN, MARGIN_TRACE.replace(": yes", ": no"), "yes") == {"logical_consistency"}
    assert failed(TAX, TAX_TRACE.replace("4400元，因此选C", "4400元，选B").replace("= 4400", "= 2000"), "C") >= {
        "logical_consistency"
    }


def test_logical_consistency_sees_a_number_from_nowhere() -> None:
    leap = "The growth rate compares the change with the old revenue.\nThe base is 250.\n37 / 250 = 14.8%"
    asked = question("number", "Revenue was 250 and rose to 287. What was the growth rate?", "14.8%")
    assert failed(asked, leap, "14.8%") == {"logical_consistency"}
    assert failed(asked, leap, "14.8%", max_unsourced=1) == set()
    assert failed(asked, "Change in revenue:\n287 - 250 = 37\n37 / 250 = 14.8%", "14.8%") == set()


def test_an_answer_without_derivation_does_not_follow() -> None:
    asked = question("number", "Revenue was 250 and rose to 287. What was the growth rate?", "14.8%")
    reasoning = "Growth compares revenue of two years.\nRevenue was 250, then 287.\nSo the growth rate is 14.8%."
    assert failed(asked, reasoning, "14.8%") == {"logical_consistency"}


def test_step_count_counts_different_steps() -> None:
    asked = question("number", "Revenue 250, cost 200. What is the profit?", "50")
    assert failed(asked, "Profit is revenue less cost.\n250 - 200 = 50", "50") == {"step_count"}
    assert failed(asked, "Profit is revenue less cost.\n250 - 200 = 50", "50", min_steps=2) == set()
    assert "step_count" in failed(asked, "Profit:\n250 - 200 = 50\n250 - 200 = 50\n250 - 200 = 50", "50")


def test_diversity_sees_repetition() -> None:
    lines = RENT_TRACE.split("\n\n")
    assert failed(RENT, "\n".join([lines[0], lines[1], lines[1], lines[1], *lines[2:]]), "6.76%") == {"diversity"}
    circles = " and so the change of the rental expense is what the change of the rental expense is" * 20
    assert "diversity" in failed(RENT, RENT_TRACE + circles, "6.76%")


@pytest.mark.parametrize(
    ("case", "stray"),
    [(0, "Penguins swim faster than most people can run."), (1, "小猫在屋顶上睡了整整一个下午。")],
)
def test_domain_relevance_sees_stray_steps(case: int, stray: str) -> None:
    asked, reasoning, answer = SOUND[case]
    lines = reasoning.split("\n")
    assert failed(asked, "\n".join([*lines[:1], stray, *lines[1:]]), answer) == {"domain_relevance"}
    assert failed(asked, "\n".join([*lines[:1], stray, *lines[1:]]), answer, max_off_topic=0.5) == set()


def test_term_overlap_sees_reasoning_about_something_else() -> None:
    asked = question(
        "label", "Is the price of the bond at a discount, par or premium?", "par", choices={"par": "at face"}
    )
    assert "term_overlap" in failed(asked, "Salary rises.\nTaxes rise too.\nIt evens out: at face.", "par")


def test_instruction_following() -> None:
    asked = question(
        "number", RENT.text + " Please use \\boxed{} to wrap the final answer.", "6.76%", meta={"unit": "%"}
    )
    assert failed(asked, RENT_TRACE, "\\boxed{6.76}") == set()
    assert failed(asked, RENT_TRACE, "6.76%") == {"instruction_following"}  # no box
    assert failed(asked, RENT_TRACE, "\\boxed{0.0676}") == {"instruction_following"}  # not in percent
    assert "instruction_following" in failed(TAX, RENT_TRACE, "C")  # the wrong language
    assert "instruction_following" in failed(MARGIN, MARGIN_TRACE, "12%")  # neither yes nor no


def test_asked_part_keeps_decimals_together() -> None:
    assert asked_part(question("number", "Rates rose. What is 4.5% of 200?", "9")) == "What is 4.5% of 200?"
    assert asked_part(question("choice", "利率上升。债券价格会怎样？\nA: 升 B: 降", "B")) == "债券价格会怎样？"


def test_steps_and_words() -> None:
    assert steps("1. Take 4.5% of it. Then add.\n\n---\n第二步：得9。完") == [
        "Take 4.5% of it.",
        "Then add.",
        "得9。",
        "完",
    ]
    assert words("The margins of operating leases 利润率") == {"margin", "operat", "leas", "利润", "润率"}


def test_no_reasoning_at_all() -> None:
    assert failed(RENT, "", "6.76%") >= {"term_overlap", "step_count", "logical_consistency", "domain_relevance"}


@pytest.mark.parametrize("difficulty", [1, 2, 3])
def test_the_planted_faults_of_the_worked_teacher(difficulty: int) -> None:
    """Every clean trace satisfies all seven; nearly every planted fault fails one (a skipped step may be harmless)."""
    asked = list(Worked(n_train=300, n_test=0, seed=17, difficulty=difficulty, chinese_share=0.3).load())
    engine = WorkedEngine(fault_rate=0.5, seed=17)
    completions = [cs[0] for cs in engine.generate([Request(q.prompt, q) for q in asked], Sampling())]
    items = []
    for q, completion in zip(asked, completions, strict=True):
        parsed = parse(completion.text)
        assert parsed.think is not None and parsed.answer is not None
        items.append(JudgeItem(q, parsed.think.strip(), parsed.answer.strip()))
    found: Counter[tuple[str, bool]] = Counter()
    for completion, verdicts in zip(completions, ReasoningRules().judge(items), strict=True):
        fault = completion.meta["fault"] or "none"
        found[fault, all(verdict.value == 1 for verdict in verdicts.values())] += 1
    assert found["none", False] <= 0.01 * found["none", True]
    assert found["none", True] >= 100
    for fault in ("slipped_number", "repeated_step", "off_topic", "wrong_answer"):
        assert found[fault, False] >= 5
        assert found[fault, True] <= 0.02 * found[fault, False]
    assert found["missing_step", True] <= 0.15 * found["missing_step", False]


@pytest.mark.parametrize("piece", ["1=2=", "1 is above ", "a. ", "1+1=2\n", "选A", "是", "(", "9", "999,", "999,x"])
def test_hostile_traces_end_soon(piece: str) -> None:
    import time

    began = time.process_time()
    ReasoningRules().judge([JudgeItem(RENT, (piece * 30_000)[:30_000], "6.76%")])
    assert time.process_time() - began < 3


def worked_items() -> list[JudgeItem]:
    """Traces with and without faults, of all difficulties, in both languages."""
    items = []
    for difficulty in range(4):
        source = Worked(n_train=12, n_test=0, difficulty=difficulty, chinese_share=0.5)
        asked = list(source.load())
        engine = WorkedEngine(fault_rate=0.7, seed=difficulty)
        answers = engine.generate([Request(q.prompt, q) for q in asked], Sampling(n=3))
        items += [
            JudgeItem(q, c.reasoning or "", parse(c.text).answer or "")
            for q, cs in zip(asked, answers, strict=True)
            for c in cs
        ]
    return items


def test_a_question_s_facts_are_shared_by_its_traces_and_change_no_verdict() -> None:
    items = worked_items()
    together = ReasoningRules().judge(items)
    assert together == [ReasoningRules().judge([item])[0] for item in items]
    assert {v["logical_consistency"].value for v in together} == {0.0, 1.0}
