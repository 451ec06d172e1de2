r"""The model judge of answers: the prompt sent, strict parsing of `\boxed{}`, retries, failures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from finr1.core.errors import ConfigError
from finr1.core.prompt import load
from finr1.core.types import Question
from finr1.parts.engine.cached import AnswerCache, CachedEngine
from finr1.parts.engine.http.engine import HttpEngine
from finr1.parts.judge.answer_llm import AnswerLlm
from finr1.parts.judge.base import JudgeItem, cascade
from finr1.parts.judge.exact import Exact
from finr1.parts.judge.model_judge import gold_of, read_box
from tests.helpers.fault_server import Behave, Reply, Server, chat, each, serve
from tests.helpers.stages import question

PUBLISHED = r"""你是一位金融领域的专家评估员。请根据问题、正确答案以及待评分答案，对提供的答案进行打分。
Question: 净利润是多少 {x}?
Correct Answer: 3亿元
Answer to be Scored: 3亿 {answer}
评分标准如下：
1. 答案正确性（主要标准）：
   - 如果待评分答案与标准答案数值相同，得1分
   - 如果待评分答案与标准答案存在显著偏差，得0分
2. 数学表达：
   - 允许使用不同的数学表达方式，只要表达等价即可
   - 例如：0.2和20%视为等价表达
3. 单位表示：
   - 允许使用不同的单位表示方式，如"亿元"和"亿"视为等价
   - 单位可以与标准答案不一致，只要换算后相等即可
注意事项：
 - 待评分答案不一定与标准答案完全一致，只要表达了相同的数值结论即可
 - 如果答案正确但缺少解题步骤，仍可得分
 - 如果答案错误但解题步骤正确，不得分
Response requirement: Only provide the result, and place the score at the end in \boxed{}. Do not output the thought process.
Output example: \boxed{1} or \boxed{0}"""  # noqa: E501


def engine(server: Server, cache: Path | None = None, **more: object) -> CachedEngine:
    """The judge's engine, built as in a run."""
    settings = {"model": "m", "base_url": server.url, "backoff_s": 0.001, "retries": 1, **more}
    return CachedEngine(lambda: HttpEngine(**settings), settings, AnswerCache(cache))  # type: ignore[arg-type]


@pytest.fixture
def text() -> Question:
    return question("净利润是多少 {x}?", "3亿元", kind="text", language="zh")


def judged(behave: Behave, of: Question, *answers: str, **settings: object) -> Iterator[object]:
    """Return the verdict of each answer, and the requests received."""
    with serve(behave) as server:
        judge = AnswerLlm(**settings)  # type: ignore[arg-type]
        judge.ask_through(engine(server))
        yield from judge.judge([JudgeItem(of, "", answer) for answer in answers])
        yield server.seen


def test_the_published_prompt_arrives_verbatim_at_temperature_0(text: Question) -> None:
    verdict, seen = judged(
        each(Reply(body=chat("\\boxed{1}"))), text, "so \\boxed{3亿 {answer}}", prompt="judge_answer_published.v1"
    )
    assert verdict.value == 1.0 and verdict.answer == "3亿 {answer}"  # type: ignore[attr-defined]
    assert [s.body["messages"] for s in seen] == [[{"role": "user", "content": PUBLISHED}]]  # type: ignore[attr-defined]
    assert seen[0].body["temperature"] == 0 and "n" not in seen[0].body  # type: ignore[index]


def test_the_default_prompt_puts_rules_first_and_shows_no_question(text: Question) -> None:
    _, seen = judged(each(Reply(body=chat("\\boxed{1}"))), text, "\\boxed{3亿}")
    asked = seen[0].text  # type: ignore[index]
    assert "净利润" not in asked
    assert (
        asked.index("rules")
        < asked.index("Correct Answer: 3亿元\nAnswer to be Scored: 3亿\n")
        < asked.index("\\boxed{}")
    )


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("\\boxed{1}", 1.0),
        ("\\boxed{0}", 0.0),
        ("It is \\boxed{0}? No: \\boxed{1}.", 1.0),  # the last box counts
        ("\\boxed{1} and then \\boxed{0}", 0.0),
        ("\\boxed{1}或\\boxed{0}", None),  # a hedge
        ("\\boxed{1} or maybe \\boxed{0}", None),
        ("\\boxed{0}, \\boxed{1}", None),
        ("\\boxed{1} or \\boxed{1}", 1.0),
        ("\\boxed{1}\n\nOn second thought: \\boxed{0}", 0.0),
        ("not \\boxed{1}", None),
        ("-\\boxed{1}", None),
        ("\\boxed{1} and then \\boxed{0.5}", None),
        ("\\boxed{1} and then \\boxed{", None),
        ("\\boxed{}", None),
        ("\\boxed{10}", None),
        ("\\boxed{1.0}", None),
        ("\\boxed{\\text{1}}", None),
        ("\\boxed{ 1 }", None),
        ("boxed{1}", None),
        ("1", None),
        ("", None),
        ("right", None),
        ("Output example: \\boxed{1} or \\boxed{0}", None),  # an echo of the prompt
        ("Output example: \\boxed{1} or \\boxed{0}\n\\boxed{1}", 1.0),
    ],
)
def test_scores_are_read_strictly(reply: str, value: float | None) -> None:
    assert read_box(reply) == value


def test_a_thought_before_the_reply_is_not_read(text: Question) -> None:
    reply = "<think>I would say \\boxed{0}</think>no score"
    verdict, seen = judged(each(Reply(body=chat(reply)), Reply(body=chat("\\boxed{1}"))), text, "3", retries=1)
    assert verdict.value == 1.0 and len(seen) == 2  # type: ignore[attr-defined, arg-type]


def test_a_malformed_reply_is_quoted_and_asked_for_again(text: Question) -> None:
    replies = each(Reply(body=chat("Right, I think.")), Reply(body=chat("\\boxed{2}")), Reply(body=chat("\\boxed{0}")))
    verdict, seen = judged(replies, text, "4亿")
    assert verdict.value == 0.0  # type: ignore[attr-defined]
    first, second, third = [s.body["messages"] for s in seen]  # type: ignore[attr-defined]
    assert second[:2] == [*first, {"role": "assistant", "content": "Right, I think."}]
    assert second[2]["role"] == "user" and "\\boxed{1} or \\boxed{0}" in second[2]["content"]
    assert third[:4] == [*second, {"role": "assistant", "content": "\\boxed{2}"}], "a retry is never the same prompt"
    assert {s.body["temperature"] for s in seen} == {0}  # type: ignore[attr-defined]


def test_after_the_last_retry_it_is_undecided_never_wrong(text: Question) -> None:
    verdict, seen = judged(each(Reply(body=chat("maybe"))), text, "4亿")
    assert verdict == (None, "4亿", "no score in the judge's reply (3 replies)") and len(seen) == 3  # type: ignore[arg-type]
    verdict, seen = judged(each(Reply(body=chat("maybe"))), text, "4亿", retries=0)
    assert verdict.value is None and len(seen) == 1  # type: ignore[attr-defined, arg-type]


def test_a_reply_that_was_cut_is_no_reply(text: Question) -> None:
    cut = Reply(body=chat("\\boxed{0} would be wrong, as", finish_reason="length"))
    verdict, seen = judged(each(cut), text, "3", retries=1)
    assert verdict == (None, "3", "the judge's reply was truncated (2 replies)") and len(seen) == 2  # type: ignore[arg-type]


def test_a_failed_call_is_undecided_and_the_others_are_not_lost(text: Question) -> None:
    def behave(seen: object) -> Reply:
        return Reply(500, b"boom") if "Scored: 5" in seen.text else Reply(body=chat("\\boxed{1}"))  # type: ignore[attr-defined]

    *verdicts, seen = judged(behave, text, "4", "5", "6")
    assert [v.value for v in verdicts] == [1.0, None, 1.0]  # type: ignore[attr-defined]
    assert verdicts[1].why == "the judge's call failed: HTTP 500: boom (2 attempts)"  # type: ignore[attr-defined]
    assert len(seen) == 4  # type: ignore[arg-type]


def test_all_are_in_flight_together_and_equal_ones_are_asked_once(text: Question) -> None:
    slow = each(Reply(body=chat("\\boxed{1}"), delay_s=0.2))
    *verdicts, seen = judged(slow, text, *map(str, range(20)), "3", "\\boxed{3}")
    assert [v.value for v in verdicts] == [1.0] * 22  # type: ignore[attr-defined]
    assert len(seen) == 20 and max(s.in_flight for s in seen) >= 15  # type: ignore[arg-type, attr-defined]


def test_nothing_is_asked_where_there_is_nothing_to_judge(text: Question) -> None:
    hidden = question("q", None, kind="text")
    judge = AnswerLlm()
    with serve(each(Reply(500))) as server:
        judge.ask_through(engine(server))
        items = [JudgeItem(hidden, "", "5"), JudgeItem(text, "", "\\boxed{}"), JudgeItem(text, "", " ")]
        assert [v.value for v in judge.judge(items)] == [None, 0.0, 0.0]
        assert judge.judge([]) == [] and not server.seen
    with pytest.raises(ConfigError, match=r"engine.judge=None: answer_llm asks a model"):
        AnswerLlm().judge([JudgeItem(text, "", "5")])


def test_the_cascade_asks_the_model_only_what_no_rule_decides(text: Question) -> None:
    number = question("n", "25")
    items = [JudgeItem(number, "", "25"), JudgeItem(text, "", "three hundred million"), JudgeItem(number, "", "26")]
    with serve(each(Reply(body=chat("\\boxed{1}")))) as server:
        model = AnswerLlm()
        model.ask_through(engine(server))
        found = cascade({"exact": Exact(), "answer_llm": model}, items)
        assert [(v.value, by) for v, by in found] == [(1.0, "exact"), (1.0, "answer_llm"), (0.0, "exact")]
        assert len(server.seen) == 1
        assert found[1][0].why == "the judge model says right"


def test_where_the_question_is_not_shown_the_gold_says_what_only_it_would_say() -> None:
    options = {"A": "bonds", "B": "stocks", "C": "cash"}
    assert gold_of(question("q", "B", kind="choice", choices=options), False) == "B (B: stocks)"
    assert gold_of(question("q", "A,C", kind="choice", choices=options), False) == "A,C (A: bonds; C: cash)"
    assert gold_of(question("q", "0", kind="label", choices={"0": "Bearish", "10": "x"}), False) == "0 (0: Bearish)"
    assert gold_of(question("q", "25", meta={"unit": "%"}), False) == "25 (in %)"
    assert gold_of(question("q", "25%", meta={"unit": "%"}), False) == "25%"
    assert gold_of(question("q", "B", kind="choice", choices=options), True) == "B"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prompt": "judge_answer.v9"}, r"judge.answer.answer_llm.prompt=judge_answer.v9: no such prompt text"),
        ({"prompt": "finqa.v1"}, r"prompt=finqa.v1: it has no placeholder \{gold_answer\} for the gold"),
        ({"retries": -1}, r"judge.answer_llm.retries=-1"),
    ],
)
def test_settings_that_cannot_work_are_one_line(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        AnswerLlm(**settings)  # type: ignore[arg-type]


def test_the_prompts_of_judges_are_no_wording_of_a_question() -> None:
    from finr1.core.prompt import unfill

    filled = load("judge_answer_of.v1")
    assert unfill("Question: what is it?") == {"question": "Question: what is it?"} and "{question}" not in filled
