"""Episodes: what acting leaves behind, as flat columns plus episode boundaries.

Every step column has one row per step. `observation` has one row more per episode, because the observation an episode ends in is
data too: the row of step i of episode e is i + e. A column that was never recorded is None, which is different from zeros.
Columns are NumPy arrays and may be memory maps; nothing here copies them unless it must.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from polyact.errors import DataError, unknown

Column = np.ndarray | dict[str, Any]

SCALARS = ("reward", "terminated", "truncated", "cost", "return_to_go", "log_prob", "text")  # one value per step
STEP_COLUMNS = ("action", "reward", "terminated", "truncated", "cost", "return_to_go", "log_prob", "goal", "text")


@dataclass(frozen=True)
class Episodes:
    """Whole episodes of N steps in total, E in number.

    lengths [E]: steps of each episode. observation [N + E, ...] (an array, or a dict of arrays). action [N, ...], reward [N],
    terminated [N] (the task ended: no bootstrap), truncated [N] (recording was cut), cost [N], return_to_go [N], log_prob [N] (of
    the behaviour policy), goal [N, ...], text [N] (strings), info: further step columns by name, each [N, ...].
    Flags given as zeros and ones become booleans. Raises DataError when a column's rows do not fit the boundaries, when a column of
    one value per step has more axes, or a flag other values.
    """

    lengths: np.ndarray
    observation: Column | None = None
    action: Column | None = None
    reward: np.ndarray | None = None
    terminated: np.ndarray | None = None
    truncated: np.ndarray | None = None
    cost: np.ndarray | None = None
    return_to_go: np.ndarray | None = None
    log_prob: np.ndarray | None = None
    goal: Column | None = None
    text: np.ndarray | None = None
    info: dict[str, Column] = field(default_factory=dict)

    def __post_init__(self):
        lengths = np.asarray(self.lengths)
        if lengths.ndim != 1 or (lengths.size and lengths.dtype.kind not in "iu") or np.any(lengths < 1):
            raise DataError(f"episode lengths must be a vector of positive integers, got {lengths.dtype} of shape {lengths.shape}")
        object.__setattr__(self, "lengths", lengths.astype(np.int64))
        for name, column, rows in self.columns():
            for path, array in leaves(column, name):
                if np.ndim(array) < 1 or len(array) != rows:
                    raise DataError(
                        f"column '{path}' has shape {np.shape(array)}, expected {rows} rows "
                        f"({self.steps} steps, {self.count} episodes)"
                    )
                if name in SCALARS and np.ndim(array) != 1:
                    raise DataError(f"column '{name}' has shape {np.shape(array)}, expected one value per step ({rows},)")
        for name in ("terminated", "truncated"):
            flag = getattr(self, name)
            if flag is not None and flag.dtype != bool:
                object.__setattr__(self, name, _flag(name, np.asarray(flag)))

    @property
    def count(self) -> int:
        """Number of episodes."""
        return len(self.lengths)

    @property
    def steps(self) -> int:
        """Number of steps over all episodes."""
        return int(self.lengths.sum())

    def __len__(self) -> int:
        return self.count

    @property
    def starts(self) -> np.ndarray:
        """First step row of each episode [E]."""
        return np.cumsum(self.lengths) - self.lengths

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the standard columns that were never recorded."""
        return tuple(n for n in ("observation", *STEP_COLUMNS) if getattr(self, n) is None)

    @property
    def returns(self) -> np.ndarray:
        """Sum of rewards of each episode [E], in float64. Raises DataError when rewards are missing."""
        if self.reward is None:
            raise DataError("these episodes have no rewards, so they have no returns")
        return np.add.reduceat(np.asarray(self.reward, np.float64), self.starts) if self.count else np.zeros(0)

    def episode(self, index: int) -> Episodes:
        """One episode, as Episodes of count 1."""
        return self.select([index])

    def select(self, index: Sequence[int] | np.ndarray) -> Episodes:
        """The episodes with these numbers (from the end when negative), in this order, or those where a mask [E] is true.

        Raises DataError for numbers that no episode has.
        """
        index = np.asarray(index)
        try:
            index = np.arange(self.count)[index if index.size else index.astype(np.int64)]
        except IndexError as error:
            raise DataError(f"no such episodes among {self.count}: {error}") from error
        steps = _ranges(self.starts[index], self.lengths[index])
        rows = _ranges(self.starts[index] + index, self.lengths[index] + 1)
        return self._map(lambda name, array: array[rows if name == "observation" else steps], self.lengths[index])

    def without(self, *names: str) -> Episodes:
        """The same episodes with standard columns removed (they become missing). Raises PolyactError for unknown names."""
        for name in names:
            if name not in ("observation", *STEP_COLUMNS):
                raise unknown("column", name, ("observation", *STEP_COLUMNS))
        return replace(self, **dict.fromkeys(names))

    def columns(self) -> Iterable[tuple[str, Column, int]]:
        """(name, column, rows) of every column that exists; info columns are named 'info/NAME'."""
        for name in ("observation", *STEP_COLUMNS):
            column = getattr(self, name)
            if column is not None:
                yield name, column, self.steps + self.count * (name == "observation")
        for name, column in self.info.items():
            yield f"info/{name}", column, self.steps

    def _map(self, function: Callable[[str, Any], Any], lengths: np.ndarray) -> Episodes:
        columns = {name: _apply(column, lambda a, n=name: function(n, a)) for name, column, _ in self.columns()}
        info = {name[5:]: columns.pop(name) for name in list(columns) if name.startswith("info/")}
        return Episodes(lengths=lengths, info=info, **columns)


def concatenate(parts: Sequence[Episodes]) -> Episodes:
    """Episodes one after the other. A column is kept only where every part has it."""
    if not parts:
        raise DataError("nothing to concatenate")
    shared = [{name for name, _, _ in part.columns()} for part in parts]
    keep = set.intersection(*shared)
    columns: dict[str, Any] = {}
    for name, _, _ in parts[0].columns():
        if name in keep:
            columns[name] = _join([_get(part, name) for part in parts])
    info = {name[5:]: columns.pop(name) for name in list(columns) if name.startswith("info/")}
    return Episodes(lengths=np.concatenate([part.lengths for part in parts]), info=info, **columns)


def empty_like(episodes: Episodes) -> Episodes:
    """No episodes, with the same columns."""
    return episodes.select(np.zeros(0, np.int64))


def _flag(name: str, column: np.ndarray) -> np.ndarray:
    if column.dtype.kind not in "iuf" or not np.isin(column, (0, 1)).all():
        raise DataError(f"column '{name}' ({column.dtype}) should hold only false and true (or 0 and 1)")
    return column != 0


def _get(episodes: Episodes, name: str) -> Any:
    return episodes.info[name[5:]] if name.startswith("info/") else getattr(episodes, name)


def _join(columns: list[Any]) -> Any:
    if isinstance(columns[0], dict):
        if any(not isinstance(column, dict) or column.keys() != columns[0].keys() for column in columns):
            raise DataError(f"columns to concatenate have different parts; the first has {', '.join(columns[0])}")
        return {key: _join([column[key] for column in columns]) for key in columns[0]}
    return np.concatenate(columns)


def _apply(column: Column, function: Callable[[Any], Any]) -> Any:
    if isinstance(column, dict):
        return {key: _apply(part, function) for key, part in column.items()}
    return function(column)


def leaves(column: Column, path: str) -> Iterable[tuple[str, Any]]:
    """(path, array) of every array in a column."""
    if isinstance(column, dict):
        for key, part in column.items():
            yield from leaves(part, f"{path}/{key}")
    else:
        yield path, column


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    total = int(lengths.sum())
    offsets = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.arange(total) - offsets + np.repeat(starts, lengths)


FIELDS = tuple(f.name for f in fields(Episodes))
