"""Minari data sets (farama.org/minari), read and written as its own library lays them out, without needing it or an environment.

`path` is a data set's folder, the one that holds `data/`. Episodes are stored as hdf5, arrow or parquet; the three hold the same.

What has no place of its own there: step columns such as `cost` or `text` go into `infos` under their name, a column that was never
recorded is filled (NaN, or false) and listed as missing, and what else a `Source` knows stands in `metadata.json` under `polyact`,
which Minari ignores. Tuples become dictionaries with the keys "0", "1", ... and are written back as tuples. Seeds, options and
further metadata of the episodes are lists in the source's metadata. Minari's first row of `infos` belongs to the reset; where it is
small it is kept in `metadata["reset_info"]`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from polyact.data.formats import minari_arrow, minari_hdf5
from polyact.data.formats.common import (
    PathLike,
    dump_json,
    from_header,
    header,
    naming,
    new_folder,
    parse_json,
    read_json,
    write_each,
)
from polyact.data.formats.minari_episodes import from_source, is_image, to_episodes
from polyact.data.formats.minari_spaces import of_columns, parts, read_space, stated_space
from polyact.data.source import Source
from polyact.errors import DataError, unknown

NAME = "minari"
DATA_FORMATS = ("hdf5", "arrow", "parquet")

_SPACES = {"observation_space": "observations", "action_space": "actions"}
_OURS = ("minari", "seeds", "options", "episode_metadata", "reset_info", "skipped_infos")  # metadata with a place of its own
_COMPUTED = ("total_episodes", "total_steps", "dataset_size", "data_format", "jpeg_encoding", "polyact")
_OLD, _RAW_IMAGES = "0.5.0", "0.5.4"  # oldest Minari that reads what we write: without and with images that are not JPEG


def root() -> Path:
    """Where Minari keeps its data sets on this machine."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def detect(path: PathLike) -> bool:
    """Whether `path` is a Minari data set (or the `data` folder of one)."""
    return _data_folder(path) is not None


def read(path: PathLike) -> list[Source]:
    """The Minari data set at `path`, as a source named by its id.

    Raises DataError that names file, field and row for anything damaged, mis-shaped or not finite.
    """
    folder = _data_folder(path)
    if folder is None:
        raise DataError(f"{path}: no Minari data set here (expected data/metadata.json)")
    return [_read_one(folder)]


def write(sources: Sequence[Source], path: PathLike, data_format: str = "hdf5", dataset_id: str | None = None) -> None:
    """Write one source as the data set at `path`, or several as data sets below `path`.

    data_format: hdf5, arrow or parquet. dataset_id: default is the path below Minari's root, or the folder's name; "-v0" is added
    where the version is missing. Minari opens what lies at `<root>/<id>`. Images are stored as they are, not as JPEG.
    Raises DataError when `path` exists or when the format can't hold a column.
    """
    if data_format not in DATA_FORMATS:
        raise unknown("Minari data format", data_format, DATA_FORMATS)
    if dataset_id is not None and len(sources) != 1:
        raise DataError(f"dataset_id '{dataset_id}' names one data set, but {len(sources)} sources are to be written")
    todo, whole = iter(sources), Path(path)

    def write_one(named: Source, target: Path) -> None:
        final = whole if len(sources) == 1 else whole / target.name
        with new_folder(target) as folder, naming(final):
            _write_one(next(todo), folder / "data", data_format, _dataset_id(final, dataset_id))

    write_each([replace(source, name=_versioned(source.name)) for source in sources], path, write_one)


def _data_folder(path: PathLike) -> Path | None:
    for folder in (Path(path), Path(path) / "data"):
        metadata = (folder / "metadata.json").is_file()
        if (folder / minari_hdf5.FILE).is_file() or (metadata and (folder.name == "data" or (folder / "0").is_dir())):
            return folder
    return None


def _read_one(folder: Path) -> Source:
    path = folder / "metadata.json"
    metadata = read_json(path)
    data_format, count = metadata.get("data_format", "hdf5"), metadata.get("total_episodes")
    if data_format not in DATA_FORMATS:
        raise DataError(f"{path}: data_format is {data_format!r}, expected one of {', '.join(DATA_FORMATS)}")
    if type(count) is not int or count < 1:
        raise DataError(f"{path}: total_episodes is {count!r}, expected a positive whole number")
    given = {theirs: read_space(metadata, ours, path) for ours, theirs in _SPACES.items()}
    jpeg = bool(metadata.get("jpeg_encoding", True))
    if data_format == "hdf5":
        stored = minari_hdf5.read_episodes(folder, count, given, jpeg)
    else:
        stored = minari_arrow.read_episodes(folder, data_format, count, given, jpeg)
    ours = metadata.get("polyact")
    ours = ours if isinstance(ours, dict) else {}
    episodes, further = to_episodes(stored, folder, ours)
    if metadata.get("total_steps", episodes.steps) != episodes.steps:
        raise DataError(f"{path}: total_steps is {metadata['total_steps']!r}, but the episodes hold {episodes.steps} steps")
    if ours:
        source = from_header({**ours, "metadata": {}}, episodes, path)
    else:
        with naming(folder):
            source = Source(
                episodes,
                str(metadata.get("dataset_id") or folder.absolute().parent.name),
                *(None if space is None else of_columns(space) for space in given.values()),
                behaviour=str(metadata.get("algorithm_name") or ""),
                embodiment=_environment(metadata, path),
            )
    generated = {*_COMPUTED, *(("dataset_id", "minari_version", "algorithm_name") if ours else ())}
    kept = {key: value for key, value in metadata.items() if key not in generated}
    for name in _SPACES:
        if kept.get(name) == stated_space(source, name, None):
            del kept[name]
    further |= {"minari": kept} if kept else {}
    return replace(source, metadata={**ours.get("metadata", {}), **further})


def _write_one(source: Source, data: Path, data_format: str, dataset_id: str) -> None:
    kept = source.metadata.get("minari")
    kept = {key: value for key, value in kept.items() if key not in _COMPUTED} if isinstance(kept, dict) else {}
    if not source.episodes.count:
        raise DataError(f"source '{source.name}' has no episodes; Minari has no empty data sets")
    stated = {name: stated_space(source, name, kept.get(name)) for name in _SPACES}
    stored, notes = from_source(source, data)
    data.mkdir()
    if data_format == "hdf5":
        given = {theirs: space for ours, theirs in _SPACES.items() if (space := read_space(stated, ours, data)) is not None}
        minari_hdf5.write_episodes(data, stored, given)
    else:
        minari_arrow.write_episodes(data, data_format, stored)
    ours = {**header(source), "metadata": {key: value for key, value in source.metadata.items() if key not in _OURS}, **notes}
    images = any(is_image(part) for space in (source.observation_space, source.action_space) for part in parts(space))
    metadata = {
        **kept,
        **({"algorithm_name": source.behaviour} if source.behaviour else {}),
        **stated,
        "total_episodes": source.episodes.count,
        "total_steps": source.episodes.steps,
        "data_format": data_format,
        "jpeg_encoding": False,
        "dataset_id": dataset_id,
        "dataset_size": round(sum(file.stat().st_size for file in data.rglob("*")) / 1e6, 1),
        "minari_version": _RAW_IMAGES if images else _OLD,
        "polyact": ours,
    }
    (data / "metadata.json").write_text(dump_json(metadata), "utf-8")


def _environment(metadata: dict[str, Any], path: Path) -> str:
    text = metadata.get("env_spec")
    name = parse_json(text, path, "env_spec").get("id") if isinstance(text, str) else None
    return str(name or "default")


def _versioned(name: str) -> str:
    return name if re.search(r"-v\d+$", name) else f"{name}-v0"


def _dataset_id(path: Path, given: str | None) -> str:
    if given is not None:
        if not re.fullmatch(r"([-\w]+/)*[-\w]+-v\d+", given):
            raise DataError(f"dataset_id is '{given}', expected (namespace/)name-v<number>")
        return given
    path, top = path.absolute(), root().absolute()
    parts = path.relative_to(top).parts if path.is_relative_to(top) else (path.name,)
    return _versioned("/".join(re.sub(r"[^-\w]+", "-", part) for part in parts))
