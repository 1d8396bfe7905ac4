"""Output folders that appear whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polyact.errors import PolyactError
from polyact.files import whole_folder

MARKER = ".polyact"


@contextmanager
def fresh_folder(target: Path, overwrite: bool) -> Iterator[Path]:
    """A folder beside `target` that takes its place when the block ends well, and is removed when it does not.

    It holds a small file that says polyact wrote it. Raises PolyactError when `target` exists and is not to be overwritten, or lacks
    that file and so may be something else.
    """
    if target.exists() and not overwrite:
        raise PolyactError(f"{target} exists; use --overwrite to replace it, or another --out")
    if target.exists() and any(target.iterdir()) and not (target / MARKER).exists():
        raise PolyactError(f"{target} holds something that polyact did not write; it is not overwritten")
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_folder(target) as aside:
        (aside / MARKER).write_text("written by polyact; --overwrite may replace this folder\n")
        yield aside
