"""The model judge of reasoning: seven verdicts in one call or in seven, or Fin-R1's single score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from finr1.core.errors import ConfigError
from finr1.core.types import CRITERIA, Trace, Verdict
from finr1.data.filter.verdicts import Judges
from finr1.parts.engine.cached import AnswerCache, CachedEngine
from finr1.parts.engine.http.engine import HttpEngine
from finr1.parts.judge.base import JudgeItem
from finr1.parts.judge.exact import Exact
from finr1.parts.judge.reasoning_llm import ReasoningLlm, read_seven
from finr1.parts.judge.reasoning_rules import ReasoningRules
from finr1.settings.filter import FilterSettings
from tests.helpers.fault_server import Behave, Reply, Seen, chat, each, serve
from tests.helpers.stages import question

PUBLISHED = r"""请根据以下标准评估推理过程的质量：
1.内部一致性：检查推理过程中的步骤是否一致，并且是否能够逐步逻辑地推导出标准答案。
2.术语重叠度：检查推理过程中使用的术语与标准答案中的术语的重叠程度。重叠度越高越好。
3.推理步骤数量：评估推理过程是否包含足够的步骤（至少3步）。
4.逻辑一致性：确保推理过程中的步骤与标准答案在逻辑上高度一致，并检查是否存在明显的错误或遗漏。
5.内容多样性：检查推理过程中是否存在大量重复的步骤。
6.与任务领域的相关性：检查推理过程是否涉及与任务领域相关的内容（任务领域：股票情绪）。如果推理反映了与任务领域的相关性，则给予更高的评分。
7.与任务指令的一致性：检查推理过程是否与任务指令高度相关。相关性越高越好。如果推理内容完全符合任务指令，则给予更高的评分。
以下是问题、推理过程和标准答案：
Question: 1 + 1?
Reasoning Process: one {gold_answer}
and one
Standard Answer: 2
请根据以下标准给出评分：
-如果推理过程质量高，评分为1。
-如果推理过程质量差，评分为0。
-评分只能是1或0。
-请逐步思考，并将评分用\boxed{}格式包裹，以便通过正则表达式轻松提取。"""

ITEM = JudgeItem(question("1 + 1?", "2", meta={"domain": "股票情绪"}), "one {gold_answer}\nand one", "2")


def seven(scores: str, order: Sequence[str] = CRITERIA) -> str:
    return "\n".join(f"{name}: \\boxed{{{score}}}" for name, score in zip(order, scores, strict=True))


def judged(behave: Behave, n: int = 1, **settings: Any) -> tuple[list[dict[str, Verdict]], list[Seen]]:
    with serve(behave) as server:
        node = {"model": "m", "base_url": server.url, "backoff_s": 0.001, "retries": 0}
        judge = ReasoningLlm(**settings)
        judge.ask_through(CachedEngine(lambda: HttpEngine(**node), node, AnswerCache(None)))  # type: ignore[arg-type]
        return judge.judge([ITEM] * n), server.seen


def values(verdicts: dict[str, Verdict]) -> list[float | None]:
    return [verdicts[name].value for name in CRITERIA]


def test_one_call_gives_seven_verdicts() -> None:
    ([verdicts], seen) = judged(each(Reply(body=chat("Let me see.\n" + seven("1101110")))))
    assert values(verdicts) == [1, 1, 0, 1, 1, 1, 0]
    assert verdicts["step_count"].why == "the judge model says it fails"
    asked = seen[0].text
    assert len(seen) == 1 and all(asked.count(f"{name}: ") == 2 for name in CRITERIA)  # what it means, and the box
    assert (
        "the domain of the task, which is 股票情绪" in asked
        and "Reasoning Process: one {gold_answer}\nand one" in asked
    )


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        (seven("1111111"), True),
        (seven("1010101", CRITERIA[::-1]), True),  # by name, in any order
        ("**internal_consistency**: \\boxed{1}\n" + seven("111111", CRITERIA[1:]), True),
        (seven("111111", CRITERIA[:6]), False),  # one is missing
        (seven("1111111") + "\nterm_overlap: \\boxed{0}", False),  # one is there twice
        (seven("1111111") + "\n\\boxed{1}", False),  # a box too many
        (seven("1112111"), False),
        (seven("1111111").replace("\\boxed{1}", "1", 1), False),
        ("\\boxed{1}", False),
        ("", False),
    ],
)
def test_seven_scores_are_read_strictly(reply: str, read: bool) -> None:
    found = read_seven(reply)
    assert (found is not None) == read
    if found:
        assert set(found) == set(CRITERIA)


def test_one_malformed_line_of_seven_is_asked_for_again_then_all_are_undecided() -> None:
    bad = Reply(body=chat(seven("111111x")))
    ([verdicts], seen) = judged(each(bad, Reply(body=chat(seven("0111111")))))
    assert values(verdicts) == [0, 1, 1, 1, 1, 1, 1]
    assert seen[1].body["messages"][-1]["content"].endswith(": " + seven("*******").replace("*", ""))
    ([verdicts], seen) = judged(each(bad))
    assert values(verdicts) == [None] * 7 and len(seen) == 3
    assert verdicts["diversity"].why == "no score in the judge's reply (3 replies)"


def test_a_call_a_criterion_leaves_only_that_one_open() -> None:
    def behave(seen: Seen) -> Reply:
        if "Criterion:\ndiversity: " in seen.text:
            return Reply(500)
        return Reply(body=chat("\\boxed{0}" if "Criterion:\nterm_overlap: " in seen.text else "\\boxed{1}"))

    ([verdicts], seen) = judged(behave, form="each")
    assert values(verdicts) == [1, 0, 1, 1, None, 1, 1] and len(seen) == 7
    assert len({s.text for s in seen}) == 7


def test_the_published_prompt_arrives_verbatim_and_its_score_stands_for_all_seven() -> None:
    ([good], seen) = judged(each(Reply(body=chat("步骤清楚。\\boxed{1}"))), form="single")
    assert seen[0].text == PUBLISHED and values(good) == [1] * 7
    ([bad], _) = judged(each(Reply(body=chat("\\boxed{0}"))), form="single")
    assert values(bad) == [0] * 7


def trace(reasoning: str, n: int = 0) -> Trace:
    return Trace(ITEM.question.id, n, "t", reasoning, "2", "")


@pytest.mark.parametrize(("scores", "outcome"), [("1111111", "good"), ("1111011", "bad"), ("maybe", "undecided")])
def test_only_a_trace_that_holds_all_seven_is_kept(scores: str, outcome: str) -> None:
    reply = chat(seven(scores) if len(scores) == 7 else scores)
    with serve(each(Reply(body=reply))) as server:
        node = {"model": "m", "base_url": server.url}
        judge = ReasoningLlm()
        judge.ask_through(CachedEngine(lambda: HttpEngine(**node), node, AnswerCache(None)))  # type: ignore[arg-type]
        judges = Judges({"exact": Exact()}, {"reasoning_llm": judge}, FilterSettings())
        (row,) = judges.judge([(ITEM.question, trace("x"))])
    assert row["outcome"] == outcome


def test_after_the_rules_the_model_is_asked_only_where_it_can_turn_the_outcome() -> None:
    rules = ReasoningRules(only_faults=CRITERIA)
    sound = "The sum of the cash amounts is asked.\nThe amounts are 1 and 1.\n1 + 1 = 2"
    slip = "The sum of the cash amounts is asked.\nThe amounts are 1 and 1.\n1 + 1 = 3"
    of = question("What is the sum of the cash amounts 1 and 1?", "2")
    pairs = [(of, trace(sound)), (of, trace(slip, 1))]
    with serve(each(Reply(body=chat(seven("1111111"))))) as server:
        node = {"model": "m", "base_url": server.url}
        judge = ReasoningLlm()
        judge.ask_through(CachedEngine(lambda: HttpEngine(**node), node, AnswerCache(None)))  # type: ignore[arg-type]
        judges = Judges({"exact": Exact()}, {"rules": rules, "model": judge}, FilterSettings())
        good, bad = judges.judge(pairs)
        assert len(server.seen) == 1 and slip not in server.seen[0].text
    assert (good["outcome"], bad["outcome"]) == ("good", "bad")
    assert {v["judge"] for v in good["criteria"].values()} == {"model"}
    assert bad["criteria"]["internal_consistency"]["judge"] == "rules"
    assert bad["criteria"]["step_count"] == {"value": None, "why": "3 distinct steps", "judge": ""}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"form": "six"}, r"reasoning_llm.form=six: no such form; use one of seven, each, single"),
        ({"prompt": "judge_reasoning_published.v1"}, r"no placeholder \{criteria\} for the criteria"),
        ({"form": "each", "prompt": "judge_answer_of.v1"}, r"no placeholder \{task_instruction\} for the question"),
    ],
)
def test_settings_that_cannot_work_are_one_line(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ReasoningLlm(**settings)
    with pytest.raises(ConfigError, match=r"only_faults=x: unknown criterion"):
        ReasoningRules(only_faults=["x"])
