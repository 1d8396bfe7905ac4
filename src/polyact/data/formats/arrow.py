"""Arrays as Arrow columns and back: vectors as fixed-size lists, everything deeper as nested lists, never a silent null or ragged row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from polyact.data.formats.columns import is_text
from polyact.data.formats.common import PathLike
from polyact.errors import DataError


def to_arrow(column: np.ndarray) -> pa.Array:
    """An array [N, ...] as an Arrow column of N rows: scalars, fixed-size lists (row shape [k]) or nested lists.

    Raises DataError for strings that are not strings and for dtypes Arrow does not have.
    """
    if is_text(column):
        return pa.array(column.tolist(), pa.string())
    column = np.ascontiguousarray(column, column.dtype.newbyteorder("="))
    values = pa.array(column.reshape(-1))
    if column.ndim == 2 and column.shape[1]:
        return pa.FixedSizeListArray.from_arrays(values, column.shape[1])
    for axis in range(column.ndim - 1, 0, -1):
        count, size = int(np.prod(column.shape[:axis])), column.shape[axis]
        values = pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32) * np.int32(size)), values)
    return values


def from_arrow(path: PathLike, name: str, column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """An Arrow column of N rows as an array [N, ...]; strings as an object array.

    Raises DataError that names file, column and row for a null or a ragged list, and for types that are not numbers or strings.
    """
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    shape = [len(array)]
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if isinstance(array, pa.DictionaryArray):
            array = array.dictionary_decode()
        per_row = int(np.prod(shape[1:]))
        if array.null_count:
            row = int(np.argmax(array.is_null().to_numpy(zero_copy_only=False))) // per_row
            raise DataError(f"{path}: column '{name}' has no value in row {row}")
        kind = array.type
        if pa.types.is_fixed_size_list(kind):
            shape.append(kind.list_size)
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            shape.append(_list_size(path, name, array, per_row))
        else:
            break
        array = array.flatten()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return np.array([*array.to_pylist(), None], object)[:-1].reshape(shape)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"{path}: column '{name}' holds {kind}, expected numbers, booleans or strings")
    return array.to_numpy(zero_copy_only=False).reshape(shape)


def _list_size(path: PathLike, name: str, array: pa.Array, per_row: int) -> int:
    sizes = pc.list_value_length(array).to_numpy(zero_copy_only=False)  # pyright: ignore[reportAttributeAccessIssue]
    if not len(sizes):
        return 0
    odd = np.flatnonzero(sizes != sizes[0])
    if len(odd):
        raise DataError(
            f"{path}: column '{name}' has {sizes[odd[0]]} values in row {odd[0] // per_row}, expected {sizes[0]} as in row 0"
        )
    return int(sizes[0])
