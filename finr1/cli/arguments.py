"""Splits a command line into overrides and Hydra's options; a wrong option is an error of one line."""

from collections.abc import Sequence
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from finr1.core.errors import Finr1Error


def split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides and the options of a command line, in their order; they may be mixed."""
    parser = get_args_parser()
    parser.allow_abbrev = False
    parser.error = _refuse  # type: ignore[method-assign]
    overrides = parser.parse_intermixed_args(arguments).overrides
    return overrides, [argument for argument in arguments if argument not in overrides]


def _refuse(message: str) -> NoReturn:
    raise Finr1Error(f"{message}; see `python -m finr1 --help`")
