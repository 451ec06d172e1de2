"""The one error users are meant to see: `<key>=<value>: <why>; <what to do>`, one line, no traceback."""

from __future__ import annotations


class Finr1Error(Exception):
    """A mistake the user can mend."""


class ConfigError(Finr1Error, ValueError):
    """A setting that cannot work."""

    def __init__(self, key: str, value: object, why: str, remedy: str) -> None:
        super().__init__(f"{key}={value}: {why}; {remedy}")


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
