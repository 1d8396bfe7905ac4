"""The native folder: `meta.json` and one .npy file per column, memory-mapped on reading: the format for data larger than memory.

`FolderWriter` appends episodes as they come, holding none of them. `meta.json` has the source's header and, for each column, its
file; a column of strings holds numbers that stand for the strings listed there.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from polyact.data.episodes import Episodes
from polyact.data.formats.columns import check_finite, decode_text, encode_text, flatten, is_text, unflatten
from polyact.data.formats.common import (
    PathLike,
    dump_json,
    file_name,
    from_header,
    header,
    new_folder,
    read_json,
    reading,
    write_each,
)
from polyact.data.source import Source
from polyact.errors import DataError

NAME = "folder"
_META = "meta.json"
_BLOCK = 1 << 16  # steps per block of a copy


def detect(path: PathLike) -> bool:
    """A folder with `meta.json` and `lengths.npy`."""
    return (Path(path) / _META).is_file() and (Path(path) / "lengths.npy").is_file()


def read(path: PathLike) -> list[Source]:
    """The source in the folder, its columns memory-mapped. Reads every number once to be sure that all are finite."""
    folder = Path(path)
    head = read_json(folder / _META)
    entries = head.get("columns")
    if not isinstance(entries, dict):
        raise DataError(f"{folder / _META}: needs a field 'columns'")
    arrays = {name: _column(folder, name, entry) for name, entry in entries.items()}
    lengths = _map(folder / "lengths.npy")
    if lengths.dtype.kind not in "iu":
        raise DataError(f"{folder / 'lengths.npy'}: should hold whole numbers, has {lengths.dtype}")
    return [from_header(head, unflatten(arrays, np.array(lengths), path), path)]


def write(sources: list[Source], path: PathLike) -> None:
    """Write one source as a folder, several as a folder of folders. Copies in blocks, so memory maps stay on disk."""
    write_each(sources, path, _write_one)


class FolderWriter:
    """Write a data set of any size episode by episode.

    Use it as a context manager; the folder appears under its name when the block ends without an error, and not at all otherwise.
    template: a source whose name, spaces and labels the folder gets (its episodes are not written; `empty_like` makes some).

        with FolderWriter("big", Source(empty_like(first), "big", observation_space, action_space)) as writer:
            writer.append(first)
    """

    def __init__(self, path: PathLike, template: Source):
        self.path = Path(path)
        self.template = template
        self.lengths: list[np.ndarray] = []
        self._columns: dict[str, _ColumnFile] = {}
        self._stack = ExitStack()

    def __enter__(self) -> FolderWriter:
        self._folder = self._stack.enter_context(new_folder(self.path))
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        with self._stack:
            if kind is None:
                self._finish()
            else:
                self._close()
                raise error
        return False

    def append(self, episodes: Episodes) -> None:
        """Add episodes at the end. Raises DataError unless they have the columns of those before."""
        flat = flatten(episodes)
        if not self._columns:
            taken: set[str] = set()
            for name, column in flat.items():
                self._columns[name] = _ColumnFile(self._folder / _file(name, taken), name, column)
        if flat.keys() != self._columns.keys():
            odd = sorted(flat.keys() ^ self._columns.keys())
            raise DataError(f"{self.path}: column '{odd[0]}' is not in all of the episodes appended")
        for name, column in flat.items():
            if not name.startswith("info/"):
                check_finite(self.path, name, column)
            self._columns[name].append(column)
        self.lengths.append(episodes.lengths)

    def _finish(self) -> None:
        if not self._columns:
            self.append(self.template.episodes.select(np.zeros(0, np.int64)))
        self._close()
        np.save(self._folder / "lengths.npy", np.concatenate(self.lengths), allow_pickle=False)
        entries = {name: column.entry() for name, column in self._columns.items()}
        (self._folder / _META).write_text(dump_json({**header(self.template), "columns": entries}), "utf-8")

    def _close(self) -> None:
        for column in self._columns.values():
            column.close()


class _ColumnFile:
    """One growing .npy file: its header is written again, in place, when the number of rows is known."""

    def __init__(self, path: Path, name: str, column: np.ndarray):
        self.name, self.words = name, ({} if is_text(column) else None)
        self.dtype = np.dtype(np.int32) if is_text(column) else column.dtype.newbyteorder("<")
        self.shape, self.rows = column.shape[1:], 0
        self.file = path.open("w+b")
        self._head()
        self.start = self.file.tell()

    def append(self, column: np.ndarray) -> None:
        if is_text(column) != (self.words is not None) or column.shape[1:] != self.shape:
            raise DataError(f"column '{self.name}': rows of {column.dtype} {column.shape[1:]} after {self.dtype} {self.shape}")
        if self.words is not None:
            codes, words = encode_text(self.name, column)
            new = np.array([self.words.setdefault(word, len(self.words)) for word in words], np.int32)
            column = new[codes]
        elif column.dtype.newbyteorder("<") != self.dtype:
            raise DataError(f"column '{self.name}': rows of {column.dtype} after {self.dtype}")
        np.ascontiguousarray(column, self.dtype).tofile(self.file)
        self.rows += len(column)

    def entry(self) -> dict[str, Any]:
        entry = {"file": Path(self.file.name).name, "dtype": self.dtype.str, "shape": [self.rows, *self.shape]}
        return entry if self.words is None else {**entry, "vocabulary": list(self.words)}

    def close(self) -> None:
        self.file.seek(0)
        self._head()
        self.file.close()

    def _head(self) -> None:
        value = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.rows, *self.shape)}
        np.lib.format.write_array_header_2_0(self.file, value)


def _write_one(source: Source, path: Path) -> None:
    episodes = source.episodes
    blocks = np.cumsum(episodes.lengths) // _BLOCK
    with FolderWriter(path, source) as writer:
        for block in np.unique(blocks):
            writer.append(episodes.select(np.flatnonzero(blocks == block)))


def _column(folder: Path, name: str, entry: Any) -> np.ndarray:
    where = folder / _META
    if not isinstance(entry, dict) or not isinstance(entry.get("file"), str) or Path(entry["file"]).name != entry["file"]:
        raise DataError(f"{where}: column '{name}' should name a file of this folder")
    array = _map(folder / entry["file"])
    with reading(where, f"column '{name}'"):
        if (list(array.shape), array.dtype.str) != (entry["shape"], entry["dtype"]):
            found = f"{array.dtype.str} {list(array.shape)}"
            raise DataError(f"{folder / entry['file']}: holds {found}, meta.json says {entry['dtype']} {entry['shape']}")
        if "vocabulary" in entry:
            return decode_text(array, entry["vocabulary"], folder, name)
    return array


def _map(path: Path) -> np.ndarray:
    with reading(path):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype.hasobject or not isinstance(array, np.ndarray):
        raise DataError(f"{path}: not a plain array")
    return array


def _file(name: str, taken: set[str]) -> str:
    plain = file_name(name.replace("/", "."))
    if not plain or plain.lower() in taken or plain in ("lengths", _META):
        plain = f"{plain[:80]}-{len(taken)}"
    taken.add(plain.lower())
    return f"{plain}.npy"
