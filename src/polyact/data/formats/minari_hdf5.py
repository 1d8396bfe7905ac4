"""Minari's hdf5 storage: `main_data.hdf5` with a group for every episode."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from polyact import spaces
from polyact.data.formats import hdf5
from polyact.data.formats.columns import escape, is_text, unescape
from polyact.data.formats.common import reading
from polyact.data.formats.minari_episodes import NAMES, Stored, decode_images, is_image
from polyact.errors import DataError
from polyact.spaces import Space

FILE = "main_data.hdf5"


def read_episodes(folder: Path, count: int, given: dict[str, Space | None], jpeg: bool) -> list[Stored]:
    """Episodes 0 .. count - 1. given: spaces of observations and actions, where known. jpeg: whether images may be coded."""
    path = folder / FILE
    with hdf5.opened(path) as file:
        found = {int(name[8:]) for name in map(str, file) if re.fullmatch(r"episode_\d+", name)}
        if found != set(range(count)):
            raise DataError(f"{path}: holds {len(found)} episodes, expected episode_0 to episode_{count - 1} as metadata.json says")
        return [_read_episode(path, number, hdf5.member(path, file, f"episode_{number}"), given, jpeg) for number in range(count)]


def write_episodes(folder: Path, stored: Iterator[Stored], given: dict[str, Space]) -> None:
    """Write every episode into `folder`. given: the spaces as metadata.json states them (tuples are stored by `_index_<k>`)."""
    with h5py.File(folder / FILE, "w", track_order=True) as file:
        for episode in stored:
            group = file.create_group(f"episode_{episode.number}", track_order=True)
            group.attrs.update({"id": episode.number, "total_steps": episode.steps})
            if episode.seed is not None:
                group.attrs["seed"] = episode.seed
            group.attrs.update(_flat("options", episode.options or {}))
            group.attrs.update(episode.further)
            for name, column in episode.columns.items():
                _write_column(group, _disk_name(name, given), column)


def _read_episode(path: Path, number: int, group: Any, given: dict[str, Space | None], jpeg: bool) -> Stored:
    with reading(path, f"episode_{number}"):
        columns: dict[str, np.ndarray] = {}
        for name in group:
            if name in NAMES or name == "infos":
                decode = jpeg and name != "infos"
                node = hdf5.member(path, group, name)
                columns |= _walk(path, f"episode_{number}/{name}", node, name, given.get(name), decode)
        attributes = {name: _plain(value) for name, value in group.attrs.items()}
        rewards, steps = columns.get("rewards"), attributes.pop("total_steps", None)
        if rewards is not None and steps not in (None, len(rewards)):
            raise DataError(f"{path}: episode_{number} says total_steps {steps}, but holds {len(rewards)} rewards")
        options: dict[str, Any] = {}
        for name in [name for name in attributes if name.startswith("options/")]:
            place, value = options, attributes.pop(name)
            *parents, last = name.split("/")[1:]
            for key in parents:
                place = place.setdefault(key, {})
            place[last] = value
        seed = attributes.pop("seed", None)
        further = {name: value for name, value in attributes.items() if name != "id" and not name.startswith("rewards_")}
        return Stored(path, number, columns, None if seed is None else int(seed), options or None, further)


def _walk(path: Path, label: str, node: Any, name: str, space: Space | None, jpeg: bool) -> dict[str, np.ndarray]:
    """The arrays below a node, by path. Where the space is not known, the file's own structure tells."""
    if isinstance(node, h5py.Group):
        match space:
            case spaces.Tuple():
                parts = [(str(k), f"_index_{k}", part) for k, part in enumerate(space.spaces)]
            case spaces.Dict():
                parts = [(escape(key), key, part) for key, part in space.items]
            case None:
                parts = [(re.sub(r"^_index_(\d+)$", r"\1", key), key, None) for key in map(str, node)]
            case _:
                raise DataError(f"{path}: {label} is a group, but its space is {space}")
        columns: dict[str, np.ndarray] = {}
        for key, disk, part in parts:
            if disk not in node:
                raise DataError(f"{path}: {label} has no '{disk}', which its space has")
            columns |= _walk(path, f"{label}/{disk}", hdf5.member(path, node, disk), f"{name}/{key}", part, jpeg)
        return columns
    if isinstance(space, spaces.Dict | spaces.Tuple):
        raise DataError(f"{path}: {label} is one array, but its space has parts")
    return {name: _read_array(path, label, node, space, jpeg)}


def _read_array(path: Path, label: str, node: Any, space: Space | None, jpeg: bool) -> np.ndarray:
    with reading(path, label):
        if h5py.check_string_dtype(node.dtype) is not None:
            return np.asarray(node.asstr()[()], object)
        if jpeg and isinstance(space, spaces.Box) and is_image(space) and node.shape[1:] != space.shape:
            return decode_images([np.asarray(image, np.uint8).tobytes() for image in node], space, path, label)
        if node.dtype.kind not in "biuf":
            return np.zeros(())  # ragged or compound: no column
        array = node[()]
        return array.reshape(len(array), *space.shape) if isinstance(space, spaces.Discrete) and array.ndim == 2 else array


def _write_column(group: Any, name: str, column: np.ndarray) -> None:
    options: dict[str, Any] = {"maxshape": (None, *column.shape[1:]), "chunks": True} if column.size else {}
    if is_text(column):
        if any("\0" in text for text in column.tolist()):
            raise DataError(f"column '{name}' has a text with a NUL character, which HDF5 can't hold; choose parquet")
        group.create_dataset(name, data=column.astype(object), dtype=h5py.string_dtype(), **options)
    else:
        group.create_dataset(name, data=column, **options)


def _disk_name(name: str, given: dict[str, Space]) -> str:
    """infos keep their escaped keys (a slash would open a group); observations and actions have the names of their space."""
    first, *rest = name.split("/")
    if first == "infos":
        return name
    space: Any = given.get(first)
    for place, key in enumerate(rest):
        if isinstance(space, spaces.Tuple):
            space = space.spaces[int(key)]
            rest[place] = f"_index_{key}"
        else:
            rest[place] = unescape(key)
            space = space.spaces[rest[place]]
    return "/".join((first, *rest))


def _flat(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {path: leaf for key, part in value.items() for path, leaf in _flat(f"{name}/{key}", part).items()}
    return {name: value}


def _plain(value: Any) -> Any:
    value = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
