"""What a request may say about the observation: names, shapes, dtypes and values, checked before a policy sees anything."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from polyact import spaces
from polyact.errors import PolyactError
from polyact.spaces import Space

STATE = "observation/state"  # the name of an observation that is no dictionary
ALIASES = {STATE: ("state", "observation.state")}  # what ALOHA and LeRobot clients call it


@dataclass(frozen=True)
class Part:
    """One array of an observation: where it stands in a message, and what it may be."""

    path: tuple[str, ...]
    space: Any  # Box, Discrete, MultiDiscrete or MultiBinary
    dtype: np.dtype  # as the policy gets it

    @property
    def name(self) -> str:
        return "/".join(self.path)


class Signature:
    """The arrays of an observation space, in the order in which they travel through the server."""

    def __init__(self, space: Space):
        """Raises PolyactError for text, which no compiled policy reads."""
        self.space = space if isinstance(space, spaces.Dict) else spaces.Dict({STATE: space})
        self.single = not isinstance(space, spaces.Dict)
        self.parts = tuple(_parts(self.space, ()))

    def read(self, message: dict[Any, Any]) -> list[np.ndarray]:
        """The arrays of a message, in the order of `parts`. Raises PolyactError with one line that names what is wrong."""
        return list(_read(self.space, self._by_own_names(message), ()))

    def known(self) -> set[str]:
        """The names that may stand in a message."""
        names = set(self.space.spaces)
        return names.union(ALIASES[STATE]) if self.single else names

    def observation(self, leaves: list[Any]) -> Any:
        """The observation as the policy wants it, of arrays in the order of `parts` (with any leading axes)."""
        remaining = iter(leaves)
        whole = _assemble(self.space, remaining)
        return whole[STATE] if self.single else whole

    def describe(self) -> dict[str, Any]:
        """For the metadata: shape and dtype by name."""
        return {part.name: {"shape": list(part.space.shape), "dtype": part.space.dtype.name} for part in self.parts}

    @property
    def bytes(self) -> int:
        """Of one observation in the widest dtypes that clients send."""
        return sum(int(np.prod(part.space.shape, dtype=np.int64)) * max(8, part.space.dtype.itemsize) for part in self.parts)

    def _by_own_names(self, message: dict[Any, Any]) -> dict[Any, Any]:
        if not self.single:
            return message
        given = [name for name in (STATE, *ALIASES[STATE]) if name in message]
        if len(given) > 1:
            raise PolyactError(f"'{given[0]}' and '{given[1]}' mean the same; send one of them")
        return {STATE: message[given[0]]} if given else {}


def _parts(space: Space, path: tuple[str, ...]) -> Iterator[Part]:
    match space:
        case spaces.Dict():
            for name, part in space.items:
                yield from _parts(part, (*path, name))
        case spaces.Tuple():
            for number, part in enumerate(space.spaces):
                yield from _parts(part, (*path, str(number)))
        case spaces.Box(dtype=dtype) if dtype == np.float64:
            yield Part(path, space, np.dtype(np.float32))
        case spaces.Box(dtype=dtype) if dtype in (np.int64, np.uint64):
            yield Part(path, space, np.dtype(np.int32 if dtype == np.int64 else np.uint32))
        case spaces.Box() | spaces.Discrete() | spaces.MultiDiscrete() | spaces.MultiBinary():
            yield Part(path, space, space.dtype)
        case _:
            raise PolyactError(f"observations of {space} ('{'/'.join(path)}') can't be served")


def _read(space: Space, value: Any, path: tuple[str, ...]) -> Iterator[np.ndarray]:
    match space:
        case spaces.Dict():
            if not isinstance(value, dict):
                raise PolyactError(f"'{'/'.join(path)}' is a map of {_names(space)}, got {_kind(value)}")
            for name, part in space.items:
                if name not in value:
                    raise PolyactError(f"'{'/'.join((*path, name))}' is missing")
                yield from _read(part, value[name], (*path, name))
            if path and (further := value.keys() - space.spaces.keys()):
                raise PolyactError(f"'{'/'.join(path)}' has no part {min(map(repr, further))[:80]} (it has {_names(space)})")
        case spaces.Tuple():
            if not isinstance(value, list) or len(value) != len(space.spaces):
                raise PolyactError(f"'{'/'.join(path)}' is a list of {len(space.spaces)} parts, got {_kind(value)}")
            for number, (part, own) in enumerate(zip(space.spaces, value, strict=True)):
                yield from _read(part, own, (*path, str(number)))
        case _:
            yield checked(next(_parts(space, path)), value)


def _assemble(space: Space, leaves: Iterator[Any]) -> Any:
    match space:
        case spaces.Dict():
            return {name: _assemble(part, leaves) for name, part in space.items}
        case spaces.Tuple():
            return tuple(_assemble(part, leaves) for part in space.spaces)
    return next(leaves)


def checked(part: Part, value: Any) -> np.ndarray:
    """The value as an array of the part's dtype; PolyactError when shape, kind, range or finiteness are not those of its space."""
    array = _numbers(part, value)
    if array.shape != part.space.shape:
        raise PolyactError(f"'{part.name}' has shape {list(array.shape)}, expected {list(part.space.shape)}")
    if part.dtype.kind == "f":
        with np.errstate(over="ignore"):
            array = array.astype(part.dtype, copy=False)
        if not np.isfinite(array).all():
            raise PolyactError(f"'{part.name}' is not finite")
        return array
    low, high = _bounds(part)
    if array.size and not (np.all(array >= low) and np.all(array <= high)):
        raise PolyactError(f"'{part.name}' holds values outside {_range(low, high)}")
    return array.astype(part.dtype, copy=False)


def _numbers(part: Part, value: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray | np.generic | bool | int | float | list):
        raise PolyactError(f"'{part.name}' is an array of {part.space.dtype.name}, got {_kind(value)}")
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise PolyactError(f"'{part.name}' is a ragged list, expected shape {list(part.space.shape)}") from error
    if array.dtype.kind not in ("biuf" if part.dtype.kind == "f" else "biu"):
        raise PolyactError(f"'{part.name}' has dtype {array.dtype.name}, expected {part.space.dtype.name}")
    return array


def _bounds(part: Part) -> tuple[Any, Any]:
    """Between which whole numbers a value lies; in a Box that is a matter of its dtype, because recorded bounds are only what was seen."""
    match part.space:
        case spaces.Discrete(n=n, start=start):
            return start, start + n - 1
        case spaces.MultiDiscrete(nvec=nvec):
            return 0, np.asarray(nvec) - 1
        case spaces.MultiBinary():
            return 0, 1
    if part.dtype.kind == "b":
        return 0, 1
    kind = np.iinfo(part.dtype)
    return kind.min, kind.max


def _range(low: Any, high: Any) -> str:
    return f"{low} .. {high}" if np.ndim(high) == 0 else f"{low} .. {np.asarray(high).tolist()}"


def _names(space: spaces.Dict) -> str:
    return ", ".join(f"'{name}'" for name in space.spaces)


def _kind(value: Any) -> str:
    return f"a list of {len(value)}" if isinstance(value, list) else type(value).__name__
