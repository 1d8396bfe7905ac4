"""The ledger of calls to language models: what was asked, what came back, what it cost; and the budget that they share."""

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyact.errors import DataError, PolyactError
from polyact.files import whole_file


@dataclass(frozen=True)
class Budget:
    """The most calls and tokens (read and written); None: no bound."""

    calls: int | None = None
    tokens: int | None = None


class CallLog:
    """Counts calls, tokens and seconds, and refuses calls when the budget is spent; several threads may share it.

    path: a file of JSON lines, one per call, which is whole at any time; what it holds already counts as spent. Without a path
    the entries are kept in memory alone.
    """

    def __init__(self, path: Path | str | None = None, budget: Budget | None = None):
        self.path, self.budget = None if path is None else Path(path), budget or Budget()
        self.entries = read_calls(self.path) if self.path is not None and self.path.exists() else []
        self._lines = [_line(entry) for entry in self.entries]
        self._begun, self._lock = len(self.entries), threading.Lock()

    @property
    def spent(self) -> int:
        """Calls, those that failed included."""
        return len(self.entries)

    @property
    def tokens(self) -> int:
        return sum(entry["tokens"] for entry in self.entries)

    @property
    def seconds(self) -> float:
        return sum(entry["seconds"] for entry in self.entries)

    @property
    def tokens_left(self) -> int | None:
        """None: no bound."""
        return None if self.budget.tokens is None else max(0, self.budget.tokens - self.tokens)

    def admit(self) -> None:
        """Begin a call. Raises PolyactError when the budget is spent."""
        with self._lock:
            if self.budget.calls is not None and self._begun >= self.budget.calls:
                raise PolyactError(f"the budget of {self.budget.calls} calls to the language model is spent")
            if self.tokens_left == 0:
                raise PolyactError(f"the budget of {self.budget.tokens} tokens is spent: {self.tokens} in {self.spent} calls")
            self._begun += 1

    def record(self, entry: dict[str, Any]) -> None:
        """Write down a call that ended. An entry has `tokens` and `seconds`."""
        with self._lock:
            self.entries.append(entry)
            self._lines.append(_line(entry))
            if self.path is not None:
                with whole_file(self.path) as aside:
                    aside.write_text("".join(self._lines), "utf-8")


def read_calls(path: Path) -> list[dict[str, Any]]:
    """The entries of a ledger. Raises DataError with the number of a line that is none."""
    entries = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            if not isinstance(entry["request"], dict) or entry["tokens"] < 0 or entry["seconds"] < 0:
                raise ValueError
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}, line {number}: expected a call as a JSON object with request, tokens and seconds") from error
        entries.append(entry)
    return entries


def _line(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False) + "\n"
