"""What every data format needs: writing what appears whole, one-line errors, JSON, headers (columns are in `columns.py`).

A format is a module with `NAME`, `detect(path)`, `read(path) -> list[Source]` and, where it can be written, `write(sources, path)`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from polyact import spaces
from polyact.data.episodes import Episodes
from polyact.data.source import Source
from polyact.errors import DataError, PolyactError, unknown
from polyact.files import whole_file, whole_folder

PathLike = str | os.PathLike[str]

HEADER_VERSION = 1


@contextmanager
def new_file(path: PathLike) -> Iterator[Path]:
    """`whole_file` where nothing is yet. Raises DataError when `path` exists, its folder does not, or it can't be written."""
    target = _absent(path)
    with writing(target), whole_file(target) as aside:
        yield aside
        _absent(path)


@contextmanager
def new_folder(path: PathLike) -> Iterator[Path]:
    """Like `new_file`, for a folder, which is made."""
    target = _absent(path)
    with writing(target), whole_folder(target) as aside:
        yield aside
        _absent(path)


@contextmanager
def replacing(path: PathLike) -> Iterator[Path]:
    """Like `new_file`, also over an older file: readers see the old one or the new one, never half of one."""
    target = Path(path)
    with writing(target), whole_file(target) as aside:
        yield aside


@contextmanager
def reading(path: PathLike, field: str = "") -> Iterator[None]:
    """Turn whatever a library raises on a damaged file into a DataError that names the file (and the field) in one line.

    A DataError passes unchanged. Every other exception is caught, because parsers raise whatever they like on damaged bytes.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        text = reason(error)
        damaged = "" if isinstance(error, OSError | PolyactError | MemoryError) else "damaged or not in this format: "
        raise DataError(f"{path}: {f'{field}: ' if field else ''}{damaged}{text}") from error


@contextmanager
def writing(path: PathLike) -> Iterator[None]:
    """`reading`'s counterpart for a file that can't be written."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"can't write {path}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """An exception as one short line."""
    text = " ".join(str(error).split())[:200]
    match error:
        case FileNotFoundError():
            return "no such file or folder"
        case KeyError():
            return f"no field {text}"
        case MemoryError():
            return "more data than fits in memory"
        case OSError() if error.strerror:
            return error.strerror
        case PolyactError():
            return text
    return text or type(error).__name__


def write_each(sources: Sequence[Source], path: PathLike, write_one: Callable[[Source, Path], None], suffix: str = "") -> None:
    """One source: write it at `path`. Several: a new folder `path` that holds each as `<name><suffix>`.

    write_one(source, path) writes one source at a path where nothing is (inside a folder that is itself written aside).
    """
    if len(sources) == 1:
        return write_one(sources[0], Path(path))
    if not sources:
        raise DataError(f"{path}: nothing to write")
    with new_folder(path) as folder:
        for number, source in enumerate(sources):
            name = file_name(source.name)
            taken = not name or (folder / f"{name}{suffix}").exists()
            write_one(source, folder / f"{name}{f'-{number}' if taken else ''}{suffix}")


def file_name(name: str) -> str:
    """A name made safe as a file name on every system."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip(".-")[:100]


def read_json(path: PathLike) -> dict[str, Any]:
    """The JSON object in a file."""
    with reading(path):
        return parse_json(Path(path).read_text("utf-8"), path)


def parse_json(text: str | bytes, path: PathLike, field: str = "") -> dict[str, Any]:
    """The JSON object in a string that came from `field` of the file `path`."""
    with reading(path, field):
        value = json.loads(text)
    if not isinstance(value, dict):
        raise DataError(f"{path}: {f'{field}: ' if field else ''}expected a JSON object, got {type(value).__name__}")
    return value


def dump_json(value: Any) -> str:
    """JSON text; NumPy scalars and arrays become numbers and lists. Raises DataError for what JSON can't hold."""
    try:
        return json.dumps(value, indent=1, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"metadata can't be written as JSON: {reason(error)}") from error


def header(source: Source) -> dict[str, Any]:
    """All of a source but its columns, as JSON values."""
    both = (source.observation_space, source.action_space)
    observation_space, action_space = (None if space is None else spaces.to_json(space) for space in both)
    return {
        "polyact": HEADER_VERSION,
        "name": source.name,
        "observation_space": observation_space,
        "action_space": action_space,
        "behaviour": source.behaviour,
        "embodiment": source.embodiment,
        "control_mode": source.control_mode,
        "control_hz": source.control_hz,
        "metadata": source.metadata,
    }


def from_header(value: dict[str, Any], episodes: Episodes, path: PathLike) -> Source:
    """Inverse of `header`. Raises DataError that names the file and the field."""
    if value.get("polyact") != HEADER_VERSION:
        raise DataError(f"{path}: header version {value.get('polyact')!r}, this polyact reads {HEADER_VERSION}")
    for key, kind in {"name": str, "behaviour": str, "embodiment": str, "control_mode": str, "metadata": dict}.items():
        if not isinstance(value.get(key), kind):
            raise DataError(f"{path}: header field '{key}' is {value.get(key)!r}, expected {kind.__name__}")
    hz = value.get("control_hz")
    if not (hz is None or (isinstance(hz, int | float) and 0 < hz < float("inf"))):
        raise DataError(f"{path}: header field 'control_hz' is {hz!r}, expected a positive number or null")
    with reading(path, "header"):
        both = (value["observation_space"], value["action_space"])
        observation_space, action_space = (None if space is None else spaces.from_json(space) for space in both)
        return Source(
            episodes,
            value["name"],
            observation_space,
            action_space,
            value["behaviour"],
            value["embodiment"],
            value["control_mode"],
            None if hz is None else float(hz),
            value["metadata"],
        )


def split_source(source: Source, split: str) -> Source:
    """The episodes that `metadata["splits"]` (episode numbers by name) lists under a name, as a source of their own."""
    splits = source.metadata.get("splits", {})
    if split not in splits:
        raise unknown(f"split of source '{source.name}'", split, splits)
    metadata = {key: value for key, value in source.metadata.items() if key != "splits"} | {"split": split}
    part = source.with_episodes(source.episodes.select(splits[split]), f"{source.name}-{split}")
    return replace(part, metadata=metadata)


@contextmanager
def naming(path: PathLike) -> Iterator[None]:
    """Put the file's name before a DataError that does not know it (as those of Episodes and Source)."""
    try:
        yield
    except PolyactError as error:
        raise error if str(error).startswith(str(path)) else DataError(f"{path}: {error}") from error


def _absent(path: PathLike) -> Path:
    target = Path(path)
    if target.exists() or target.is_symlink():
        raise DataError(f"{target} exists already; delete it or write somewhere else")
    if not target.absolute().parent.is_dir():
        raise DataError(f"can't write {target}: the folder {target.absolute().parent} does not exist")
    return target


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not a JSON value")
