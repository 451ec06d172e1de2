"""The one error users are meant to see: `<key>=<value>: <why>; <what to do>`, one line, no traceback."""

from __future__ import annotations

import math


class Finr1Error(Exception):
    """A mistake the user can mend."""


class ConfigError(Finr1Error, ValueError):
    """A setting that cannot work."""

    def __init__(self, key: str, value: object, why: str, remedy: str) -> None:
        super().__init__(f"{key}={value}: {why}; {remedy}")
        self.words = (key, value, why, remedy)


def check_least(prefix: str, settings: object, least: float, *names: str, above: bool = False) -> None:
    """ConfigError for the first of these fields of a settings object that is below `least` (or at it, with `above`).

    A value that is no finite number is refused too; None is left alone.
    """
    for name in names:
        value = getattr(settings, name)
        if value is None:
            continue
        if not math.isfinite(value):
            raise ConfigError(f"{prefix}.{name}", value, "not a finite number", "give a number")
        if value < least or (above and value == least):
            words = f"must be {'above' if above else 'at least'} {least:g}"
            raise ConfigError(f"{prefix}.{name}", value, words, "give such a value")


class DataError(Finr1Error, ValueError):
    """An input file that is missing, broken, or not in the layout it should have."""

    def __init__(self, path: object, why: str, remedy: str) -> None:
        super().__init__(f"{path}: {why}; {remedy}")


class RowError(DataError):
    """One row of a source that is set aside: `reason` is a word to count by, `why` says it of this row."""

    def __init__(
        self, place: str, why: str, remedy: str = "mend or delete that row", reason: str = "unreadable"
    ) -> None:
        super().__init__(place, why, remedy)
        self.place, self.why, self.reason = place, why, reason


class BusyError(Finr1Error, RuntimeError):
    """Another process works on the same run folder."""
