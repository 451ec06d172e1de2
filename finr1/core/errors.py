"""The errors shown to users, in one line without a traceback: `<key>=<value>: <why>; <what to do>`."""

from __future__ import annotations

import math


class Finr1Error(Exception):
    """An error that the user can fix."""


class ConfigError(Finr1Error, ValueError):
    """A setting that cannot work."""

    def __init__(self, key: str, value: object, why: str, remedy: str) -> None:
        super().__init__(f"{key}={value}: {why}; {remedy}")
        self.words = (key, value, why, remedy)


def check_least(prefix: str, settings: object, least: float, *names: str, above: bool = False) -> None:
    """Raise ConfigError for the first of these fields that is below `least` (with `above`: not above it) or not finite.

    None is accepted.
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
    """An input file that is missing, corrupt, or not in the expected layout."""

    def __init__(self, path: object, why: str, remedy: str) -> None:
        super().__init__(f"{path}: {why}; {remedy}")


class RowError(DataError):
    """One unreadable row of a source, which is set aside: counted under `reason`, explained by `why`."""

    def __init__(
        self, place: str, why: str, remedy: str = "fix or delete that row", reason: str = "unreadable"
    ) -> None:
        super().__init__(place, why, remedy)
        self.place, self.why, self.reason = place, why, reason


class BusyError(Finr1Error, RuntimeError):
    """Another process holds the lock of the run folder."""
