"""One vector from an observation with several parts, for learners that want a vector."""

from dataclasses import replace
from typing import Any

import numpy as np

from polyact import spaces
from polyact.data.episodes import Column
from polyact.data.source import Source
from polyact.errors import DataError
from polyact.spaces import Space


def flatten(source: Source, keys: tuple[str, ...] | None = None) -> Source:
    """The same source with its dictionary observation joined into one vector, parts in the order of `keys` (default: all).

    Raises DataError when a key does not exist. Where each part went is kept in metadata["observation_parts"].
    """
    observation, space = source.episodes.observation, source.observation_space
    if not isinstance(observation, dict) or not isinstance(space, spaces.Dict):
        return source
    missing = [key for key in keys or () if key not in observation]
    if missing:
        raise DataError(f"source '{source.name}' has no observation {', '.join(missing)} (it has {', '.join(observation)})")
    parts = [_vectors(observation[key], space.spaces[key]) for key in keys or observation]
    widths = {key: part[0].shape[1] for key, part in zip(keys or observation, parts, strict=True)}
    joined = np.concatenate([column for column, _, _ in parts], axis=1)
    box = spaces.Box(np.concatenate([low for _, low, _ in parts]), np.concatenate([high for _, _, high in parts]))
    return replace(
        source,
        episodes=replace(source.episodes, observation=joined),
        observation_space=box,
        metadata=source.metadata | {"observation_parts": widths},
    )


def _vectors(column: Column, space: Space) -> tuple[np.ndarray, Any, Any]:
    if isinstance(column, dict) and isinstance(space, spaces.Dict):
        parts = [_vectors(column[name], part) for name, part in space.items]
        return tuple(np.concatenate(arrays, axis=-1) for arrays in zip(*parts, strict=True))  # pyright: ignore[reportReturnType]
    if isinstance(space, spaces.Discrete) and isinstance(column, np.ndarray):
        return np.eye(space.n, dtype=np.float32)[column - space.start], np.zeros(space.n), np.ones(space.n)
    if isinstance(space, spaces.Box) and isinstance(column, np.ndarray):
        flat = column.reshape(len(column), -1).astype(np.float32)
        return flat, space.low.reshape(-1), space.high.reshape(-1)
    raise DataError(f"can't make a vector of {space}")
