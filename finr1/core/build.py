"""Build the objects that `_target_` nodes of the configuration describe."""

import re
from collections.abc import Mapping
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from finr1.core.errors import ConfigError, causes

_INNER_SOURCE = re.compile(r"(?<![\w.])source\.\w+\.")
_LEAVE_OUT = re.compile(r"~source\.\w+")


def build(node: Mapping[str, Any], **more: Any) -> Any:
    """Instantiate a `_target_` node; dataclass settings inside it arrive as dataclass instances."""
    return instantiate(dict(node), **more, _convert_="object")


def build_all(nodes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Instantiate every node of a group of named parts.

    An error of a source inside a benchmark names the key `benchmark.<name>.source.…`, where the user has set it.
    """
    parts: dict[str, Any] = {}
    for name, node in nodes.items():
        try:
            parts[name] = build(node)
        except InstantiationException as error:
            cause = next((cause for cause in causes(error) if isinstance(cause, ConfigError)), None)
            if cause is None or "source" not in node:
                raise
            words = (_LEAVE_OUT.sub(f"~benchmark.{name}", str(word)) for word in cause.words)
            raise ConfigError(*(_INNER_SOURCE.sub(f"benchmark.{name}.source.", word) for word in words)) from error
    return parts
