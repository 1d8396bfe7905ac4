"""A Parquet or Arrow table with one row per step.

Columns: `episode_index`, `step_index`, and those of the episodes by path (`observation`, `observation/camera`, `action`, `reward`,
..., `info/speed`); vectors are fixed-size lists. `final_observation` is null but in the last row of an episode, where it is the
observation the episode ended in: whoever does not know it can ignore it. The source's header is in the schema's metadata.
Tables of others are read by the usual names of their columns (see `convention`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet

from polyact.data.episodes import Column, Episodes
from polyact.data.formats.arrow import from_arrow, to_arrow
from polyact.data.formats.columns import check_finite, flatten, is_text, unflatten, with_final
from polyact.data.formats.common import PathLike, dump_json, from_header, header, new_file, parse_json, reading, write_each
from polyact.data.formats.convention import source_from_columns
from polyact.data.source import Source
from polyact.errors import DataError

NAME = "parquet"
ARROW = (".arrow", ".feather", ".ipc")
_KEY = b"polyact"
_FINAL = "final_"
_BLOCK = 1 << 16  # steps per row group


def detect(path: PathLike) -> bool:
    """By the file's suffix: .parquet or .pq, and .arrow, .feather or .ipc for Arrow's own file format."""
    return Path(path).suffix in (".parquet", ".pq", *ARROW)


def read(path: PathLike) -> list[Source]:
    """The source in the table. Raises DataError that names file, column and row."""
    with reading(path):
        table = _load(Path(path))
    metadata = table.schema.metadata or {}
    if len(set(table.column_names)) < table.num_columns:
        raise DataError(f"{path}: two columns have the same name (columns: {', '.join(table.column_names)})")
    if _KEY not in metadata:
        return [source_from_columns(path, {name: _column(path, name, table[name]) for name in table.column_names})]
    head = parse_json(metadata[_KEY], path, "schema metadata")
    with reading(path, "schema metadata"):
        expected = {name: (np.dtype(entry["dtype"]), tuple(entry["shape"])) for name, entry in head["columns"].items()}
        order = [*expected]
    for name in ("episode_index", "step_index", *order):
        if name not in table.column_names:
            raise DataError(f"{path}: column '{name}' is missing; found: {', '.join(table.column_names)}")
    lengths = _lengths(path, from_arrow(path, "episode_index", table["episode_index"]))
    arrays = {}
    for name, (dtype, shape) in expected.items():
        array = _typed(path, name, table[name], dtype, shape)
        if name.split("/")[0] == "observation":
            check_finite(path, name, array)
            array = with_final(array, lengths, _final(path, name, table, dtype, shape, lengths))
        arrays[name] = array
    return [from_header(head, unflatten(arrays, lengths, path), path)]


def write(sources: list[Source], path: PathLike) -> None:
    """Write one source as a file (the suffix says which kind), several as a folder of Parquet files."""
    write_each(sources, path, _write_one, ".parquet")


def _load(path: Path) -> pa.Table:
    if path.suffix not in ARROW:
        return pyarrow.parquet.ParquetFile(path).read()
    with path.open("rb") as file:
        streamed = file.read(4) == b"\xff\xff\xff\xff"
    if not streamed:
        return pyarrow.feather.read_table(path, memory_map=False)
    with path.open("rb") as file, pa.ipc.open_stream(file) as stream:
        return stream.read_all()


def _column(path: PathLike, name: str, column: pa.ChunkedArray) -> Column:
    """A column of anybody's table; structs become dicts."""
    if not pa.types.is_struct(column.type):
        return from_arrow(path, name, column)
    if column.null_count:
        raise DataError(f"{path}: column '{name}' has rows without a value")
    fields = [column.type.field(i).name for i in range(column.type.num_fields)]
    with reading(path, f"column '{name}'"):
        parts = column.combine_chunks().flatten()
    return {field: _column(path, f"{name}/{field}", pa.chunked_array([part])) for field, part in zip(fields, parts, strict=True)}


def _typed(path: PathLike, name: str, column: Any, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    array = from_arrow(path, name, column)
    if is_text(array) and dtype.hasobject:
        return array
    if not len(array):
        return np.zeros((0, *shape), dtype)
    if array.dtype != dtype or array.shape[1:] != shape:
        raise DataError(f"{path}: column '{name}' has rows of {array.dtype} {array.shape[1:]}, its header says {dtype} {shape}")
    return array


def _final(path: PathLike, name: str, table: pa.Table, dtype: np.dtype, shape: tuple[int, ...], lengths: np.ndarray) -> np.ndarray:
    if _FINAL + name not in table.column_names:
        raise DataError(f"{path}: column '{_FINAL + name}' is missing")
    column = table[_FINAL + name]
    rows = np.flatnonzero(column.is_valid().to_numpy())
    if not np.array_equal(rows, np.cumsum(lengths) - 1):
        raise DataError(f"{path}: column '{_FINAL + name}' should have values in the last rows of the episodes and nowhere else")
    return _typed(path, _FINAL + name, column.drop_null(), dtype, shape)


def _lengths(path: PathLike, episode: np.ndarray) -> np.ndarray:
    if episode.dtype.kind not in "iu" or episode.ndim != 1 or np.any(np.diff(episode.astype(np.int64)) < 0):
        raise DataError(f"{path}: column 'episode_index' should hold whole numbers that never fall")
    return np.unique(episode, return_counts=True)[1]


def _write_one(source: Source, path: Path) -> None:
    columns = {}
    for name, column in flatten(source.episodes).items():
        dtype = "O" if is_text(column) else column.dtype.newbyteorder("=").str
        columns[name] = {"dtype": dtype, "shape": list(column.shape[1:])}
    head = dump_json({**header(source), "columns": columns})
    with new_file(path) as aside:
        first = _table(source.episodes.select(np.zeros(0, np.int64)), 0)
        schema = first.schema.with_metadata({_KEY: head.encode()})
        with _writer(aside, path.suffix, schema) as writer:
            for start, episodes in _parts(source.episodes):
                writer.write_table(_table(episodes, start).replace_schema_metadata(schema.metadata))


@contextmanager
def _writer(aside: Path, suffix: str, schema: pa.Schema) -> Iterator[Any]:
    words = [field.name for field in schema if pa.types.is_string(field.type)]
    # dictionaries of numbers that never repeat would make reading several times slower
    parquet = pyarrow.parquet.ParquetWriter
    writer = pa.ipc.new_file(str(aside), schema) if suffix in ARROW else parquet(aside, schema, use_dictionary=words)  # pyright: ignore[reportArgumentType]
    with writer:
        yield writer


def _parts(episodes: Episodes) -> Iterator[tuple[int, Episodes]]:
    blocks = np.cumsum(episodes.lengths) // _BLOCK
    for block in np.unique(blocks):
        index = np.flatnonzero(blocks == block)
        yield int(index[0]), episodes.select(index)


def _table(episodes: Episodes, first: int) -> pa.Table:
    """The rows of these episodes, the first of which has the number `first`."""
    lengths = episodes.lengths
    starts = np.cumsum(lengths) - lengths
    columns: dict[str, Any] = {
        "episode_index": pa.array(np.repeat(np.arange(first, first + episodes.count), lengths)),
        "step_index": pa.array(np.arange(episodes.steps) - np.repeat(starts, lengths)),
    }
    ends = np.cumsum(lengths) + np.arange(len(lengths))
    for name, column in flatten(episodes).items():
        if name.split("/")[0] != "observation":
            columns[name] = to_arrow(column)
            continue
        columns[name] = to_arrow(np.delete(column, ends, axis=0))
        at_end = np.full(episodes.steps, -1)
        at_end[np.cumsum(lengths) - 1] = np.arange(len(lengths))
        columns[_FINAL + name] = to_arrow(column[ends]).take(pa.array(at_end, mask=at_end < 0))
    return pa.table(columns)
