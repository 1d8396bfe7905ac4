"""Evolution strategies (arXiv 1703.03864): the gradient of a blurred objective from its values at antithetic perturbations."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def antithetic(
    noise: Float[Array, "pairs *shape"], centre: Float[Array, "*shape"], sigma: float | Array
) -> Float[Array, "two pairs *shape"]:
    """centre + sigma noise and centre - sigma noise."""
    return centre + sigma * jnp.stack([noise, -noise])


def slope(
    noise: Float[Array, "pairs *members P"], scores: Float[Array, "two pairs *members"], sigma: float | Array
) -> Float[Array, "*members P"]:
    """Gradient of the mean score under normal perturbations: differences of pairs. scores: in the order of `antithetic`."""
    return jnp.mean((scores[0] - scores[1])[..., None] * noise, axis=0) / (2 * sigma)


def standardised(scores: Float[Array, "two pairs *members"]) -> Float[Array, "two pairs *members"]:
    """Zero mean and unit deviation over all perturbations; zero where all are alike."""
    centred = scores - scores.mean((0, 1))
    deviation = jnp.sqrt(jnp.square(centred).mean((0, 1)))
    return jnp.where(deviation > 0, centred / jnp.where(deviation > 0, deviation, 1.0), 0.0)
