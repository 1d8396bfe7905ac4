"""LeRobot's features by name as columns of Episodes, and back.

`observation.state` alone becomes the observation, as one array; beside other `observation.*` features it is the part "state" of a
dictionary. `action` (or a dictionary of `action.*`), `next.reward`, `next.truncated` and `next.cost` become the columns of these names.
`next.done` is true at every end: together with `next.truncated` the steps that were not truncated are terminated; with `next.success`
alone those that succeeded are; alone it is taken for termination. Features without a place become info.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from polyact.data.formats.columns import check_flag, check_vector, escape, unescape
from polyact.data.formats.common import PathLike
from polyact.data.formats.lerobot_meta import INDEX

OBSERVATION = "observation."
STATE = "observation.state"
_VECTORS = {"next.reward": "reward", "reward": "reward", "next.cost": "cost"}
_FLAGS = {"next.terminated": "terminated", "next.truncated": "truncated"}
_NEXT = {"reward": "next.reward", "cost": "next.cost", **{column: feature for feature, column in _FLAGS.items()}}


def to_columns(path: PathLike, features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Features [N, *shape] as columns by path ('observation/images.top', 'reward', 'info/next.success'), rows as LeRobot has them."""
    flat: dict[str, np.ndarray] = {}
    seen = [name for name in features if name.startswith(OBSERVATION)]
    for name, column in features.items():
        target = _target(name, seen, features.keys())
        if target in ("reward", "cost") and target not in flat:
            flat[target] = check_vector(path, name, column)
        elif target in ("terminated", "truncated", "done") or (target == "info/success" and column.dtype == bool):
            flat[target] = check_flag(path, name, column)
        else:
            scalar = target.startswith("info/") and column.shape[1:] == (1,)
            flat[target] = column[:, 0] if scalar else column
    done = flat.pop("done", None)
    if done is not None and "terminated" not in flat:
        success = flat.get("info/success")
        if "truncated" not in flat and success is not None and success.dtype == bool:
            flat["truncated"] = done & ~success
        flat["terminated"] = done & ~flat["truncated"] if "truncated" in flat else done
    return flat


def feature_names(flat: Iterable[str], images: set[str], known: dict[str, Any]) -> dict[str, str]:
    """A feature name for each column by path. images: those that hold pictures. known: features the data came with."""
    names: dict[str, str] = {}
    for path in flat:
        first, *rest = path.split("/")
        key = ".".join(unescape(part) for part in rest)
        if first == "info":
            proposed = "next.success" if key == "success" else key if key in known else f"info.{key}"
        elif first == "observation":
            proposed = f"{OBSERVATION}{key or ('image' if path in images else 'state')}"
        else:
            proposed = _NEXT.get(first, f"{first}.{key}" if key else first)
        proposed = proposed.replace("/", ".")
        name, number = proposed, 2
        while name in names.values() or name in (*INDEX, "next.done"):
            name, number = f"{proposed}-{number}", number + 1
        names[path] = name
    return names


def _target(name: str, seen: list[str], features: Iterable[str]) -> str:
    if name in seen:
        return "observation" if seen == [STATE] else f"observation/{escape(name.removeprefix(OBSERVATION))}"
    if name == "action" or (name.startswith("action.") and "action" not in features):
        return "action" if name == "action" else f"action/{escape(name.removeprefix('action.'))}"
    if name in ("next.done", "done"):
        return "done"
    if name == "next.success":
        return "info/success"
    return _VECTORS.get(name) or _FLAGS.get(name) or f"info/{escape(name)}"
