"""Columns by path, and what file formats must know of them: finite numbers, flags, episode boundaries, last observations, strings."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

import numpy as np

from polyact.data.episodes import STEP_COLUMNS, Column, Episodes
from polyact.data.formats.common import PathLike, naming, reading
from polyact.errors import DataError
from polyact.spaces import Box, Space

REPEATED = {"final_observation": "repeated"}  # metadata of sources whose format holds no observation after the last step
_CHUNK = 1 << 22


def flatten(episodes: Episodes) -> dict[str, np.ndarray]:
    """Every array of the episodes by path, such as 'observation/camera' or 'info/speed' (keys percent-encoded)."""
    flat: dict[str, np.ndarray] = {}
    for name in ("observation", *STEP_COLUMNS):
        column = getattr(episodes, name)
        if column is not None:
            _flatten(column, name, flat)
    if episodes.info:
        _flatten(episodes.info, "info", flat)
    return flat


def unflatten(flat: Mapping[str, np.ndarray], lengths: np.ndarray, path: PathLike) -> Episodes:
    """Inverse of `flatten`; raises DataError for unknown columns, wrong row counts and numbers that are not finite."""
    columns: dict[str, Any] = {}
    for name, array in flat.items():
        first, *rest = name.split("/")
        if first not in ("observation", "info", *STEP_COLUMNS) or (first == "info" and not rest):
            raise DataError(f"{path}: unknown column '{name}'")
        if array.dtype.kind not in "biufOU":
            raise DataError(f"{path}: column '{name}' has type {array.dtype}, expected numbers, booleans or strings")
        if first != "info":
            check_finite(path, name, array)
        place, keys = columns, [unescape(key) for key in (first, *rest)]
        for key in keys[:-1]:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise DataError(f"{path}: column '{name}' lies inside another column")
        if keys[-1] in place:
            raise DataError(f"{path}: column '{name}' appears twice")
        place[keys[-1]] = array
    with naming(path):
        return Episodes(lengths, **columns)


def escape(key: str) -> str:
    """A key of a dictionary as a part of a path."""
    return quote(key, safe=" ") if key.strip(".") else key.replace(".", "%2E")


def unescape(key: str) -> str:
    """Inverse of `escape`."""
    return unquote(key)


def check_finite(path: PathLike, name: str, column: Column) -> None:
    """Raise DataError that names file, column and row where a number is NaN or infinite. Reads memory maps in blocks."""
    if isinstance(column, dict):
        for key, part in column.items():
            check_finite(path, f"{name}/{key}", part)
    elif column.dtype.kind in "fc":
        for start, block in _blocks(column):
            finite = np.isfinite(block)
            if not finite.all():
                at = np.argwhere(~finite)[0]
                raise DataError(f"{path}: column '{name}' has {block[tuple(at)]} in row {start + at[0]}, expected finite numbers")


def check_flag(path: PathLike, name: str, column: np.ndarray) -> np.ndarray:
    """A done-like column as booleans [N]; raises DataError unless it holds only 0 and 1."""
    if column.dtype == bool:
        return _vector(path, name, column)
    if column.dtype.kind not in "iuf" or not np.isin(column, (0, 1)).all():
        raise DataError(f"{path}: column '{name}' ({column.dtype}) should hold only 0 and 1 (or false and true)")
    return _vector(path, name, column) != 0


def check_vector(path: PathLike, name: str, column: np.ndarray) -> np.ndarray:
    """A column of one finite number per row, [N] or [N, 1], as [N]."""
    if column.dtype.kind not in "biuf":
        raise DataError(f"{path}: column '{name}' has type {column.dtype}, expected numbers")
    check_finite(path, name, column)
    return _vector(path, name, column)


def lengths_from_ends(ends: np.ndarray) -> np.ndarray:
    """Episode lengths from a boolean column that is true on the last step of each; unfinished last steps are an episode too."""
    last = np.flatnonzero(ends)
    if len(ends) and (not len(last) or last[-1] != len(ends) - 1):
        last = np.append(last, len(ends) - 1)
    return np.diff(last, prepend=-1)


def with_final(column: Column, lengths: np.ndarray, final: Column | None = None) -> Column:
    """Observations [N] of a format that holds none after the last step -> [N + E].

    final [E]: the observations the episodes ended in, where known (the last row of `next_observations`). Otherwise the last
    observation is repeated, and the source must say so: put `REPEATED` into its metadata, so that the last step of an episode
    that was not terminated is not used as a transition (it stays valid for cloning).
    """
    if isinstance(column, dict):
        parts = final if isinstance(final, dict) else dict.fromkeys(column)
        return {key: with_final(part, lengths, parts[key]) for key, part in column.items()}
    ends = np.cumsum(lengths) + np.arange(len(lengths))
    last: Any = column[np.cumsum(lengths) - 1] if final is None else final
    out = np.empty((len(column) + len(lengths), *column.shape[1:]), np.result_type(column, last))
    steps = np.ones(len(out), bool)
    steps[ends] = False
    out[steps], out[ends] = column, last
    return out


def without_final(column: Column, lengths: np.ndarray) -> tuple[Column, Column]:
    """Observations [N + E] -> those the steps started from [N] and those the episodes ended in [E]."""
    if isinstance(column, dict):
        parts = {key: without_final(part, lengths) for key, part in column.items()}
        return {key: steps for key, (steps, _) in parts.items()}, {key: final for key, (_, final) in parts.items()}
    ends = np.cumsum(lengths) + np.arange(len(lengths))
    return np.delete(column, ends, axis=0), column[ends]


def unit_box(action: Column) -> Space | None:
    """[-1, 1] for real actions that all lie in it, where that is the format's convention; None leaves the space to the data."""
    if not isinstance(action, np.ndarray) or action.dtype.kind != "f" or action.ndim < 2 or np.any(np.abs(action) > 1):
        return None
    return Box(-1, 1, action.shape[1:], action.dtype)


def encode_text(name: str, column: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """A column of strings as codes [N] into the list of its different strings."""
    codes: dict[str, int] = {}
    out = np.empty(len(column), np.int32)
    for row, text in enumerate(column.tolist()):
        if not isinstance(text, str):
            raise DataError(f"column '{name}' holds {type(text).__name__} in row {row}, expected strings")
        out[row] = codes.setdefault(text, len(codes))
    return out, list(codes)


def decode_text(codes: np.ndarray, vocabulary: Sequence[str], path: PathLike, name: str) -> np.ndarray:
    """Inverse of `encode_text`: an object array whose rows share the strings."""
    if codes.dtype.kind not in "iu" or codes.ndim != 1 or not all(isinstance(text, str) for text in vocabulary):
        raise DataError(f"{path}: column '{name}' should hold whole numbers that stand for strings")
    if len(codes) and not 0 <= int(codes.min()) <= int(codes.max()) < len(vocabulary):
        raise DataError(f"{path}: column '{name}' has codes outside its {len(vocabulary)} strings")
    words = np.empty(len(vocabulary), object)
    words[:] = vocabulary
    return words[codes]


def is_text(column: np.ndarray) -> bool:
    """Whether an array holds strings."""
    return column.dtype.kind in "OU"


def _vector(path: PathLike, name: str, column: np.ndarray) -> np.ndarray:
    if column.ndim == 2 and column.shape[1] == 1:
        return column[:, 0]
    if column.ndim != 1:
        raise DataError(f"{path}: column '{name}' has shape {column.shape}, expected one value per row")
    return column


def _flatten(column: Column, path: str, flat: dict[str, np.ndarray]) -> None:
    if not isinstance(column, dict):
        if column.dtype.kind not in "biufOU":
            raise DataError(f"column '{path}' has type {column.dtype}; only numbers, booleans and strings can be written")
        flat[path] = column
        return
    if not column:
        raise DataError(f"column '{path}' has no parts, which no format can hold")
    for key, part in column.items():
        _flatten(part, f"{path}/{escape(key)}", flat)


def from_steps(
    path: PathLike, columns: dict[str, Any], lengths: np.ndarray, following: Column | None = None
) -> tuple[Episodes, dict[str, Any]]:
    """Episodes from columns that all have one row per step [N], and the metadata that says what was done to get them.

    columns: standard columns by name ('info' is a dict of them). following [N]: the observation after each step, where recorded;
    its last row of each episode is the final observation (see `with_final`). Raises DataError that names file, column and row.
    """
    steps, metadata = int(lengths.sum()), {}
    for name, column in columns.items():
        _check_steps(path, name, column, steps)
    observation = columns.get("observation")
    if observation is not None:
        if following is None:
            metadata |= REPEATED
        else:
            _check_steps(path, "next observation", following, steps)
            following = _rows(following, np.cumsum(lengths) - 1)
        with reading(path, "next observation"):
            columns = columns | {"observation": with_final(observation, lengths, following)}
    with naming(path):
        return Episodes(lengths, **columns), metadata


def breaks(observation: Column, following: Any) -> np.ndarray:
    """Rows [N] whose next observation is not the next row's observation: after them something else begins."""
    if isinstance(observation, dict):
        parts = [breaks(part, following[key]) for key, part in observation.items()]
        return np.logical_or.reduce(parts)
    different = (following[:-1] != observation[1:]).reshape(max(0, len(observation) - 1), -1).any(1)
    return np.append(different, len(observation) > 0)[: len(observation)]


def _blocks(column: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The column in blocks, with the first row of each. A memory map is read through the file, so that its pages stay out."""
    rows = max(1, _CHUNK // max(1, math.prod(column.shape[1:])))
    for start in range(0, len(column), rows):
        shape = (min(rows, len(column) - start), *column.shape[1:])
        if isinstance(column, np.memmap) and isinstance(column.base, mmap.mmap) and column.flags.c_contiguous:
            offset = column.offset + start * column[:1].nbytes
            yield start, np.fromfile(str(column.filename), column.dtype, math.prod(shape), offset=offset).reshape(shape)
        else:
            yield start, column[start : start + rows]


def _check_steps(path: PathLike, name: str, column: Column, steps: int) -> None:
    if isinstance(column, dict):
        for key, part in column.items():
            _check_steps(path, f"{name}/{key}", part, steps)
        return
    if np.ndim(column) < 1 or len(column) != steps:
        raise DataError(f"{path}: column '{name}' has shape {np.shape(column)}, expected {steps} rows (one per step)")
    if column.dtype.kind not in "biufOU":
        raise DataError(f"{path}: column '{name}' has type {column.dtype}, expected numbers, booleans or strings")
    if not name.startswith("info"):
        check_finite(path, name, column)


def _rows(column: Column, rows: np.ndarray) -> Column:
    return {key: _rows(part, rows) for key, part in column.items()} if isinstance(column, dict) else column[rows]
