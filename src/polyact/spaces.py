"""What an observation or an action may be: small hashable values, convertible to and from gymnasium's spaces and JSON.

They hold no JAX arrays, so they can be static fields of environments and policies, and importing them is cheap.
JSON follows Minari's field names, so one encoding serves data sets and saved policies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from polyact.errors import PolyactError

MOST_CLASSES = 1 << 16  # a one-hot vector of more is a mistake: numbers of items or times that were taken for classes


class Space:
    """A set of values. Final classes: Box, Discrete, MultiDiscrete, MultiBinary, Dict, Tuple, Text."""


@dataclass(frozen=True, eq=False)
class Box(Space):
    """Arrays between `low` and `high` (inclusive; infinite bounds allowed), of one shape and dtype."""

    low: np.ndarray
    high: np.ndarray
    shape: tuple[int, ...]
    dtype: np.dtype

    def __init__(self, low: Any, high: Any, shape: tuple[int, ...] | None = None, dtype: Any = np.float32):
        dtype = np.dtype(dtype)
        shape = tuple(shape) if shape is not None else np.broadcast_shapes(np.shape(low), np.shape(high))
        try:
            # Adding zero turns -0.0 into 0.0, so that equal bounds are equal bytes.
            low, high = (np.array(np.broadcast_to(np.asarray(bound, dtype) + dtype.type(0), shape)) for bound in (low, high))
        except ValueError as error:
            raise PolyactError(f"Box bounds of shapes {np.shape(low)} and {np.shape(high)} do not fit shape {shape}") from error
        if not np.all(low <= high):
            raise PolyactError("Box needs low <= high everywhere")
        for array in (low, high):
            array.flags.writeable = False
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "dtype", dtype)

    @property
    def bounded(self) -> bool:
        return bool(np.all(np.isfinite(self.low)) and np.all(np.isfinite(self.high)))

    def _key(self):
        return self.shape, self.dtype.str, self.low.tobytes(), self.high.tobytes()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Box) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        def bound(array: np.ndarray) -> str:
            return f"{array.flat[0]:g}" if array.size and np.all(array == array.flat[0]) else str(array.tolist())

        return f"Box({bound(self.low)}, {bound(self.high)}, shape={self.shape}, dtype={self.dtype.name})"


@dataclass(frozen=True)
class Discrete(Space):
    """The integers start, start + 1, ..., start + n - 1."""

    n: int
    start: int = 0

    def __post_init__(self):
        if self.n < 1:
            raise PolyactError(f"Discrete needs n >= 1, got {self.n}")

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int32)


@dataclass(frozen=True)
class MultiDiscrete(Space):
    """A vector of integers, entry i in 0 .. nvec[i] - 1."""

    nvec: tuple[int, ...]

    def __post_init__(self):
        if not self.nvec or min(self.nvec) < 1:
            raise PolyactError(f"MultiDiscrete needs at least one entry, all >= 1, got {self.nvec}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.nvec),)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int32)


@dataclass(frozen=True)
class MultiBinary(Space):
    """A vector of n zeros and ones."""

    n: int

    def __post_init__(self):
        if self.n < 1:
            raise PolyactError(f"MultiBinary needs n >= 1, got {self.n}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.n,)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int8)


@dataclass(frozen=True)
class Text(Space):
    """A string of min_length to max_length characters."""

    max_length: int
    min_length: int = 0


@dataclass(frozen=True, init=False)
class Dict(Space):
    """Named parts, in the order given."""

    items: tuple[tuple[str, Space], ...]

    def __init__(self, spaces: dict[str, Space] | tuple[tuple[str, Space], ...]):
        object.__setattr__(self, "items", tuple(spaces.items() if isinstance(spaces, dict) else spaces))

    @property
    def spaces(self) -> dict[str, Space]:
        return dict(self.items)


@dataclass(frozen=True)
class Tuple(Space):
    """Unnamed parts."""

    spaces: tuple[Space, ...]


def width(space: Space) -> int:
    """Length of the flat vector that stands for a value of `space` (a Discrete counts as its number of classes).

    Raises PolyactError for text, and for more classes than `MOST_CLASSES`.
    """
    match space:
        case Box() | MultiBinary():
            return math.prod(space.shape)
        case Discrete():
            return _classes(space, space.n)
        case MultiDiscrete():
            return _classes(space, sum(space.nvec))
        case Dict():
            return sum(width(part) for _, part in space.items)
        case Tuple():
            return sum(width(part) for part in space.spaces)
    raise PolyactError(f"{space} has no fixed width; encode text into numbers first")


def _classes(space: Space, count: int) -> int:
    if count > MOST_CLASSES:
        raise PolyactError(f"{space} has {count:,} classes, too many to be told apart one by one (at most {MOST_CLASSES:,})")
    return count


def sample(space: Space, key: Any) -> Any:
    """One random value: uniform inside finite bounds, normal or exponential beyond infinite ones."""
    import jax
    import jax.numpy as jnp

    match space:
        case Box() if np.issubdtype(space.dtype, np.floating):
            uniform, normal = jax.random.split(key)
            low, high = np.isfinite(space.low), np.isfinite(space.high)
            floor = jnp.where(low, space.low, jnp.where(high, space.high, 0))
            between = floor + jax.random.uniform(uniform, space.shape) * jnp.where(
                low & high, np.where(low & high, space.high - np.where(low, space.low, 0), 0), 0
            )
            spread = jax.random.normal(normal, space.shape)
            spread = jnp.where(low, jnp.abs(spread), jnp.where(high, -jnp.abs(spread), spread))
            return jnp.where(low & high, between, floor + spread).astype(jax.dtypes.canonicalize_dtype(space.dtype))
        case Box():
            return jax.random.randint(key, space.shape, space.low, space.high.astype(np.int64) + 1).astype(
                jax.dtypes.canonicalize_dtype(space.dtype)
            )
        case Discrete():
            return jax.random.randint(key, (), space.start, space.start + space.n)
        case MultiDiscrete():
            return jax.random.randint(key, space.shape, 0, jnp.asarray(space.nvec))
        case MultiBinary():
            return jax.random.bernoulli(key, shape=space.shape).astype(jax.dtypes.canonicalize_dtype(space.dtype))
        case Dict():
            keys = jax.random.split(key, len(space.items))
            return {name: sample(part, k) for (name, part), k in zip(space.items, keys, strict=True)}
        case Tuple():
            return tuple(sample(p, k) for p, k in zip(space.spaces, jax.random.split(key, len(space.spaces)), strict=True))
    raise PolyactError(f"can't sample from {space}")


def contains(space: Space, value: Any) -> bool:
    """Whether `value` lies in `space` (shape, bounds; dtype by value)."""
    match space:
        case Box():
            array = np.asarray(value)
            return array.shape == space.shape and bool(np.all(array >= space.low) and np.all(array <= space.high))
        case Discrete():
            array = np.asarray(value)
            return array.shape == () and bool(space.start <= array < space.start + space.n and array % 1 == 0)
        case MultiDiscrete():
            array = np.asarray(value)
            whole = array.shape == space.shape and bool(np.all(array % 1 == 0))
            return whole and bool(np.all(array >= 0) and np.all(array < np.asarray(space.nvec)))
        case MultiBinary():
            array = np.asarray(value)
            return array.shape == space.shape and bool(np.all((array == 0) | (array == 1)))
        case Text():
            return isinstance(value, str) and space.min_length <= len(value) <= space.max_length
        case Dict():
            return (
                isinstance(value, dict)
                and value.keys() == space.spaces.keys()
                and all(contains(part, value[name]) for name, part in space.items)
            )
        case Tuple():
            return len(value) == len(space.spaces) and all(map(contains, space.spaces, value))
    return False


def to_gymnasium(space: Space) -> Any:
    """The gymnasium space that means the same."""
    from gymnasium import spaces as gym

    match space:
        case Box():
            return gym.Box(space.low, space.high, space.shape, space.dtype.type)
        case Discrete():
            return gym.Discrete(space.n, start=space.start)
        case MultiDiscrete():
            return gym.MultiDiscrete(np.asarray(space.nvec))
        case MultiBinary():
            return gym.MultiBinary(space.n)
        case Text():
            return gym.Text(space.max_length, min_length=space.min_length)
        case Dict():
            return gym.Dict([(name, to_gymnasium(part)) for name, part in space.items])
        case Tuple():
            return gym.Tuple([to_gymnasium(part) for part in space.spaces])
    raise PolyactError(f"gymnasium has no space like {space}")


def from_gymnasium(space: Any) -> Space:
    """Our space for a gymnasium space."""
    from gymnasium import spaces as gym

    match space:
        case gym.Box():
            return Box(space.low, space.high, space.shape, space.dtype)
        case gym.Discrete():
            return Discrete(int(space.n), int(space.start))
        case gym.MultiDiscrete() if np.ndim(space.nvec) == 1 and not np.any(space.start):
            return MultiDiscrete(tuple(int(n) for n in space.nvec))
        case gym.MultiBinary() if np.ndim(space.n) == 0:
            return MultiBinary(int(space.n))  # pyright: ignore[reportArgumentType]
        case gym.Text():
            return Text(space.max_length, space.min_length)
        case gym.Dict():
            return Dict({name: from_gymnasium(part) for name, part in space.spaces.items()})
        case gym.Tuple():
            return Tuple(tuple(from_gymnasium(part) for part in space.spaces))
    raise PolyactError(f"polyact has no space for gymnasium's {space}")


def to_json(space: Space) -> dict[str, Any]:
    """A JSON value with Minari's field names; exact for float32 and float64 bounds."""
    match space:
        case Box():
            return {
                "type": "Box",
                "dtype": space.dtype.name,
                "shape": list(space.shape),
                "low": space.low.tolist(),
                "high": space.high.tolist(),
            }
        case Discrete():
            return {"type": "Discrete", "dtype": "int64", "start": space.start, "n": space.n}
        case MultiDiscrete():
            zeros = [0] * len(space.nvec)
            return {"type": "MultiDiscrete", "dtype": "int64", "nvec": list(space.nvec), "start": zeros}
        case MultiBinary():
            return {"type": "MultiBinary", "n": space.n}
        case Text():
            return {"type": "Text", "max_length": space.max_length, "min_length": space.min_length}
        case Dict():
            return {"type": "Dict", "subspaces": {name: to_json(part) for name, part in space.items}}
        case Tuple():
            return {"type": "Tuple", "subspaces": [to_json(part) for part in space.spaces]}
    raise PolyactError(f"no JSON form for {space}")


def from_json(value: dict[str, Any]) -> Space:
    """Inverse of `to_json`; raises PolyactError that names the missing field or unknown type."""
    try:
        match value["type"]:
            case "Box":
                return Box(value["low"], value["high"], tuple(value["shape"]), value["dtype"])
            case "Discrete":
                return Discrete(int(value["n"]), int(value.get("start", 0)))
            case "MultiDiscrete":
                if any(value.get("start") or []):
                    raise PolyactError(f"MultiDiscrete spaces that do not start at 0 are not supported: {value}")
                return MultiDiscrete(tuple(int(n) for n in value["nvec"]))
            case "MultiBinary":
                return MultiBinary(int(value["n"]))
            case "Text":
                return Text(int(value["max_length"]), int(value.get("min_length", 0)))
            case "Dict":
                return Dict({name: from_json(part) for name, part in value["subspaces"].items()})
            case "Tuple":
                return Tuple(tuple(from_json(part) for part in value["subspaces"]))
    except PolyactError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise PolyactError(f"malformed space description {str(value)[:200]}: {error}") from error
    raise PolyactError(f"unknown space type '{value['type']}'")
