"""HDF5 files read with care: nothing outside the file is followed, and damage is one line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from polyact.data.formats.common import PathLike, reading
from polyact.errors import DataError

SUFFIXES = (".hdf5", ".h5")
_LARGEST_RATIO = 2000  # numbers to bytes of file: beyond what compression reaches, so the claim is damage


@contextmanager
def opened(path: PathLike) -> Iterator[h5py.File]:
    """The file, open for reading. Raises DataError when it is not HDF5 or is cut off."""
    with reading(path), h5py.File(Path(path), "r") as file:
        yield file


def keys(path: PathLike) -> set[str]:
    """Names at the root of the file. Raises DataError when it is damaged."""
    with opened(path) as file:
        return set(names(file))


def array(path: PathLike, group: h5py.Group, name: str) -> np.ndarray:
    """A data set as an array; strings as an object array (0-d ones included).

    Raises DataError that names file and field when it is missing, is a group, or lies in another file.
    """
    where = _where(group, name)
    data = member(path, group, name)
    if not isinstance(data, h5py.Dataset):
        raise DataError(f"{path}: '{where}' is a group, expected a data set")
    with reading(path, f"field '{where}'"):
        value = data.asstr()[()] if h5py.check_string_dtype(data.dtype) else data[()]
        return np.asarray(value, object) if isinstance(value, str) else np.asarray(value)


def member(path: PathLike, group: h5py.Group, name: str) -> h5py.Dataset | h5py.Group:
    """What lies in a group under a name. Raises DataError when it is missing, lies in another file or claims an impossible size."""
    where = _where(group, name)
    if name not in group:
        raise DataError(f"{path}: field '{where}' is missing; found: {', '.join(sorted(names(group))) or 'nothing'}")
    outside = DataError(f"{path}: field '{where}' lies in another file, which is not followed")
    if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
        raise outside
    with reading(path, f"field '{where}'"):
        node = group[name]
        if isinstance(node, h5py.Group):
            return node
        if not isinstance(node, h5py.Dataset):
            raise DataError(f"{path}: '{where}' is neither a group nor a data set")
        if node.external or node.is_virtual:
            raise outside
        size = Path(path).stat().st_size
        # Every chunk takes room in the file; libhdf5 would look for millions that are not there one by one.
        chunks = math.prod(-(-length // step) for length, step in zip(node.shape, node.chunks, strict=True)) if node.chunks else 0
        if node.size * node.dtype.itemsize > _LARGEST_RATIO * size or chunks > size:
            raise DataError(f"{path}: field '{where}' claims shape {node.shape}, far more than the file can hold")
        return node


def tree(path: PathLike, group: h5py.Group) -> dict[str, Any]:
    """All data sets below a group, nested as the groups are."""
    out = {}
    for name in names(group):
        inner = subgroup(group, name)
        out[name] = array(path, group, name) if inner is None else tree(path, inner)
    return out


def names(group: h5py.Group) -> list[str]:
    """Names of what lies in a group."""
    return [str(name) for name in group]


def subgroup(group: h5py.Group, name: str) -> h5py.Group | None:
    """A group in a group of the same file; None when there is none of that name."""
    if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
        return None
    inner = group.get(name)
    return inner if isinstance(inner, h5py.Group) else None


def attribute(group: Any, name: str) -> Any:
    """An attribute as a Python value, None when missing."""
    value = group.attrs.get(name)
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _where(group: h5py.Group, name: str) -> str:
    return f"{group.name}/{name}".replace("//", "/").lstrip("/")
