"""How commands speak: one JSON value, or tables and plain lines on standard output."""

import json
import math
import os
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def console() -> Console:
    """Standard output for people; wide enough for tables when it is no terminal and $COLUMNS does not say how wide it is."""
    screen = Console()
    return screen if screen.is_terminal or "COLUMNS" in os.environ else Console(width=140)


def print_json(value: Any) -> None:
    """One strict JSON value (NaN and infinity become null)."""
    print(json.dumps(_finite(value), indent=2, ensure_ascii=False))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table; numbers are right-aligned. Text is shown as it is, without markup."""
    table = Table(title=Text(title), title_justify="left", header_style="bold")
    for number, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[number], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(f"{cell:g}" if isinstance(cell, float) else str(cell)) for cell in row))
    console().print(table)


def say(text: str) -> None:
    """A line for people, without markup."""
    console().print(text, markup=False, highlight=False, soft_wrap=True)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(name): _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return value
