"""Tag a source's rows with language, module, domain, kind and wording, by the rules in its yaml."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from finr1.core.errors import ConfigError
from finr1.core.types import Kind, Language, Module

Rule = Mapping[str, Any]
AUTO = "auto"  # the kind of each row is that of its gold
_VALUES: Mapping[str, Sequence[str] | None] = {
    "language": get_args(Language),
    "module": get_args(Module),
    "kind": (*get_args(Kind), AUTO),
    "domain": None,
    "wording": None,
}
_NEEDED = ("language", "module", "domain")


class Tags(NamedTuple):
    """The tags of one row; where `kind` is empty or `auto`, or `wording` is empty, the source decides."""

    language: Language
    module: Module
    domain: str
    kind: Kind | Literal["auto"] | None = None
    wording: str = ""

    def kind_or(self, kind: Kind) -> Kind:
        """The kind that the rules give, else this one."""
        return kind if self.kind is None or self.kind == "auto" else self.kind


class Rules:
    """A list of rules. Each tag of a row comes from the first matching rule that gives it.

    A rule is `{if: {<field>: <regex>, ...}, language: …, module: …, domain: …, kind: …, wording: …}`. It matches if
    every regex is found in its field; without `if` it always matches. The last rule must always match and give
    language, module and domain, so that every row has them.

    Raises:
        ConfigError: names the rule that is invalid.
    """

    def __init__(self, rules: Sequence[Rule], key: str) -> None:
        self._rules: list[tuple[dict[str, re.Pattern[str]], Rule]] = []
        for number, rule in enumerate(rules):
            self._rules.append((_patterns(rule, f"{key}.{number}"), rule))
            for tag, value in rule.items():
                allowed = _VALUES.get(tag, ())
                if tag != "if" and allowed is not None and value not in allowed:
                    why = "no such value" if tag in _VALUES else "no such tag"
                    raise ConfigError(f"{key}.{number}.{tag}", value, why, f"use {', '.join(allowed or _VALUES)}")
        last = rules[-1] if rules else {}
        missing = [tag for tag in _NEEDED if not last.get(tag)]
        if "if" in last or missing:
            why = f"it gives no {missing[0]}" if missing else "it does not match every row"
            raise ConfigError(
                f"{key}.{len(rules) - 1}", dict(last), f"as the last rule {why}", "end with a rule without `if`"
            )

    def tags(self, fields: Mapping[str, object]) -> Tags:
        """The tags of a row with these fields."""
        tags: dict[str, Any] = {}
        for patterns, rule in self._rules:
            if all(pattern.search(str(fields.get(name, ""))) for name, pattern in patterns.items()):
                tags = {**{tag: value for tag, value in rule.items() if tag != "if"}, **tags}
        return Tags(**tags)


def _patterns(rule: Rule, key: str) -> dict[str, re.Pattern[str]]:
    patterns = {}
    for field, pattern in (rule.get("if") or {}).items():
        try:
            patterns[field] = re.compile(str(pattern))
        except re.error as error:
            why = f"not a regular expression ({error})"
            raise ConfigError(f"{key}.if.{field}", pattern, why, "fix it") from error
    return patterns
