"""Splits a command line into overrides and Hydra's options; a wrong option is an error of one line."""

import argparse
from collections.abc import Sequence
from typing import NoReturn

from finr1.core.errors import Finr1Error

_FLAGS = ("--run", "-r"), ("--multirun", "-m"), ("--resolve",), ("--version",), ("--hydra-help",)
_WITH_VALUE = (
    ("--cfg", "-c"),
    ("--package", "-p"),
    ("--info", "-i"),
    ("--config-path", "-cp"),
    ("--config-name", "-cn"),
    ("--config-dir", "-cd"),
    ("--experimental-rerun",),
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Finr1Error(f"{message}; see `python -m finr1 --help`")


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides and the options of a command line, in their order; they may be mixed."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    for names in _FLAGS:
        parser.add_argument(*names, action="store_true")
    for names in _WITH_VALUE:
        parser.add_argument(*names)
    overrides = parser.parse_intermixed_args(arguments).overrides
    return overrides, [argument for argument in arguments if argument not in overrides]
