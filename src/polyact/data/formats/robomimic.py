"""robomimic's HDF5 files (read): one group per demonstration, dict observations, and filters that name subsets of the demonstrations.

The last row of `next_obs` is the observation a demonstration ended in. Filters are kept as `metadata["splits"]` (episode numbers by
name); `read(path, filters=("train", "valid"))` gives one source per filter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from polyact.data.episodes import Episodes, concatenate
from polyact.data.formats import hdf5
from polyact.data.formats.columns import check_flag, check_vector, from_steps
from polyact.data.formats.common import PathLike, naming, parse_json, split_source
from polyact.data.source import Source
from polyact.errors import DataError

NAME = "robomimic"
_OWN = {"actions", "rewards", "dones", "obs", "next_obs"}


def detect(path: PathLike) -> bool:
    """An HDF5 file whose group `data` holds demonstrations."""
    if Path(path).suffix not in hdf5.SUFFIXES:
        return False
    with hdf5.opened(path) as file:
        data = hdf5.subgroup(file, "data")
        return data is not None and any(name.startswith("demo_") for name in hdf5.names(data))


def read(path: PathLike, filters: Sequence[str] = ()) -> list[Source]:
    """One source with every demonstration, or one per filter. Raises DataError that names file, demonstration and field."""
    with hdf5.opened(path) as file:
        data = hdf5.subgroup(file, "data")
        if data is None:
            raise DataError(f"{path}: group 'data' is missing; found: {', '.join(hdf5.names(file)) or 'nothing'}")
        demos = sorted((name for name in hdf5.names(data) if re.fullmatch(r"demo_\d+", name)), key=lambda name: int(name[5:]))
        if not demos:
            raise DataError(f"{path}: group 'data' holds no demonstrations (demo_0, demo_1, ...)")
        parts = [_demo(path, data, name) for name in demos]
        splits = _splits(path, file, demos)
        env = parse_json(text, path, "attribute 'env_args' of 'data'") if (text := hdf5.attribute(data, "env_args")) else {}
    with naming(path):
        episodes = concatenate([episodes for episodes, _ in parts])
        metadata = {key: value for _, facts in parts for key, value in facts.items()}
        metadata |= {key: value for key, value in (("env_args", env), ("splits", splits)) if value}
        source = Source(episodes, Path(path).stem, control_hz=_control_hz(env), metadata=metadata)
    return [split_source(source, name) for name in filters] or [source]


def _demo(path: PathLike, data: h5py.Group, name: str) -> tuple[Episodes, dict[str, Any]]:
    demo = hdf5.subgroup(data, name)
    if demo is None:
        raise DataError(f"{path}: 'data/{name}' should be a group")
    action = hdf5.array(path, demo, "actions")
    steps = len(action) if action.ndim else 0
    promised = hdf5.attribute(demo, "num_samples")
    if steps < 1 or (promised is not None and promised != steps):
        raise DataError(f"{path}: data/{name}/actions has {steps} rows, its num_samples is {promised}")
    columns: dict[str, Any] = {"action": action}
    metadata: dict[str, Any] = {}
    if "rewards" in demo:
        columns["reward"] = check_vector(path, f"data/{name}/rewards", hdf5.array(path, demo, "rewards"))
    if "dones" in demo:
        columns["terminated"] = check_flag(path, f"data/{name}/dones", hdf5.array(path, demo, "dones"))
    info = {key: value for key, value in _others(path, demo).items() if value.ndim and len(value) == steps}
    if "obs" in demo:
        columns["observation"] = _group(path, demo, "obs")
    elif "states" in info:
        columns["observation"] = info.pop("states")
        metadata["observation"] = "simulator states (the file has no obs)"
    following = _group(path, demo, "next_obs") if "next_obs" in demo and "obs" in demo else None
    episodes, more = from_steps(f"{path}: data/{name}", columns | {"info": info}, np.array([steps]), following)
    return episodes, metadata | more


def _group(path: PathLike, demo: h5py.Group, name: str) -> dict[str, Any]:
    group = hdf5.subgroup(demo, name)
    if group is None or not len(group):
        raise DataError(f"{path}: '{demo.name}/{name}' should be a group of observations")
    return hdf5.tree(path, group)


def _others(path: PathLike, demo: h5py.Group) -> dict[str, np.ndarray]:
    names = [name for name in hdf5.names(demo) if name not in _OWN and hdf5.subgroup(demo, name) is None]
    return {name: hdf5.array(path, demo, name) for name in names}


def _splits(path: PathLike, file: h5py.File, demos: list[str]) -> dict[str, list[int]]:
    mask = hdf5.subgroup(file, "mask")
    if mask is None:
        return {}
    numbers, splits = {name: i for i, name in enumerate(demos)}, {}
    for name in hdf5.names(mask):
        members = hdf5.array(path, mask, name).reshape(-1)
        members = [m.decode("utf-8", "replace") if isinstance(m, bytes) else m for m in members.tolist()]
        strange = [member for member in members if member not in numbers]
        if strange:
            raise DataError(f"{path}: mask/{name} names {strange[0]!r}, which is not among the {len(demos)} demonstrations")
        splits[name] = [numbers[member] for member in members]
    return splits


def _control_hz(env: dict[str, Any]) -> float | None:
    arguments = env.get("env_kwargs")
    rate = arguments.get("control_freq") if isinstance(arguments, dict) else None
    return float(rate) if isinstance(rate, int | float) and rate > 0 else None
