"""How much of an action space a data set has visited."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from polyact import spaces
from polyact.data.episodes import Column
from polyact.spaces import Space

BINS = 10  # per dimension
_NEAR = 1e-3  # what counts as at a bound, as a share of the range
_CLASSES = 4096  # up to so many are counted one by one
_LOOKED_AT = 1_000_000  # continuous actions, evenly spaced over the data


@dataclass(frozen=True)
class ActionCoverage:
    """Coverage of one part of the action.

    visited: share of the actions (discrete), or of the cells of a grid with 10 bins per dimension over the two dimensions that vary
    most (continuous), that occur. per_dimension: share of the 10 bins (or of the classes) that occur, for each dimension. entropy:
    of those frequencies relative to uniform, averaged over dimensions, in [0, 1]. at_bounds: share of the numbers that lie at a
    bound; None where there are none. counts: how often each action occurs (discrete, at most 4096 actions; else empty). relative_to:
    what the grid spans: the space or, where it is unbounded, the data (a space that was never stated is the range of the data).
    """

    part: str
    visited: float
    per_dimension: tuple[float, ...]
    entropy: float
    at_bounds: float | None
    counts: tuple[int, ...]
    relative_to: str


def coverage(action: Column, space: Space) -> tuple[ActionCoverage, ...]:
    """The coverage of every numeric part of an action column [N, ...] (one part unless the action is a dict).

    Of continuous actions at most about two million, evenly spaced, are looked at.
    """
    return tuple(_part(name, array, part) for name, array, part in _parts("action", action, space) if array.dtype.kind in "biuf")


def busiest(action: np.ndarray) -> np.ndarray:
    """The numbers of the (at most two) dimensions of a flat action [N, A] that vary most, in ascending order."""
    with np.errstate(over="ignore"):
        spread = action.std(0) if len(action) else np.zeros(action.shape[1])
    return np.sort(np.argsort(-spread, kind="stable")[:2])


def _parts(name: str, action: Column, space: Space) -> Iterator[tuple[str, np.ndarray, Space]]:
    if not isinstance(action, dict):
        yield name, action, space
        return
    inner = space.spaces if isinstance(space, spaces.Dict) else {}
    for key, part in action.items():
        if key in inner:
            yield from _parts(f"{name}/{key}", part, inner[key])


def _part(name: str, action: np.ndarray, space: Space) -> ActionCoverage:
    match space:
        case spaces.Discrete():
            return _discrete(name, action[:, None] - space.start, np.array([space.n]))
        case spaces.MultiDiscrete():
            return _discrete(name, action, np.asarray(space.nvec))
        case spaces.MultiBinary():
            return _discrete(name, action.astype(np.int64), np.full(space.n, 2))
    action = action[:: max(1, len(action) // _LOOKED_AT)]
    return _continuous(name, action.reshape(len(action), math.prod(action.shape[1:])).astype(np.float64), space)


def _discrete(name: str, action: np.ndarray, sizes: np.ndarray) -> ActionCoverage:
    columns = [
        np.unique(np.clip(column, 0, n - 1), return_counts=True) for column, n in zip(action.T.astype(np.int64), sizes, strict=True)
    ]
    seen = tuple(len(classes) / int(n) for (classes, _), n in zip(columns, sizes, strict=True))
    entropy = _entropy([counts for _, counts in columns], sizes)
    single = _every_class(*columns[0], int(sizes[0])) if len(columns) == 1 else ()
    return ActionCoverage(name, float(np.mean(seen)), seen, entropy, None, single, "space")


def _every_class(classes: np.ndarray, counts: np.ndarray, n: int) -> tuple[int, ...]:
    """How often each of n classes occurs; nothing where they are too many to be told one by one (token or item numbers)."""
    if n > _CLASSES:
        return ()
    every = np.zeros(n, np.int64)
    every[classes] = counts
    return tuple(every.tolist())


def _continuous(name: str, action: np.ndarray, space: Space) -> ActionCoverage:
    action = action[np.isfinite(action).all(1)]
    bounded = isinstance(space, spaces.Box) and space.bounded
    if not len(action) or not action.shape[1]:
        return ActionCoverage(name, 0.0, (0.0,) * action.shape[1], 0.0, None, (), "space" if bounded else "data")
    if isinstance(space, spaces.Box) and bounded:
        low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in (space.low, space.high))
    else:
        low, high = action.min(0), action.max(0)
    size = np.where(high > low, high - low, 1.0)
    place = (action - low) / size
    cells = np.clip((place * BINS).astype(np.int64), 0, BINS - 1)
    counts = [np.bincount(column, minlength=BINS) for column in cells.T]
    pair = cells[:, busiest(action)]
    visited = len(np.unique(pair, axis=0)) / BINS ** pair.shape[1]
    at_bounds = float(np.mean((place <= _NEAR) | (place >= 1 - _NEAR))) if bounded else None
    seen = tuple(float(np.mean(count > 0)) for count in counts)
    return ActionCoverage(
        name, visited, seen, _entropy(counts, [BINS] * len(counts)), at_bounds, (), "space" if bounded else "data"
    )


def _entropy(counts: Sequence[np.ndarray], sizes: Sequence[int] | np.ndarray) -> float:
    """Entropy of the classes that occur relative to the uniform one over all, averaged over dimensions; 1 for a single class."""
    shares = []
    for count, size in zip(counts, sizes, strict=True):
        p = count[count > 0] / max(1, count.sum())
        shares.append(float(-(p * np.log(p)).sum() / np.log(size)) if size > 1 else 1.0)
    return float(np.mean(shares)) if shares else 0.0
