"""The held-out benchmark of the generated source."""

from __future__ import annotations

from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from finr1.core.errors import ConfigError
from finr1.parts.benchmark.base import Outcome
from finr1.parts.benchmark.worked import Worked
from finr1.parts.source.worked.source import Worked as Source
from tests.helpers.runner import REPO

CONF = REPO / "conf"


def compose(**source: Any) -> Any:
    cfg = OmegaConf.create(
        {"seed": 0, "benchmark": OmegaConf.load(CONF / "benchmark" / "worked.yaml"), "source": source}
    )
    node = OmegaConf.to_container(cfg, resolve=True)
    return instantiate(node["benchmark"]["worked"], _convert_="object")  # type: ignore[call-overload, index]


def test_the_yaml_gives_256_held_out_questions_in_a_stable_order() -> None:
    questions = compose().load()
    assert len({q.document_id for q in questions}) == 256
    assert {q.split for q in questions} == {"test"}
    assert questions == compose().load()


def test_it_takes_the_settings_of_the_source_beside_it() -> None:
    given: dict[str, Any] = {"difficulty": 3, "seed": 5, "chinese_share": 0.2, "templates": ["bonds", "exchange"]}
    assert compose(worked=given).load() == list(Source(0, 256, **given).load())


def test_figures_count_decided_answers_only() -> None:
    english, chinese = next(Source(1, 0, chinese_share=0).load()), next(Source(1, 0, chinese_share=1).load())
    outcomes = [
        Outcome(english, "1", 1.0), Outcome(english, "2", 0.0), Outcome(english, None, None),
        Outcome(chinese, "3", 1.0),
    ]  # fmt: skip
    figures = Worked(Source(0, 1), 1).figures(outcomes)
    assert (figures["accuracy/en"], figures["accuracy/zh"]) == (0.5, 1.0)
    assert Worked(Source(0, 1), 1).figures([Outcome(english, None, None)]) == {}


def test_a_source_that_holds_out_too_few_ends_in_one_line() -> None:
    with pytest.raises(ConfigError, match="holds out only 3 questions"):
        Worked(Source(0, 3), 4).load()
    with pytest.raises(ConfigError, match="limit=0"):
        Worked(Source(0, 3), 0)
