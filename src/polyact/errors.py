"""Errors that people read: one line that names the file, field, shape or value and says what was expected."""

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType
from typing import Any

LISTED = 24


class PolyactError(ValueError):
    """Bad input, said in one line. The command line prints it without a traceback."""


class DataError(PolyactError):
    """A data file or data set that is not what its format promises."""


class SavedError(PolyactError):
    """A saved policy, run or checkpoint that is damaged, unknown or does not match."""


class TrainingError(PolyactError):
    """Training that can't go on: the step, the metric and what was kept are in the message; `progress` holds what was kept."""

    progress: Any = None


def unknown(kind: str, name: str, known: Iterable[str]) -> PolyactError:
    """The error for a name that does not exist, with the nearest match and the list of what does."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    shown = ", ".join(known[:LISTED]) + (f" and {len(known) - LISTED} more" if len(known) > LISTED else "")
    return PolyactError(f"unknown {kind} '{name}'{hint} (known: {shown or 'none'})")


def one_line(error: BaseException) -> str:
    """What an error says, in one line of bounded length; its class when it says nothing."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def need(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency, or say in one line which extra brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = module.split(".")[0]
        raise PolyactError(
            f"{purpose} needs the package '{missing}', which is not installed: pip install 'polyact[{extra}]'"
        ) from error
