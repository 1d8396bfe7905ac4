"""Normalisation that a policy carries with it: statistics belong to a pair (embodiment, control mode), are fixed, and when they are
missing or of the wrong width that is an error at construction, never a silent identity.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polyact import spaces
from polyact.data.source import Source
from polyact.errors import DataError, PolyactError
from polyact.policies.encoding import encode, input_space, joined_space, numeric
from polyact.spaces import Space
from polyact.tree import Frozen

Pair = tuple[str, str]
BLOCK = 65_536  # rows read at a time, so that memory-mapped columns stay on disk


class Normaliser(Frozen):
    """x -> (x - mean) / std and back, elementwise on vectors of one width [W]. Never trained."""

    mean: Float[Array, " width"]
    std: Float[Array, " width"]

    @classmethod
    def of(cls, array: Any) -> "Normaliser":
        """Statistics of the rows of [N, ...] (flattened to [N, W]); a column that never varies gets std 1.

        Raises DataError when there are no rows or a value is not finite.
        """
        mean, std = _pooled([array], lambda block: np.reshape(block, (len(block), -1)))
        return cls(single(mean), single(std))

    @classmethod
    def identity(cls, width: int) -> "Normaliser":
        """The normaliser that changes nothing, said out loud."""
        return cls(single(np.zeros(width)), single(np.ones(width)))

    @property
    def width(self) -> int:
        return self.mean.shape[-1]

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        return (x - self.mean) / self.std

    def inverse(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        return x * self.std + self.mean


class Statistics(eqx.Module):
    """Normalisers by (embodiment, control mode) and column name ("observation", "action")."""

    pairs: tuple[Pair, ...] = eqx.field(static=True)
    columns: tuple[dict[str, Normaliser], ...]

    @classmethod
    def of(cls, sources: Sequence[Source]) -> "Statistics":
        """Statistics of the observations and actions of the sources, pooled over the sources that share a pair.

        Only numbers (Box) are normalised; the one-hot entries of discrete parts keep mean 0 and std 1.
        """
        pairs = tuple(dict.fromkeys(source.body for source in sources))
        return cls(pairs, tuple(_columns([source for source in sources if source.body == pair]) for pair in pairs))

    def normaliser(self, body: Pair, column: str, width: int) -> Normaliser:
        """The normaliser of one column of one body. Raises PolyactError when it is missing or has another width."""
        if body not in self.pairs:
            known = ", ".join(map(_label, self.pairs)) or "none"
            raise PolyactError(f"no normalisation statistics for {_label(body)} (known: {known})")
        columns = self.columns[self.pairs.index(body)]
        if column not in columns:
            raise PolyactError(f"no {column} statistics for {_label(body)} (known columns: {', '.join(columns) or 'none'})")
        if columns[column].width != width:
            raise PolyactError(f"{column} statistics of {_label(body)} have width {columns[column].width}, expected {width}")
        return columns[column]


class ActionScale(Frozen):
    """Between the environment's units and [-1, 1], affine in each of A action entries.

    Entries with finite bounds map the bounds to -1 and 1; entries without map mean and standard deviation of the data to 0 and 1.
    An entry whose bounds coincide is a constant.
    """

    center: Float[Array, " width"]
    scale: Float[Array, " width"]
    bounded: tuple[bool, ...] = eqx.field(static=True)

    @classmethod
    def of(cls, space: Space, statistics: Normaliser | None = None) -> "ActionScale":
        """The scale of a Box of floats. Raises PolyactError for another space, or when an entry has neither bounds nor statistics."""
        if not isinstance(space, spaces.Box) or space.dtype.kind != "f":
            raise PolyactError(f"continuous actions need a Box of floats, got {space}")
        low, high = (np.asarray(bound, np.float64).reshape(-1) for bound in (space.low, space.high))
        finite = np.isfinite(low) & np.isfinite(high)
        if not finite.all() and statistics is None:
            raise PolyactError(
                f"action entry {int(np.argmin(finite))} of {space} has no finite bounds and no data to take its scale from"
            )
        if statistics is not None and statistics.width != len(low):
            raise PolyactError(f"action statistics have width {statistics.width}, expected {len(low)}")
        low, high = np.where(finite, low, 0), np.where(finite, high, 0)
        center, scale = single((low + high) / 2), single((high - low) / 2)
        if not finite.all():
            assert statistics is not None
            center, scale = jnp.where(finite, center, statistics.mean), jnp.where(finite, scale, statistics.std)
        return cls(center, scale, tuple(bool(entry) for entry in finite))

    @property
    def width(self) -> int:
        return len(self.bounded)

    def to_env(self, unit: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        return self.center + unit * self.scale

    def to_unit(self, action: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        return (action - self.center) / jnp.where(self.scale == 0, 1.0, self.scale)

    def squash(self, raw: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        """A network's output as a unit action: tanh where there are bounds, unchanged where there are none."""
        return jnp.where(jnp.asarray(self.bounded, bool), jnp.tanh(raw), raw)

    def clip(self, unit: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        """A unit action moved into the bounds."""
        return jnp.where(jnp.asarray(self.bounded, bool), jnp.clip(unit, -1, 1), unit)

    def log_volume(self) -> Float[Array, ""]:
        """log |d action / d unit|: what a log density loses on its way from unit to environment coordinates."""
        return jnp.log(jnp.where(self.scale == 0, 1.0, self.scale)).sum()


def _columns(sources: Sequence[Source]) -> dict[str, Normaliser]:
    found = {}
    for column in ("observation", "action"):
        recorded = [source for source in sources if getattr(source.episodes, column) is not None]
        if not recorded:
            continue
        space = input_space(joined_space(recorded, f"{column}_space"))
        kept = np.asarray(numeric(space))  # an error for a space without a width, before anything of that width is made
        rows = _encoder(space)
        arrays = [getattr(source.episodes, column) for source in recorded]
        mean, std = _pooled(arrays, lambda block, rows=rows: np.asarray(rows(block)))
        found[column] = Normaliser(single(np.where(kept, mean, 0)), single(np.where(kept, std, 1)))
    return found


@lru_cache(64)
def _encoder(space: Space) -> Callable[[Any], Array]:
    """Rows of this space as vectors, compiled once."""
    return jax.jit(jax.vmap(partial(encode, space)))


def single(values: np.ndarray) -> Array:
    """Numbers of the host on the device in single precision, converted before they get there: no program is compiled for it."""
    return jnp.asarray(np.asarray(values, np.float32))


def _pooled(arrays: Sequence[Any], rows: Callable[[Any], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every column, block by block."""
    count, mean, squares = 0, np.zeros(1), np.zeros(1)
    for block in _blocks(arrays):
        block = np.asarray(rows(block), np.float64)
        if not np.isfinite(block).all():
            raise DataError(
                f"can't take statistics of values that are not finite (first in column {np.argwhere(~np.isfinite(block))[0, 1]})"
            )
        shift = block.mean(0) - mean
        total = count + len(block)
        squares = squares + ((block - block.mean(0)) ** 2).sum(0) + shift**2 * count * len(block) / total
        mean, count = mean + shift * len(block) / total, total
    if not count:
        raise DataError("can't take statistics of no rows")
    std = np.sqrt(squares / count)
    return mean, np.where(std > 1e-6 * np.maximum(1, np.abs(mean)), std, 1.0)


def _blocks(arrays: Sequence[Any]) -> Iterable[Any]:
    for array in arrays:
        length = len(jax.tree.leaves(array)[0])
        for start in range(0, length, BLOCK):
            yield jax.tree.map(lambda leaf, start=start: np.asarray(leaf[start : start + BLOCK]), array)


def _label(body: Pair) -> str:
    return f"(embodiment '{body[0]}', control mode '{body[1]}')"
