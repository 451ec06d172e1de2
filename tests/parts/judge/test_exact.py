"""The rule-based answer judge, alone and as the first of a cascade."""

from finr1.core.types import Question, Verdict
from finr1.parts.judge.base import JudgeItem, cascade
from finr1.parts.judge.exact import Exact


def item(kind: str, gold: str, answer: str) -> JudgeItem:
    prompt = [{"role": "user", "content": "?"}]
    return JudgeItem(Question("test", "d", "en", "reasoning business", kind, prompt, gold), "", answer)  # type: ignore[arg-type]


ITEMS = [item("number", "25%", "25"), item("number", "25%", "30"), item("text", "Apple", "the fruit company")]


def test_scale_tolerance() -> None:
    assert [v.value for v in Exact().judge(ITEMS)] == [1, 0, None]
    assert [v.value for v in Exact(scale_tolerant=False).judge(ITEMS)] == [0, 0, None]


class Later:
    name = "later"

    def __init__(self) -> None:
        self.seen: list[str] = []

    def judge(self, items: list[JudgeItem]) -> list[Verdict]:
        self.seen += [item.answer for item in items]
        return [Verdict(1.0) for _ in items]


def test_the_next_judge_sees_only_what_is_undecided() -> None:
    later = Later()
    verdicts = cascade({"exact": Exact(), "later": later}, ITEMS)  # type: ignore[dict-item]
    assert later.seen == ["the fruit company"]
    assert [(v.value, by) for v, by in verdicts] == [(1, "exact"), (0, "exact"), (1, "later")]
