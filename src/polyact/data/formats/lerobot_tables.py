"""The parquet files of a LeRobotDataset: features of chosen episodes as arrays, checked against what `meta/` says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from polyact.data.formats.arrow import from_arrow
from polyact.data.formats.columns import check_finite
from polyact.data.formats.common import reading
from polyact.data.formats.lerobot_meta import INFO, Meta
from polyact.data.formats.lerobot_pictures import decode_pictures
from polyact.errors import DataError


def read_tables(meta: Meta, chosen: list[int], names: list[str]) -> dict[str, np.ndarray]:
    """Features of the chosen episodes, [N, *shape] each, read file by file and put into the order asked for."""
    wanted = set(chosen)
    holds: dict[Path, list[int]] = {}
    for episode in range(len(meta.lengths)):
        holds.setdefault(meta.data_file(episode), []).append(episode)
    parts: dict[int, dict[str, np.ndarray]] = {}
    for path, inside in holds.items():
        if not wanted.isdisjoint(inside):
            columns = _read_table(meta, path, inside, names)
            ends = np.cumsum(meta.lengths[inside])
            for episode, end in zip(inside, ends.tolist(), strict=True):
                if episode in wanted:
                    begin = end - int(meta.lengths[episode])
                    parts[episode] = {name: column[begin:end] for name, column in columns.items()}
    return {name: np.concatenate([parts[episode][name] for episode in chosen]) for name in names}


def _read_table(meta: Meta, path: Path, inside: list[int], names: list[str]) -> dict[str, np.ndarray]:
    with reading(path):
        file = pq.ParquetFile(path)
        absent = [name for name in names if name not in file.schema_arrow.names]
        table = None if absent else file.read(columns=names)
    if table is None:
        raise DataError(f"{path}: column '{absent[0]}' is missing, which {INFO} lists as a feature")
    lengths = meta.lengths[inside]
    if len(table) != lengths.sum():
        raise DataError(f"{path}: has {len(table)} rows, expected {lengths.sum()} for episodes {inside[0]} to {inside[-1]}")
    columns = {name: _column(meta, path, name, table[name]) for name in names}
    steps = np.concatenate([np.arange(length) for length in lengths])
    for name, expected in {"episode_index": np.repeat(inside, lengths), "frame_index": steps}.items():
        wrong = np.flatnonzero(columns[name][:, 0] != expected)
        if len(wrong):
            value = columns[name][wrong[0], 0]
            raise DataError(f"{path}: column '{name}' has {value} in row {wrong[0]}, expected {expected[wrong[0]]}")
    return columns


def _column(meta: Meta, path: Path, name: str, column: pa.ChunkedArray) -> np.ndarray:
    """A feature's column [rows, *shape], of the dtype and shape that info.json says."""
    feature = meta.features[name]
    shape, rows = tuple(feature["shape"]), len(column)
    if feature["dtype"] == "image":
        return decode_pictures(path, name, column, feature, meta.root)
    array = from_arrow(path, name, column)
    if array.shape[1:] != shape and not (array.ndim == 1 and shape == (1,)):
        raise DataError(f"{path}: column '{name}' has rows of shape {array.shape[1:]}, {INFO} says {shape}")
    array = array.reshape(rows, *shape)
    if feature["dtype"] == "string":
        if array.dtype != object:
            raise DataError(f"{path}: column '{name}' holds {array.dtype}, {INFO} says string")
        return array
    with reading(meta.root / INFO, f"feature '{name}'"):
        dtype = np.dtype(feature["dtype"])
    if array.dtype == object or not np.can_cast(array.dtype, dtype, "same_kind"):
        raise DataError(f"{path}: column '{name}' holds {array.dtype}, {INFO} says {dtype}")
    if name.startswith(("observation.", "action", "next.reward")):
        check_finite(path, name, array)
    return array.astype(dtype, copy=False)
