"""What people see: progress bars (on standard error, only on a terminal, only after two seconds), and values as text."""

import sys
import time
from typing import Any


class Bar:
    """A progress bar over `total` units; `advance_to(done, note)` moves it. Nothing is shown for short work or in a pipe."""

    def __init__(self, label: str, total: int, shown: bool = True):
        self.label, self.total = label, total
        self.shown = shown and sys.stderr.isatty()
        self.started = time.perf_counter()
        self.bar: Any = None
        self.task: Any = None

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.stop()

    def advance_to(self, done: int, note: str = "") -> None:
        if not self.shown:
            return
        if self.bar is None:
            if time.perf_counter() - self.started < 2.0:
                return
            self.bar, self.task = _rich_bar(self.label, self.total)
        self.bar.update(self.task, completed=done, note=note)


def as_text(value: Any, width: int = 100) -> str:
    """What rich would print of a value, as plain text."""
    from io import StringIO

    from rich.console import Console

    page = Console(file=StringIO(), width=width)
    page.print(value)
    return page.file.getvalue().rstrip("\n")  # pyright: ignore[reportAttributeAccessIssue]


def _rich_bar(label: str, total: int) -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    bar = Progress(*columns, console=Console(stderr=True))
    bar.start()
    return bar, bar.add_task(label, total=total, note="")
