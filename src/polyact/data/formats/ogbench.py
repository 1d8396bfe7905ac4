"""OGBench's NPZ files (read), with the `-val.npz` twin as a second source.

`terminals` marks the end of a trajectory, not of the task: it becomes `truncated`. `masks` (0: nothing of value follows) becomes
`terminated`; play data has no rewards and no masks, so there both are missing. In the files as distributed each trajectory has one
extra row that holds the last state; single-task sets saved after relabelling have `next_observations` (or `valids`) instead.
`qpos`, `qvel`, `button_states` and the like become info columns. OGBench's tasks take actions in [-1, 1], so that is the action
space where the data fit it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from polyact.data.episodes import Episodes
from polyact.data.formats.columns import check_finite, check_flag, check_vector, from_steps, lengths_from_ends, unit_box
from polyact.data.formats.common import PathLike, naming
from polyact.data.formats.npz import entry_names, load_arrays
from polyact.data.source import Source
from polyact.errors import DataError

NAME = "ogbench"
_OURS = {"header", "lengths", "timeouts", "truncated", "truncations"}
_STANDARD = {"observations", "actions", "terminals", "rewards", "masks", "next_observations", "valids"}


def detect(path: PathLike) -> bool:
    """An NPZ file with observations, actions and terminals, and nothing that marks timeouts."""
    names = entry_names(path) if Path(path).suffix == ".npz" else set()
    return names >= {"observations", "actions", "terminals"} and not names & _OURS


def read(path: PathLike) -> list[Source]:
    """The source in the file and, when `<name>-val.npz` is there, the one in its twin."""
    path = Path(path)
    twin = path.with_name(f"{path.stem}-val.npz")
    return [_read_one(path), *([_read_one(twin)] if twin.exists() else [])]


def _read_one(path: Path) -> Source:
    arrays = load_arrays(path)
    for name in ("observations", "actions", "terminals"):
        if name not in arrays:
            raise DataError(f"{path}: array '{name}' is missing; found: {', '.join(sorted(arrays))}")
    rows = len(arrays["terminals"]) if arrays["terminals"].ndim else 0
    odd = [name for name, array in arrays.items() if array.ndim < 1 or len(array) != rows]
    if odd:
        raise DataError(f"{path}: array '{odd[0]}' has shape {arrays[odd[0]].shape}, expected {rows} rows like terminals")
    end = check_flag(path, "terminals", arrays["terminals"])
    if "next_observations" in arrays:
        episodes, metadata = _with_next(path, arrays, end)
    else:
        if "valids" in arrays:
            end = ~check_flag(path, "valids", arrays["valids"])
        episodes, metadata = _with_extra_rows(path, arrays, end)
    metadata |= {"terminals": "end of a trajectory"}
    metadata |= {"split": "val"} if path.stem.endswith("-val") else {}
    with naming(path):
        space = unit_box(arrays["actions"])
        return Source(episodes, path.stem, action_space=space, metadata={**metadata, "origin": {"path": str(path)}})


def _with_next(path: Path, arrays: dict[str, np.ndarray], end: np.ndarray) -> tuple[Episodes, dict[str, Any]]:
    columns = _columns(path, arrays, np.ones(len(end), bool), end)
    columns["observation"] = arrays["observations"]
    return from_steps(path, columns, lengths_from_ends(end), arrays["next_observations"])


def _with_extra_rows(path: Path, arrays: dict[str, np.ndarray], extra: np.ndarray) -> tuple[Episodes, dict[str, Any]]:
    """extra: the rows that hold only the last state of their trajectory."""
    if not len(extra) or not extra[-1]:
        raise DataError(f"{path}: the last row should end a trajectory (terminals 1)")
    lengths = np.diff(np.flatnonzero(extra), prepend=-1) - 1
    if np.any(lengths < 1):
        row = int(np.flatnonzero(extra)[np.argmin(lengths)])
        raise DataError(f"{path}: the trajectory that ends in row {row} has no step, only a last state")
    final = np.zeros(int(lengths.sum()), bool)
    final[np.cumsum(lengths) - 1] = True
    columns = _columns(path, arrays, ~extra, final)
    _, metadata = from_steps(path, columns, lengths)
    check_finite(path, "observations", arrays["observations"])
    with naming(path):
        return Episodes(lengths, observation=arrays["observations"], **columns), metadata


def _columns(path: Path, arrays: dict[str, np.ndarray], rows: np.ndarray, end: np.ndarray) -> dict[str, Any]:
    columns: dict[str, Any] = {"action": arrays["actions"][rows], "truncated": end}
    if "rewards" in arrays:
        columns["reward"] = check_vector(path, "rewards", arrays["rewards"])[rows]
    if "masks" in arrays:
        columns["terminated"] = ~check_flag(path, "masks", arrays["masks"])[rows]
        columns["truncated"] = end & ~columns["terminated"]
    columns["info"] = {name: array[rows] for name, array in arrays.items() if name not in _STANDARD}
    return columns
