"""The lock of a run folder."""

import os
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from finr1.core.errors import BusyError, ConfigError


class RunLock:
    """A kernel lock on the run folder: a second process is refused at once; a killed process releases its lock."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir, self.path = run_dir, run_dir / ".lock"
        self._lock = FileLock(self.path, timeout=0)

    def __enter__(self) -> Self:
        try:
            self.run_dir.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout as error:
            owner = self.path.read_text().strip() or "unknown"
            why = f"name={self.run_dir.name}: another process (pid {owner}) works in {self.run_dir}"
            raise BusyError(f"{why}; wait for it, or give name=<other>") from error
        except PermissionError:
            raise
        except OSError as error:
            why = f"the run folder cannot be created there ({error.strerror})"
            remedy = "give another paths.runs=<folder>, or fix this one"
            raise ConfigError("paths.runs", self.run_dir.parent, why, remedy) from error
        self.path.write_text(str(os.getpid()))
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()
