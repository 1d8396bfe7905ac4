"""Minari's arrow and parquet storages: for every episode a folder with a table of T + 1 rows (the last is padding but for observations)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from polyact import spaces
from polyact.data.formats.arrow import from_arrow, to_arrow
from polyact.data.formats.columns import escape, is_text, unescape
from polyact.data.formats.common import dump_json, read_json, reading
from polyact.data.formats.minari_episodes import NAMES, Stored, decode_images, is_image
from polyact.errors import DataError
from polyact.spaces import Space


def read_episodes(folder: Path, data_format: str, count: int, given: dict[str, Space | None], jpeg: bool) -> list[Stored]:
    """Episodes 0 .. count - 1. given: spaces of observations and actions, where known. jpeg: whether images may be coded."""
    found = {int(child.name) for child in folder.iterdir() if child.is_dir() and child.name.isdigit()}
    if found != set(range(count)):
        raise DataError(f"{folder}: holds {len(found)} episodes, expected folders 0 to {count - 1} as metadata.json says")
    return [_read_episode(folder / str(number), number, data_format, given, jpeg) for number in range(count)]


def write_episodes(folder: Path, data_format: str, stored: Iterator[Stored]) -> None:
    """Write every episode into a folder of its own."""
    for episode in stored:
        target = folder / str(episode.number)
        target.mkdir()
        rows = episode.steps + 1
        columns = {name: _pad(name, column, rows) for name, column in episode.columns.items()}
        table = pa.table(_nest(columns))
        if data_format == "parquet":
            pq.write_table(table, target / "part-0.parquet")
        else:
            with pa.ipc.new_file(str(target / "part-0.arrow"), table.schema) as writer:
                writer.write_table(table)
        known = {"id": episode.number, "total_steps": episode.steps, "seed": episode.seed, "options": episode.options}
        known = {**episode.further, **{key: value for key, value in known.items() if value is not None}}
        (target / "metadata.json").write_text(dump_json(known), "utf-8")


def _read_episode(folder: Path, number: int, data_format: str, given: dict[str, Space | None], jpeg: bool) -> Stored:
    files = sorted(folder.glob(f"*.{data_format}"))
    if not files:
        raise DataError(f"{folder}: no {data_format} file here")
    tables = []
    for path in files:
        with reading(path):
            tables.append(pq.read_table(path) if data_format == "parquet" else pa.ipc.open_file(str(path)).read_all())
            tables[-1].validate(full=True)  # damaged offsets would be read out of bounds
    with reading(files[0]):
        table = pa.concat_tables(tables)
        columns: dict[str, np.ndarray] = {}
        for name in table.column_names:
            if name in NAMES or name == "infos":
                padded = name not in ("observations", "infos")
                column = table.column(name).slice(0, max(0, len(table) - padded)).combine_chunks()
                columns |= _walk(files[0], name, column, given.get(name), jpeg and name != "infos")
    known = read_json(folder / "metadata.json")
    steps = len(table) - 1
    if known.get("total_steps", steps) != steps:
        raise DataError(f"{files[0]}: has {len(table)} rows, expected {known['total_steps']} + 1 as its metadata.json says")
    further = {name: value for name, value in known.items() if name not in ("id", "total_steps", "seed", "options")}
    return Stored(files[0], number, columns, known.get("seed"), known.get("options"), further)


def _walk(path: Path, name: str, array: Any, space: Space | None, jpeg: bool) -> dict[str, np.ndarray]:
    """The arrays in a column of structs, by path. Where the space is not known, the file's own structure tells."""
    array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    if pa.types.is_struct(array.type):
        match space:
            case spaces.Tuple():
                parts = {str(k): part for k, part in enumerate(space.spaces)}
            case spaces.Dict():
                parts = space.spaces
            case None:
                parts = dict.fromkeys(field.name for field in array.type)
            case _:
                raise DataError(f"{path}: {name} holds structs, but its space is {space}")
        columns: dict[str, np.ndarray] = {}
        for key, part in parts.items():
            if array.type.get_field_index(key) < 0:
                raise DataError(f"{path}: {name} has no '{key}', which its space has")
            field = array.type.field(key)
            below = key if space is None else escape(key)
            found = _walk(path, f"{name}/{below}", array.field(key), part, jpeg)
            shape = (field.metadata or {}).get(b"shape")
            if shape is not None:  # Minari flattens infos and notes their shape
                found = {leaf: column.reshape(len(column), *_ints(shape)) for leaf, column in found.items()}
            columns |= found
        return columns
    if isinstance(space, spaces.Dict | spaces.Tuple):
        raise DataError(f"{path}: {name} is one column, but its space has parts")
    with reading(path, name):
        if pa.types.is_binary(array.type) and jpeg and isinstance(space, spaces.Box) and is_image(space):
            return {name: decode_images(array.to_pylist(), space, path, name)}
        if name.startswith("infos/") and (array.null_count or pa.types.is_null(array.type)):
            return {name: np.zeros(())}  # not recorded at every step: no column
        column = from_arrow(path, name, array)
        fits = isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary)
        return {name: column.reshape(len(column), *space.shape) if fits and column.ndim == 2 else column}


def _pad(name: str, column: np.ndarray, rows: int) -> np.ndarray:
    """Minari's tables have one row per observation: one more at the end, and for infos one before the first step (the reset)."""
    if len(column) == rows:
        return column
    filler = np.array([""], object) if is_text(column) else np.zeros((1, *column.shape[1:]), column.dtype)
    return np.concatenate([filler, column] if name.startswith("infos/") else [column, filler])


def _nest(columns: dict[str, np.ndarray]) -> dict[str, pa.Array]:
    """Columns by path as arrays of structs."""
    tree: dict[str, Any] = {}
    for name, column in columns.items():
        first, *rest = name.split("/")
        place = tree
        for key in (first, *rest)[:-1]:
            place = place.setdefault(key if key == first or first == "infos" else unescape(key), {})
        last = (first, *rest)[-1]
        place[last if first == "infos" else unescape(last)] = column
    return {name: _struct(part)[0] for name, part in tree.items()}


def _struct(part: Any) -> tuple[pa.Array, dict[str, str] | None]:
    """A column and the metadata of its field: vectors and deeper are stored flat, as Minari stores them, with their shape beside."""
    if not isinstance(part, dict):
        if part.ndim > 1 and not is_text(part):
            flat = to_arrow(part.reshape(len(part), int(np.prod(part.shape[1:]))))
            return flat, {"shape": ",".join(str(size) for size in part.shape[1:])}
        return to_arrow(part), None
    arrays, fields = [], []
    for name, below in part.items():
        array, metadata = _struct(below)
        arrays.append(array)
        fields.append(pa.field(name, array.type, metadata=metadata))
    return pa.StructArray.from_arrays(arrays, fields=fields), None


def _ints(shape: bytes) -> list[int]:
    return [int(size) for size in shape.split(b",") if size]
