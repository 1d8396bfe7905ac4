"""The nearest stored points, exactly: every distance is computed, block by block, on the device and inside compiled programs."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from polyact.errors import PolyactError


def nearest(
    queries: Float[Array, "B D"], keys: Float[Array, "N D"], count: int = 1, block: int = 8192
) -> tuple[Float[Array, "B count"], Int[Array, "B count"]]:
    """Euclidean distances and row numbers of the `count` nearest keys of each query, nearest first; among equals the first row.

    Differences are squared one by one: |q|^2 - 2 q k + |k|^2 would lose small distances to rounding. `block` keys are looked at at a
    time, which bounds the memory. Raises PolyactError unless there are at least `count` keys.
    """
    if not 1 <= count <= len(keys):
        raise PolyactError(f"count must lie between 1 and the number of keys, {len(keys)}, got {count}")
    block = min(block, len(keys))
    padded = jnp.pad(keys, ((0, -len(keys) % block), (0, 0)), constant_values=jnp.inf)

    def look(best: tuple[Array, Array], part: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        first, some = part
        squares = sum((queries[:, None, entry] - some[None, :, entry]) ** 2 for entry in range(keys.shape[1]))
        apart, place = _smallest(jnp.asarray(squares), min(count, block))
        apart, place = jnp.concatenate([best[0], apart], 1), jnp.concatenate([best[1], first + place], 1)
        kept, which = _smallest(apart, count)
        return (kept, jnp.take_along_axis(place, which, 1)), None

    nothing = jnp.full((len(queries), count), jnp.inf), jnp.zeros((len(queries), count), jnp.int32)
    firsts = jnp.arange(0, len(padded), block)
    (squares, place), _ = jax.lax.scan(look, nothing, (firsts, padded.reshape(-1, block, keys.shape[1])))
    return jnp.sqrt(squares), place


def _smallest(values: Float[Array, "B N"], count: int) -> tuple[Float[Array, "B count"], Int[Array, "B count"]]:
    """The smallest entries of each row in ascending order, and their places."""
    if count == 1:  # two plain minima are several times faster than one argmin, provided that both read the very same numbers
        values = jax.lax.optimization_barrier(values)
        least = values.min(1, keepdims=True)
        numbers = jnp.arange(values.shape[1], dtype=jnp.int32)
        return least, jnp.where(values == least, numbers, values.shape[1]).min(1, keepdims=True)
    negated, place = jax.lax.top_k(-values, count)
    return -negated, place
