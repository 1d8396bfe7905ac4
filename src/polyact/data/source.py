"""A source is episodes with a name, their spaces and where they come from; a mixture is weighted sources.

The sources of a mixture may differ in everything: spaces, embodiment, quality, even in which columns exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from polyact import spaces
from polyact.data.episodes import Column, Episodes
from polyact.errors import DataError
from polyact.spaces import Space


@dataclass(frozen=True)
class Source:
    """Episodes of one behaviour and one body.

    behaviour: what acted (policy name, operator). embodiment and control_mode: whose observations and actions these are; the
    normalisation statistics belong to that pair. control_hz: control rate in Hz, None when unknown. metadata: further JSON values.
    Spaces that are not given are inferred from the columns (bounds from the data).
    """

    episodes: Episodes
    name: str = "data"
    observation_space: Space | None = None
    action_space: Space | None = None
    behaviour: str = ""
    embodiment: str = "default"
    control_mode: str = "default"
    control_hz: float | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        for column, space in (("observation", "observation_space"), ("action", "action_space")):
            data = getattr(self.episodes, column)
            if data is None:
                continue
            if getattr(self, space) is None:
                object.__setattr__(self, space, infer_space(data))
            check_column(self.name, column, data, getattr(self, space))

    @property
    def body(self) -> tuple[str, str]:
        """(embodiment, control mode)."""
        return self.embodiment, self.control_mode

    def with_episodes(self, episodes: Episodes, name: str | None = None) -> Source:
        """The same source with other episodes."""
        return replace(self, episodes=episodes, name=name or self.name)


@dataclass(frozen=True)
class Mixture:
    """Sources with weights: the share of each source in a batch. Default: in proportion to their steps."""

    sources: tuple[Source, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "sources", tuple(self.sources))
        if not self.sources:
            raise DataError("a mixture needs at least one source")
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise DataError(f"the sources of a mixture need different names, got {', '.join(names)}")
        weights = self.weights or tuple(float(source.episodes.steps) for source in self.sources)
        if len(weights) != len(self.sources) or min(weights) < 0 or not 0 < sum(weights) < float("inf"):
            raise DataError(f"{len(self.sources)} sources need as many non-negative weights, got {weights}")
        object.__setattr__(self, "weights", tuple(w / sum(weights) for w in weights))


Data = Episodes | Source | Mixture | Sequence[Source]


def as_mixture(data: Data) -> Mixture:
    """Anything that holds experience, as a mixture."""
    match data:
        case Mixture():
            return data
        case Source():
            return Mixture((data,))
        case Episodes():
            return Mixture((Source(data),))
    return Mixture(tuple(data))


def infer_space(column: Column) -> Space:
    """The tightest space for a column: Discrete for integer vectors, Box with the data's bounds for numbers."""
    if isinstance(column, dict):
        return spaces.Dict({name: infer_space(part) for name, part in column.items()})
    if column.dtype.kind in "iu" and column.ndim == 1:
        start = int(column.min(initial=0))
        return spaces.Discrete(int(column.max(initial=0)) - start + 1, start)
    if column.dtype.kind in "OUS":
        return spaces.Text(max((len(text) for text in column), default=0))
    if column.dtype == np.uint8:
        return spaces.Box(0, 255, column.shape[1:], np.uint8)
    low, high = _bounds(column)
    return spaces.Box(low, high, column.shape[1:], column.dtype)


def _bounds(column: np.ndarray) -> tuple[Any, Any]:
    if len(column):
        return tuple(np.nan_to_num(bound(axis=0), nan=0.0) for bound in (column.min, column.max))  # pyright: ignore[reportReturnType]
    if column.dtype.kind == "f":
        return -np.inf, np.inf
    if column.dtype.kind in "iu":
        return np.iinfo(column.dtype).min, np.iinfo(column.dtype).max
    return False, True


def check_column(source: str, name: str, column: Column, space: Space) -> None:
    """Raise DataError unless the column's rows have the shape of the space."""
    if isinstance(space, spaces.Dict):
        if not isinstance(column, dict) or column.keys() != space.spaces.keys():
            found = sorted(column) if isinstance(column, dict) else "one array"
            raise DataError(f"source '{source}': {name} has {found}, its space has {sorted(space.spaces)}")
        for key, part in space.items:
            check_column(source, f"{name}/{key}", column[key], part)
    elif isinstance(space, spaces.Text | spaces.Tuple) or isinstance(column, dict):
        return
    elif column.shape[1:] != space.shape:  # pyright: ignore[reportAttributeAccessIssue]
        raise DataError(f"source '{source}': {name} rows have shape {column.shape[1:]}, its space has {space}")
