"""NPZ without pickles: one file with an array per column, `lengths`, and a `header` that is JSON text.

Entries: `lengths` [E], `observation` or `observation/<key>` [N + E, ...], every other column [N, ...], `info/<name>`. A column of
strings holds numbers that stand for the strings listed in the header. Files of others are read too when their arrays have the
usual names and one row per step (see `convention`).
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from polyact.data.formats.columns import decode_text, encode_text, flatten, is_text, unflatten
from polyact.data.formats.common import (
    PathLike,
    dump_json,
    from_header,
    header,
    new_file,
    parse_json,
    reading,
    write_each,
)
from polyact.data.formats.convention import source_from_columns
from polyact.data.source import Source
from polyact.errors import DataError

NAME = "npz"


def detect(path: PathLike) -> bool:
    """Any .npz file that no narrower format claims."""
    return Path(path).suffix == ".npz"


def read(path: PathLike) -> list[Source]:
    """The source in the file. Raises DataError in one line for anything damaged."""
    arrays = load_arrays(path)
    if "header" not in arrays:
        return [source_from_columns(path, arrays)]
    head = parse_json(str(arrays.pop("header")), path, "header")
    lengths = arrays.pop("lengths", None)
    if lengths is None or lengths.dtype.kind not in "iu":
        raise DataError(f"{path}: needs an array 'lengths' of whole numbers")
    for name, vocabulary in vocabularies(head, path).items():
        if name not in arrays:
            raise DataError(f"{path}: column '{name}' is in the header but not in the file")
        arrays[name] = decode_text(arrays[name], vocabulary, path, name)
    missing = [name for name in head.get("columns", []) if name not in arrays]
    if missing:
        raise DataError(f"{path}: column '{missing[0]}' is in the header but not in the file")
    return [from_header(head, unflatten(arrays, lengths, path), path)]


def write(sources: list[Source], path: PathLike) -> None:
    """Write one source as a file, several as a folder of files."""
    write_each(sources, path, _write_one, ".npz")


def load_arrays(path: PathLike) -> dict[str, np.ndarray]:
    """All arrays of an NPZ file by name; pickled ones are refused."""
    arrays = {}
    with reading(path), zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if not name.endswith(".npy"):
                raise DataError(f"{path}: holds '{name}', which is not an array")
            with archive.open(name) as file, reading(path, f"array '{name[:-4]}'"):
                arrays[name[:-4]] = _load_array(file, f"{path}: array '{name[:-4]}'")
    return arrays


def entry_names(path: PathLike) -> set[str]:
    """Names of the arrays of an NPZ file, nothing loaded; none where it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return set()


def vocabularies(head: dict, path: PathLike) -> dict[str, list[str]]:
    """The header's lists of strings, by column."""
    value = head.get("vocabularies", {})
    if not isinstance(value, dict) or not all(isinstance(words, list) for words in value.values()):
        raise DataError(f"{path}: header field 'vocabularies' should hold lists of strings by column")
    return value


def _load_array(file, where: str) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(file)
    if dtype.hasobject:
        raise DataError(f"{where} is pickled, and polyact never unpickles: save it as plain numbers or strings")
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    data = file.read(size + 1)
    if len(data) != size:
        raise DataError(f"{where} has {len(data)} bytes of data, its shape {shape} of {dtype} needs {size}")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _write_one(source: Source, path: Path) -> None:
    columns, words = flatten(source.episodes), {}
    for name, column in columns.items():
        if is_text(column):
            columns[name], words[name] = encode_text(name, column)
    head = dump_json({**header(source), "columns": list(columns), "vocabularies": words})
    arrays = {"header": np.array(head), "lengths": source.episodes.lengths, **columns}
    with new_file(path) as aside, zipfile.ZipFile(aside, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array, order="C"), allow_pickle=False)
