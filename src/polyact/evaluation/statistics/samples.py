"""How far two sets of samples are apart."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def energy_distance(one: Float[Array, "N D"], other: Float[Array, "M D"]) -> Float[Array, ""]:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| of the two empirical distributions: 0 only when they are equal (Székely & Rizzo 2013).

    Pairs of a sample with itself count, so it is never negative; its expectation under equal distributions falls with 1/N + 1/M.
    """
    return 2 * _mean_distance(one, other) - _mean_distance(one, one) - _mean_distance(other, other)


def _mean_distance(one: Float[Array, "N D"], other: Float[Array, "M D"]) -> Float[Array, ""]:
    squared = jnp.square(one[:, None] - other[None]).sum(-1)
    return jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1.0)), 0.0).mean()
