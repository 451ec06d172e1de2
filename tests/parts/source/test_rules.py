"""Rules: the first match that gives a tag wins; invalid rules are refused at once."""

from __future__ import annotations

from typing import Any

import pytest

from finr1.core.errors import ConfigError
from finr1.parts.source.rules import Rules, Tags

ALL = {"language": "zh", "module": "professional knowledge", "domain": "rest"}


def test_each_tag_is_that_of_the_first_rule_that_fits_and_gives_it() -> None:
    rules = Rules(
        [
            {"if": {"task": "^a"}, "domain": "first"},
            {"if": {"task": "b$", "text": "x"}, "domain": "second", "kind": "number", "wording": "finqa.v1"},
            ALL,
        ],
        "source.s.rules",
    )
    assert rules.tags({"task": "c"}) == Tags("zh", "professional knowledge", "rest")
    assert rules.tags({"task": "ab"}).domain == "first" and rules.tags({"task": "ab"}).kind is None
    both = Tags("zh", "professional knowledge", "first", "number", "finqa.v1")
    assert rules.tags({"task": "a b", "text": "x"}) == both
    assert rules.tags({"text": "x"}).kind is None  # a field that is not there is empty


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([], r"rules\.-1=\{\}: as the last rule it gives no language"),
        ([{"language": "zh"}], r"rules\.0=.*it gives no module"),
        ([{**ALL, "if": {"task": "a"}}], r"rules\.0=.*it does not match every row"),
        ([{"domian": "x"}, ALL], r"rules\.0\.domian=x: no such tag; use language, module"),
        ([{"module": "code"}, ALL], r"rules\.0\.module=code: no such value; use financial code"),
        ([{"kind": "float"}, ALL], r"rules\.0\.kind=float: no such value; use number"),
        ([{"if": {"task": "("}}, ALL], r"rules\.0\.if\.task=\(: not a regular expression"),
    ],
)
def test_rules_that_cannot_work(rules: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"source\.s\.{message}") as error:
        Rules(rules, "source.s.rules")
    assert "\n" not in str(error.value)
