"""The lock of a run folder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

from finr1.core.errors import BusyError, ConfigError


class RunLock:
    """A kernel lock on the run folder: a second process gets a clear error; a killed one leaves nothing behind."""

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / ".lock"

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a+")
        except PermissionError:
            raise
        except OSError as error:
            remedy = "give another paths.runs=<folder>, or mend this one"
            why = f"the run's folder cannot be made there ({error.strerror})"
            raise ConfigError("paths.runs", self.path.parent.parent, why, remedy) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.seek(0)
            owner = self._file.read().strip() or "unknown"
            self._file.close()
            run_dir = self.path.parent
            why = f"name={run_dir.name}: another process (pid {owner}) works in {run_dir}"
            raise BusyError(f"{why}; wait for it, or give name=<other>") from error
        self._file.seek(0)
        self._file.truncate()
        self._file.write(str(os.getpid()))
        self._file.flush()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
