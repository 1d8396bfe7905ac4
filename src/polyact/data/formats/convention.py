"""Tables that others wrote, read by the names their columns usually have: one row per step, some column that says where episodes end."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from polyact.data.episodes import Column
from polyact.data.formats.columns import breaks, check_flag, check_vector, from_steps, lengths_from_ends
from polyact.data.formats.common import PathLike
from polyact.data.source import Source
from polyact.errors import DataError

NAMES = {
    "observation": ("observation", "observations", "obs", "state", "states"),
    "following": ("next_observation", "next_observations", "next_obs", "next_state", "next_states"),
    "action": ("action", "actions", "acts"),
    "goal": ("goal", "goals", "desired_goal"),
    "reward": ("reward", "rewards", "rews", "next.reward"),
    "cost": ("cost", "costs"),
    "return_to_go": ("return_to_go", "returns_to_go"),
    "log_prob": ("log_prob", "log_probs", "logprob", "action_log_probs"),
    "text": ("text", "instruction", "instructions", "language_instruction", "task"),
    "terminated": ("terminated", "terminations", "terminals", "terminal"),
    "done": ("done", "dones", "next.done"),
    "truncated": ("truncated", "truncations", "timeouts", "timeout", "next.truncated"),
    "episode": ("episode_index", "episode_id", "episode", "trajectory_id", "traj_id", "trajectory"),
    "step": ("step_index", "frame_index", "step", "timestep", "t"),
}


def source_from_columns(path: PathLike, columns: Mapping[str, Column]) -> Source:
    """One source from columns by their usual names; columns of other names become info columns.

    A vector may be spread over columns (`state_0`, `state_1`, ...), a dict observation over `observation.<key>`. Episodes come
    from an episode column (rows are put in order) or from done flags. Raises DataError that lists the columns found.
    """
    found, rest = {}, dict(columns)
    for standard, names in NAMES.items():
        column, used = _find(rest, names)
        if used:
            found[standard] = column
            rest = {name: part for name, part in rest.items() if name not in used}
    names = ", ".join(sorted(columns)) or "none"
    if "observation" not in found:
        raise DataError(f"{path}: no column for the observation (like observation*, obs*, state*); found: {names}")
    if not found.keys() & {"episode", "terminated", "truncated", "done"}:
        raise DataError(f"{path}: no column says where episodes end (like episode_index, terminated, done); found: {names}")
    rows = _length(found[_longest(found)])
    odd = [key for key, part in found.items() if not _fits(part, rows)]
    if odd:
        raise DataError(f"{path}: column '{odd[0]}' has {_length(found[odd[0]])} rows, expected {rows} as in '{_longest(found)}'")
    info = {name: part for name, part in rest.items() if _length(part) == rows and _storable(part)}
    ignored = sorted(rest.keys() - info.keys())
    source = _assemble(path, found, info, rows)
    if ignored:
        source.metadata["ignored"] = ignored
    return source


def _assemble(path: PathLike, found: dict[str, Any], info: dict[str, Column], rows: int) -> Source:
    flags, warnings = _flags(path, found), []
    if "done" in found:
        warnings.append("'done' was read as terminated where the step is not truncated")
    following = found.get("following")
    columns = {key: found[key] for key in ("observation", "action", "goal", "text") if key in found}
    columns |= {key: check_vector(path, key, found[key]) for key in ("reward", "cost", "return_to_go", "log_prob") if key in found}
    columns |= flags | {"info": info}
    if "episode" in found:
        order, lengths = _by_episode(path, found, rows)
        columns = {key: _take(part, order) for key, part in columns.items()}
        following = None if following is None else _take(following, order)
    else:
        lengths = lengths_from_ends(np.logical_or.reduce(list(flags.values())))
        if following is not None:
            inside = breaks(columns["observation"], following)
            inside[np.cumsum(lengths) - 1] = False
            if inside.any():
                warnings.append(
                    f"the next observation of {int(inside.sum())} steps inside episodes is not the next row's observation"
                )
    episodes, metadata = from_steps(path, columns, lengths, following)
    if warnings:
        metadata["warnings"] = warnings
    return Source(episodes, Path(path).stem, metadata=metadata)


def _flags(path: PathLike, found: dict[str, Any]) -> dict[str, np.ndarray]:
    flags = {key: check_flag(path, key, found[key]) for key in ("terminated", "truncated", "done") if key in found}
    done = flags.pop("done", None)
    if done is not None and "terminated" not in flags:
        flags["terminated"] = done & ~flags["truncated"] if "truncated" in flags else done
    elif done is not None and "truncated" not in flags:
        flags["truncated"] = done & ~flags["terminated"]
    return flags


def _by_episode(path: PathLike, found: dict[str, Any], rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Order of the rows, and lengths of the episodes in the order of their first rows."""
    episode = found["episode"]
    if not isinstance(episode, np.ndarray) or episode.ndim != 1 or len(episode) != rows:
        raise DataError(f"{path}: the episode column should hold one number or string per row")
    _, first, inverse, counts = np.unique(episode, return_index=True, return_inverse=True, return_counts=True)
    rank = np.argsort(np.argsort(first))
    step = check_vector(path, "step", found["step"]) if "step" in found else np.zeros(rows)
    return np.lexsort((step, rank[inverse])), counts[np.argsort(first)]


def _find(columns: Mapping[str, Column], names: Iterable[str]) -> tuple[Column | None, list[str]]:
    """The column of the first name that exists, whole or spread, and the names it took."""
    for name in names:
        exact = [key for key in columns if key.lower() == name]
        if exact:
            return columns[exact[0]], exact[:1]
        numbered = {int(m[1]): key for key in columns if (m := re.fullmatch(re.escape(name) + r"[._/](\d+)", key.lower()))}
        vector = [part for i in sorted(numbered) if isinstance(part := columns[numbered[i]], np.ndarray) and part.ndim == 1]
        if vector and len(vector) == len(numbered) and len({len(part) for part in vector}) == 1:
            return np.stack(vector, 1), list(numbered.values())
        parts = [key for key in columns if re.match(re.escape(name) + r"[./].", key.lower())]
        if parts:
            return {key[len(name) + 1 :]: columns[key] for key in parts}, parts
    return None, []


def _length(column: Column) -> int:
    while isinstance(column, dict):
        column = next(iter(column.values()), np.zeros(0))
    return len(column) if np.ndim(column) else -1


def _longest(found: Mapping[str, Column]) -> str:
    return max(found, key=lambda key: _length(found[key]))


def _fits(column: Column, rows: int) -> bool:
    return all(_fits(part, rows) for part in column.values()) if isinstance(column, dict) else _length(column) == rows


def _storable(column: Column) -> bool:
    if isinstance(column, dict):
        return all(map(_storable, column.values()))
    return column.dtype.kind in "biufOU"


def _take(column: Column, order: np.ndarray) -> Column:
    return {key: _take(part, order) for key, part in column.items()} if isinstance(column, dict) else column[order]
