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


class BusyError(Finr1Error, RuntimeError):
    """Another process works on the same run folder."""
