"""d3rlpy's HDF5 files (read): version 2.1 with data sets per episode, and version 1 with flat arrays and `episode_terminals`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from polyact.data.episodes import Column, Episodes, concatenate
from polyact.data.formats import hdf5
from polyact.data.formats.columns import check_flag, check_vector, from_steps, lengths_from_ends
from polyact.data.formats.common import PathLike, naming
from polyact.data.source import Source
from polyact.errors import DataError

NAME = "d3rlpy"


def detect(path: PathLike) -> bool:
    """An HDF5 file with `columns` and `num_episodes`, or with `observations` and `episode_terminals`."""
    if Path(path).suffix not in hdf5.SUFFIXES:
        return False
    keys = hdf5.keys(path)
    return keys >= {"columns", "num_episodes"} or keys >= {"observations", "actions", "episode_terminals"}


def read(path: PathLike) -> list[Source]:
    """The source in the file. Observations that are tuples become dicts with the keys '0', '1', ..."""
    with hdf5.opened(path) as file:
        episodes, metadata = _version_2(path, file) if "num_episodes" in file else _version_1(path, file)
    with naming(path):
        return [Source(episodes, Path(path).stem, metadata=metadata)]


def _version_1(path: PathLike, file: h5py.File) -> tuple[Episodes, dict[str, Any]]:
    terminated = check_flag(path, "terminals", hdf5.array(path, file, "terminals"))
    ended = check_flag(path, "episode_terminals", hdf5.array(path, file, "episode_terminals"))
    if terminated.shape != ended.shape:
        raise DataError(f"{path}: episode_terminals has {len(ended)} rows, terminals {len(terminated)}")
    columns = {
        "observation": hdf5.array(path, file, "observations"),
        "action": _action(hdf5.array(path, file, "actions")),
        "reward": check_vector(path, "rewards", hdf5.array(path, file, "rewards")),
        "terminated": terminated,
        "truncated": ended & ~terminated,
    }
    return from_steps(path, columns, lengths_from_ends(ended | terminated))


def _version_2(path: PathLike, file: h5py.File) -> tuple[Episodes, dict[str, Any]]:
    version = hdf5.array(path, file, "version").item() if "version" in file else "missing"
    if version != "2.1":
        raise DataError(f"{path}: d3rlpy version {version!r}, polyact reads 2.1 and 1")
    count = hdf5.array(path, file, "num_episodes")
    if count.shape or count.dtype.kind not in "iu" or count < 1:
        raise DataError(f"{path}: field 'num_episodes' should be a positive whole number")
    parts, metadata = [], {}
    for number in range(int(count)):
        part, metadata = _episode(path, file, number)
        parts.append(part)
    with naming(path):
        return concatenate(parts), metadata


def _episode(path: PathLike, file: h5py.File, number: int) -> tuple[Episodes, dict[str, Any]]:
    reward = check_vector(path, f"rewards_{number}", hdf5.array(path, file, f"rewards_{number}"))
    if not len(reward):
        raise DataError(f"{path}: episode {number} has no steps")
    ended = check_flag(path, f"terminated_{number}", np.atleast_1d(hdf5.array(path, file, f"terminated_{number}")))
    terminated, truncated = np.zeros(len(reward), bool), np.zeros(len(reward), bool)
    terminated[-1], truncated[-1] = ended[-1], not ended[-1]
    columns = {
        "observation": _column(path, file, f"observations_{number}"),
        "action": _column(path, file, f"actions_{number}"),
        "reward": reward,
        "terminated": terminated,
        "truncated": truncated,
    }
    if isinstance(columns["action"], np.ndarray):
        columns["action"] = _action(columns["action"])
    return from_steps(path, columns, np.array([len(reward)]))


def _column(path: PathLike, file: h5py.File, name: str) -> Column:
    if name in file or f"{name}_0" not in file:
        return hdf5.array(path, file, name)
    parts: dict[str, Any] = {}
    while f"{name}_{len(parts)}" in file:
        parts[str(len(parts))] = hdf5.array(path, file, f"{name}_{len(parts)}")
    return parts


def _action(action: np.ndarray) -> np.ndarray:
    """Discrete actions come as [T, 1] integers; ours are [T]."""
    return action[:, 0] if action.ndim == 2 and action.shape[1] == 1 and action.dtype.kind in "iu" else action
