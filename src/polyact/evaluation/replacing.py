"""Files that appear whole or not at all, also over an older one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polyact.data.formats.common import PARTIAL, PathLike, writing


@contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """A temporary path beside `path`, renamed over it on success: readers see the old file or the new one, never half of one."""
    target = Path(path)
    aside = target.with_name(f".{target.name}.{os.getpid()}{PARTIAL}")
    try:
        with writing(target):
            yield aside
            os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
