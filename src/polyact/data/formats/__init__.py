"""Reading and writing data sets in the formats of the ecosystem: `read(path)` finds out which it is, `write(data, path, format)`.

A format is a module of this package with `NAME`, `detect(path)`, `read(path)` and, where it can be written, `write(sources, path)`.
It is imported when a path might be its own, so importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from polyact.data.episodes import Episodes
from polyact.data.formats.columns import check_finite
from polyact.data.formats.common import PathLike, reading
from polyact.data.source import Data, Source, as_mixture
from polyact.errors import DataError, unknown
from polyact.files import is_partial

_DEPTH = 4  # folders below the one given in which data sets are looked for
_HDF5 = (".hdf5", ".h5")
_ARROW = (".parquet", ".pq", ".arrow", ".feather", ".ipc")


@dataclass(frozen=True)
class Format:
    """What is known of a format without importing it: its files' suffixes ('' stands for folders), and whether it can be written."""

    name: str
    summary: str
    suffixes: tuple[str, ...]
    writable: bool = False

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(f"{__name__}.{self.name}")


FORMATS = {
    format.name: format
    for format in (  # in the order of detection: narrow ones first
        Format("folder", "polyact's folder of memory-mapped columns", ("",), writable=True),
        Format("minari", "Minari data set", ("",), writable=True),
        Format("lerobot", "LeRobotDataset v3.0 and v2.1", ("",), writable=True),
        Format("robomimic", "robomimic HDF5", _HDF5),
        Format("d3rlpy", "d3rlpy HDF5, version 2.1 and version 1", _HDF5),
        Format("d4rl", "D4RL HDF5", _HDF5),
        Format("ogbench", "OGBench NPZ with its -val twin", (".npz",)),
        Format("ope", "NPZ of an Open Bandit or SCOPE-RL dictionary", (".npz",)),
        Format("npz", "NPZ without pickles, ours and others'", (".npz",), writable=True),
        Format("parquet", "Parquet or Arrow table, ours and others'", _ARROW, writable=True),
    )
}


def read(path: PathLike, format: str | None = None) -> list[Source]:
    """Every source at a path: a data set, or a folder of data sets (searched a few levels deep).

    format: a name in FORMATS; found out when not given. The sources have different names, and `metadata["origin"]` says which
    format and path each came from. Raises DataError in one line for what is missing, damaged, half-written or unknown.
    """
    path = Path(path)
    if format is not None and format not in FORMATS:
        raise unknown("data format", format, FORMATS)
    if is_partial(path):
        raise _half_written(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    formats = [FORMATS[format]] if format else [*FORMATS.values()]
    sources: list[Source] = []
    for place, found in _find(path, formats, _DEPTH):
        known = {source.metadata["origin"]["path"] for source in sources}
        with reading(place):
            batch = found.module.read(place)
        for source in batch:
            origin = {"format": found.name, "path": str(place), **source.metadata.get("origin", {})}
            if origin["path"] not in known:  # a file may be read as another's twin before its own turn comes
                sources.append(replace(source, metadata={**source.metadata, "origin": origin}))
    if not sources:
        raise _unknown_format(path, formats)
    return _named_apart(sources)


def write(data: Data, path: PathLike, format: str | None = None) -> None:
    """Write episodes, a source, or several (a mixture's weights are not data and are not kept) at a path where nothing is.

    format: a writable one of FORMATS; by default what the path's suffix says, else the native folder. Raises DataError for numbers
    that are not finite (but in info columns) and for whatever the format can't hold; nothing is left behind then.
    """
    suffix = Path(path).suffix
    writable = {entry.name: entry for entry in FORMATS.values() if entry.writable}
    if format is None:
        format = next((name for name, entry in writable.items() if suffix and suffix in entry.suffixes), "folder")
    if format in FORMATS and format not in writable:
        raise DataError(f"format '{format}' can be read but not written; writable: {', '.join(writable)}")
    if format not in writable:
        raise unknown("data format", format, writable)
    sources = [replace(source, metadata=_without_origin(source)) for source in _sources(data)]
    for source in sources:
        for name, column, _ in source.episodes.columns():
            if not name.startswith("info/"):
                check_finite(path, name, column)
    writable[format].module.write(sources, path)


def _sources(data: Data) -> tuple[Source, ...]:
    match data:
        case Source():
            return (data,)
        case Episodes():
            return (Source(data),)
    return as_mixture(data).sources


def _find(path: Path, formats: list[Format], depth: int) -> Iterator[tuple[Path, Format]]:
    """Data sets at or below a path, in the order of their names."""
    kind = "" if path.is_dir() else path.suffix
    for format in formats:
        with reading(path):
            mine = kind in format.suffixes and format.module.detect(path)
        if mine:
            yield path, format
            return
    if path.is_dir() and depth:
        for child in sorted(path.iterdir()):
            if is_partial(child):
                raise _half_written(child)
            if not child.name.startswith("."):
                yield from _find(child, formats, depth - 1)


def _named_apart(sources: list[Source]) -> list[Source]:
    taken: set[str] = set()
    out = []
    for source in sources:
        name, number = source.name, 2
        while name in taken:
            name, number = f"{source.name}-{number}", number + 1
        taken.add(name)
        out.append(source if name == source.name else replace(source, name=name))
    return out


def _half_written(path: Path) -> DataError:
    return DataError(f"{path}: half-written, left behind by a write that was interrupted; delete it and write again")


def _unknown_format(path: Path, formats: list[Format]) -> DataError:
    known = "; ".join(f"{format.name} ({format.summary})" for format in formats)
    inside = ""
    if path.suffix in _HDF5 and path.is_file():
        inside = f" (it holds {', '.join(sorted(importlib.import_module(f'{__name__}.hdf5').keys(path))) or 'nothing'})"
    return DataError(f"{path}: no data set found here in any known format{inside}: {known}")


def _without_origin(source: Source) -> dict:
    return {key: value for key, value in source.metadata.items() if key != "origin"}
