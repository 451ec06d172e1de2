"""The console and the progress bar of a stage."""

import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True, highlight=False)
LINE_EVERY_S = 30  # where there is no terminal


class Bar:
    """A progress bar on a terminal; a plain line every `LINE_EVERY_S` seconds elsewhere."""

    def __init__(self, title: str, total: int, done: int) -> None:
        self.title, self.total, self.done, self.text = title, total, done, ""
        self._done_before, self._began = done, time.monotonic()
        self._last_line = self._began
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
        )
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task(title, total=total, completed=done, text="")

    def advance(self, n: int = 1, text: str | None = None) -> None:
        """Count `n` more as done; `text` is shown at the end of the line."""
        self.done += n
        self.text = self.text if text is None else text
        self._progress.update(self._task, advance=n, text=self.text)
        now = time.monotonic()
        if not console.is_terminal and now - self._last_line > LINE_EVERY_S:
            self._last_line = now
            left_s = (self.total - self.done) * (now - self._began) / max(1, self.done - self._done_before)
            suffix = ", ".join(filter(None, (self.text, f"{left_s / 60:.1f} min left")))
            console.print(f"  {self.title} {self.done}/{self.total} {suffix}")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
