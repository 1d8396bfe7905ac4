"""Files and folders that appear whole or not at all: written beside their place, flushed to the disk, then renamed.

After an error or an interruption nothing half-written is left and what was there before is still there. Only a process that is killed
leaves something: hidden names that end in `.partial` (half-written) or `.replaced` (what was there before).
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL, REPLACED = ".partial", ".replaced"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write a file at, which takes the place of `path`, and of an older file there, when the block ends without an error."""
    aside = _beside(path, PARTIAL)
    try:
        yield aside
        _flush(aside)
        os.replace(aside, path)
    finally:
        _remove(aside)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Like `whole_file`, for a folder, which is made; an older folder is replaced as a whole."""
    aside = _beside(path, PARTIAL)
    try:
        aside.mkdir()
        yield aside
        for file in aside.rglob("*"):
            if file.is_file():
                _flush(file)
        with set_aside(path):
            os.rename(aside, path)
    finally:
        _remove(aside)


@contextmanager
def set_aside(path: Path) -> Iterator[None]:
    """What is at `path` waits aside during the block: it is dropped when something else is there at the end, and else comes back."""
    old = _beside(path, REPLACED)
    try:
        if os.path.lexists(path):
            os.rename(path, old)
        yield
    finally:
        if os.path.lexists(old) and not os.path.lexists(path):
            os.rename(old, path)
        _remove(old)


def is_partial(path: Path) -> bool:
    """Whether this is what a write that was killed left half-written."""
    return path.name.endswith(PARTIAL)


def _beside(path: Path, suffix: str) -> Path:
    path = path.absolute()
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{suffix}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    with open(path, "r+b") as file:
        os.fsync(file.fileno())
