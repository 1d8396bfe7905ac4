"""Values of a space as vectors, because networks read vectors."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polyact import spaces
from polyact.data.source import Source
from polyact.errors import DataError, PolyactError
from polyact.spaces import Space

ACTION_MASK = "action_mask"  # a part of a dictionary observation that says which discrete actions are allowed


def encode(space: Space, value: Any) -> Float[Array, " width"]:
    """One value of a space as a vector of `spaces.width(space)` numbers: raveled boxes, one-hot classes, parts in order."""
    match space:
        case spaces.Box() | spaces.MultiBinary():
            return jnp.asarray(value).reshape(-1).astype(jnp.float32)
        case spaces.Discrete():
            return jax.nn.one_hot(jnp.asarray(value) - space.start, space.n)
        case spaces.MultiDiscrete():
            return jnp.concatenate([jax.nn.one_hot(value[i], n) for i, n in enumerate(space.nvec)])
        case spaces.Dict():
            return jnp.concatenate([encode(part, value[name]) for name, part in space.items])
        case spaces.Tuple():
            return jnp.concatenate([encode(part, entry) for part, entry in zip(space.spaces, value, strict=True)])
    raise PolyactError(f"{space} has no fixed width; encode text into numbers first")


def numeric(space: Space) -> np.ndarray:
    """Which entries of `encode` are measured numbers (True) rather than zeros and ones that stand for classes."""
    match space:
        case spaces.Dict():
            return np.concatenate([numeric(part) for _, part in space.items])
        case spaces.Tuple():
            return np.concatenate([numeric(part) for part in space.spaces])
    return np.full(spaces.width(space), isinstance(space, spaces.Box))


def input_space(space: Space) -> Space:
    """An observation space without its action mask."""
    if isinstance(space, spaces.Dict) and ACTION_MASK in space.spaces:
        return spaces.Dict(tuple((name, part) for name, part in space.items if name != ACTION_MASK))
    return space


def joined_space(sources: Sequence[Source], field: str) -> Space:
    """The space that holds the `observation_space`s or `action_space`s of all sources of one body; DataError when they do not fit."""
    found = [(space, source.name) for source in sources if (space := getattr(source, field)) is not None]
    if not found:
        names = ", ".join(source.name for source in sources)
        raise DataError(f"no source of embodiment '{sources[0].embodiment}' has an {field} ({names})")
    joined = found[0][0]
    for space, name in found[1:]:
        joined = _union(joined, space, f"source '{name}': {field} {space} does not fit {joined} of another source of the same body")
    return joined


def _union(one: Space, other: Space, complaint: str) -> Space:
    match one, other:
        case _ if one == other:
            return one
        case spaces.Box(), spaces.Box() if one.shape == other.shape:
            low, high = np.minimum(one.low, other.low), np.maximum(one.high, other.high)
            return spaces.Box(low, high, one.shape, np.promote_types(one.dtype, other.dtype))
        case spaces.Discrete(), spaces.Discrete() if one.start == other.start:
            return spaces.Discrete(max(one.n, other.n), one.start)
        case spaces.Dict(), spaces.Dict() if one.spaces.keys() == other.spaces.keys():
            return spaces.Dict({name: _union(part, other.spaces[name], complaint) for name, part in one.items})
    raise DataError(complaint)
