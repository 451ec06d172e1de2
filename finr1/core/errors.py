"""The errors shown to users, in one line without a traceback: `<key>=<value>: <why>; <what to do>`."""

from collections.abc import Iterator


class Finr1Error(Exception):
    """An error that the user can fix."""


class ConfigError(Finr1Error, ValueError):
    """A setting that cannot work."""

    def __init__(self, key: str, value: object, why: str, remedy: str) -> None:
        super().__init__(f"{key}={value}: {why}; {remedy}")
        self.words = (key, value, why, remedy)


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


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes, from the outermost in."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
