"""D4RL's HDF5 files (read): flat arrays with one row per step, `terminals` and `timeouts` at the ends.

`infos/*` become info columns (`infos/action_log_probs` the log-probabilities), `metadata/*` metadata. A file without `timeouts` has
its episodes cut where `next_observations` jump, or, without those, at terminals only, which the metadata says. D4RL's tasks take
actions in [-1, 1], so that is the action space where the data fit it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from polyact.data.formats import hdf5
from polyact.data.formats.columns import breaks, check_finite, check_flag, check_vector, from_steps, lengths_from_ends, unit_box
from polyact.data.formats.common import PathLike
from polyact.data.source import Source
from polyact.errors import DataError

NAME = "d4rl"
_LARGEST_METADATA = 1000  # numbers; D4RL stores the weights of the behaviour policy among its metadata


def detect(path: PathLike) -> bool:
    """An HDF5 file with observations, actions and terminals at its root."""
    return Path(path).suffix in hdf5.SUFFIXES and hdf5.keys(path) >= {"observations", "actions", "terminals"}


def read(path: PathLike) -> list[Source]:
    """The source in the file. Raises DataError that names file, field and row."""
    with hdf5.opened(path) as file:
        fields = hdf5.tree(path, file)
    infos, facts = (fields.pop(name, {}) for name in ("infos", "metadata"))
    if not isinstance(infos, dict) or not isinstance(facts, dict):
        raise DataError(f"{path}: 'infos' and 'metadata' should be groups")
    for name in ("observations", "actions", "terminals"):
        if not isinstance(fields.get(name), np.ndarray):
            raise DataError(f"{path}: needs a data set '{name}'")
    terminated = check_flag(path, "terminals", fields["terminals"])
    columns: dict[str, Any] = {"observation": fields["observations"], "action": fields["actions"], "terminated": terminated}
    if "rewards" in fields:
        columns["reward"] = check_vector(path, "rewards", fields["rewards"])
    infos, left = _infos(infos, len(terminated))
    facts = _facts(facts)
    log_prob = infos.pop("action_log_probs", None)
    if isinstance(log_prob, np.ndarray):
        columns["log_prob"] = check_vector(path, "infos/action_log_probs", log_prob)
    following = fields.get("next_observations")
    ends, warnings = _ends(path, fields, terminated, following)
    if "timeouts" in fields:
        columns["truncated"] = check_flag(path, "timeouts", fields["timeouts"])
    episodes, metadata = from_steps(path, columns | {"info": infos}, lengths_from_ends(ends), following)
    metadata |= {key: value for key, value in (("warnings", warnings), ("ignored", left), ("d4rl", facts)) if value}
    behaviour, space = str(facts.get("algorithm", "")), unit_box(fields["actions"])
    return [Source(episodes, Path(path).stem, action_space=space, behaviour=behaviour, metadata=metadata)]


def _ends(path: PathLike, fields: dict[str, Any], terminated: np.ndarray, following: Any) -> tuple[np.ndarray, list[str]]:
    observation = fields["observations"]
    jumps = None
    if isinstance(following, np.ndarray):
        if following.shape != observation.shape or len(observation) != len(terminated):
            shapes = f"{following.shape}, {observation.shape} and {terminated.shape}"
            raise DataError(f"{path}: next_observations, observations and terminals do not fit together: {shapes}")
        check_finite(path, "next_observations", following)
        jumps = breaks(observation, following)
    if "timeouts" in fields:
        timeouts = check_flag(path, "timeouts", fields["timeouts"])
        if timeouts.shape != terminated.shape:
            raise DataError(f"{path}: timeouts has {len(timeouts)} rows, terminals {len(terminated)}")
        ends = terminated | timeouts
        inside = 0 if jumps is None else int((jumps & ~ends)[:-1].sum())
        odd = [f"the next observation of {inside} steps inside episodes is not the next row's observation"]
        return ends, odd if inside else []
    if jumps is not None:
        return terminated | jumps, ["no timeouts: episodes are cut at terminals and where next_observations jump"]
    return terminated, ["no timeouts: episodes that were cut by time run on into the next one until a terminal"]


def _infos(infos: dict[str, Any], rows: int) -> tuple[dict[str, Any], list[str]]:
    """The info columns that have a row per step, and the names of the others."""
    flat = dict(_leaves(infos))
    kept = {name: value for name, value in flat.items() if value.ndim and len(value) == rows and value.dtype.kind in "biufO"}
    return kept, sorted(f"infos/{name}" for name in flat.keys() - kept.keys())


def _facts(metadata: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.tolist() for name, value in _leaves(metadata) if value.size <= _LARGEST_METADATA and value.dtype.kind in "biufO"
    }


def _leaves(nested: dict[str, Any], prefix: str = "") -> list[tuple[str, np.ndarray]]:
    out = []
    for name, value in nested.items():
        out += _leaves(value, f"{prefix}{name}/") if isinstance(value, dict) else [(prefix + name, value)]
    return out
