"""Fin-R1's model-based reward: the filter's cascade on the answer block, all completions of a step at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra.errors import InstantiationException

from finr1.cli import check, compose
from finr1.core.errors import ConfigError
from finr1.parts.judge.answer_llm import AnswerLlm
from finr1.parts.judge.exact import Exact
from finr1.parts.reward.base import RewardItem
from finr1.parts.reward.verifier import Verifier
from finr1.run.stages import chosen
from finr1.settings.root import JudgeSettings, PathsSettings
from tests.helpers.fault_server import Reply, Seen, chat, each, serve
from tests.helpers.stages import question, stage_context

TEXT = question("why?", "rates rose", kind="text")
NUMBER = question("n", "25")
ANSWER_LLM = {"_target_": "finr1.parts.judge.answer_llm.AnswerLlm"}
JUDGES = {"exact": {"_target_": "finr1.parts.judge.exact.Exact"}, "answer_llm": ANSWER_LLM}
VERIFIER = {"verifier": {"_target_": "finr1.parts.reward.verifier.Verifier", "judges": JUDGES, "weight": 0.5}}


def completion(of: object, answer: str, truncated: bool = False) -> RewardItem:
    return RewardItem(of, f"<think>\nx\n</think>\n<answer>\n{answer}\n</answer>", truncated)  # type: ignore[arg-type]


def settings(url: str, cache: Path | None = None) -> dict[str, object]:
    node = {"_target_": "finr1.parts.engine.http.engine.HttpEngine", "model": "m", "base_url": url, "retries": 0}
    return {"engine": {"judge": node}, "paths": PathsSettings(judge_cache=str(cache) if cache else None)}


def behave(seen: Seen) -> Reply:
    """Right for interest rates, out of order for `down`, else wrong; each takes a moment."""
    if "Scored: down" in seen.text:
        return Reply(503)
    return Reply(body=chat(f"\\boxed{{{int('interest' in seen.text)}}}"), delay_s=0.2)


def test_a_step_is_graded_at_once_and_a_failure_is_never_0(tmp_path: Path) -> None:
    items = [
        completion(NUMBER, "\\boxed{25}"),
        completion(NUMBER, "26"),
        completion(TEXT, "interest went up"),
        completion(TEXT, "the weather"),
        completion(TEXT, "down"),
        RewardItem(TEXT, "<answer>rates rose</answer><answer>x</answer>", False),
        RewardItem(TEXT, "<think>so", True),
    ]
    with serve(behave) as server, stage_context(tmp_path, "grpo", **settings(server.url)) as ctx:
        (reward,) = ctx.parts(VERIFIER).values()
        verdicts = reward.grade(items)
        assert ctx.count_judge() == {
            "judge_asked": 3, "judge_failed": 1, "paid_prompt_tokens": 20, "paid_completion_tokens": 10
        }  # fmt: skip
        assert reward.weight == 0.5 and max(seen.in_flight for seen in server.seen) >= 2
    assert [v.value for v in verdicts] == [1, 0, 1, 0, None, 0, 0]
    assert verdicts[5].why == "no answer block"
    assert ctx.notes == ["1 of 3 judge calls failed: their verdicts are undecided"]


def test_the_reward_shares_the_filters_answer_cache(tmp_path: Path) -> None:
    with serve(behave) as server:
        asked = settings(server.url, tmp_path / "cache.sqlite")
        with stage_context(tmp_path / "a", "filter", judge=JudgeSettings(answer=JUDGES), **asked) as ctx:
            from finr1.parts.judge.base import JudgeItem, cascade

            judged = cascade(ctx.parts(ctx.cfg.judge.answer), [JudgeItem(TEXT, "r", "\\boxed{interest went up}")])
            assert judged[0][0].value == 1 and len(server.seen) == 1
        with stage_context(tmp_path / "b", "grpo", **asked) as ctx:
            (reward,) = ctx.parts(VERIFIER).values()
            assert reward.grade([completion(TEXT, "interest went up")] * 4) == [judged[0][0]] * 4
            assert ctx.count_judge() == {"judge_asked": 0, "judge_failed": 0}
        assert len(server.seen) == 1


def test_a_verifier_needs_a_model_that_is_not_trained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"reward.verifier.judges=.*none of \[exact\] asks a model; choose judge@"):
        Verifier({"exact": Exact()})
    assert Verifier({"answer_llm": AnswerLlm()}).weight == 1.0
    vllm = {"judge": {"_target_": "finr1.parts.engine.vllm.engine.VllmEngine"}}
    with stage_context(tmp_path, "grpo", engine=vllm) as ctx, pytest.raises(ConfigError, match="weights change"):
        ctx.parts(VERIFIER)
    with stage_context(tmp_path, "grpo") as ctx, pytest.raises(ConfigError, match=r"engine\.judge=None: no engine has"):
        ctx.parts(VERIFIER)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["stage=grpo", "reward=[format,verifier]"], r"reward.verifier.judges=.*none of .* asks a model"),
        (["stage=filter", "judge@judge.answer=[exact,answer_llm]"], r"engine.judge=null: judge.answer.answer_llm asks"),
        (
            ["stage=filter", "judge@judge.reasoning=[reasoning_llm]"],
            r"engine.judge=null: judge.reasoning.reasoning_llm",
        ),
        (
            ["stage=grpo", "reward=[verifier]", "judge@judge.answer=[answer_llm]", "engine@engine.judge=vllm"],
            r"engine.judge=vllm: reward.verifier would ask the engine whose weights are trained",
        ),
    ],
)
def test_a_missing_judge_setting_is_an_error_at_the_start(overrides: list[str], words: str) -> None:
    cfg = compose.compose(overrides)
    names = [stage.name for stage in chosen(cfg.stage)]
    with pytest.raises((ConfigError, InstantiationException), match=words):  # Hydra wraps what a constructor says
        check.check_judges(compose.typed(cfg), compose.plain(cfg), names)


def test_the_judges_engine_is_chosen_with_and_without_a_plus_and_the_reward_has_the_filter_s_cascade() -> None:
    more = ["judge@judge.answer=[exact,answer_llm]", "reward=[format,verifier]", "engine.judge.model=m"]
    for choice in ("engine@engine.judge=http", "+engine@engine.judge=http"):
        cfg = compose.typed(compose.compose([choice, *more]))
        assert cfg.engine["judge"]["model"] == "m"
        assert cfg.reward["verifier"]["judges"] == cfg.judge.answer and list(cfg.judge.answer) == [
            "exact",
            "answer_llm",
        ]
        check.check_judges(cfg, compose.plain(compose.compose([choice, *more])), ["filter", "grpo"])
    assert "judge" not in compose.typed(compose.compose()).engine


def test_each_server_is_asked_as_its_own_cache_key(tmp_path: Path) -> None:
    """The address decides nothing: a judge that moved is not asked again."""
    with serve(each(Reply(body=chat("\\boxed{1}")))) as one, serve(each(Reply(500))) as two:
        for server in (one, two):
            with stage_context(tmp_path, "grpo", **settings(server.url, tmp_path / "c")) as ctx:
                (reward,) = ctx.parts(VERIFIER).values()
                assert reward.grade([completion(TEXT, "x")])[0].value == 1
    assert (len(one.seen), len(two.seen)) == (1, 0)
