"""How different the members of a population behave: the volume that they span, and measures that it is compared with."""

import jax.numpy as jnp
from jaxtyping import Array, Float

JITTER = 1e-6


def squared_exponential(embeddings: Float[Array, "M d"], width: float | Array = 1.0) -> Float[Array, "M M"]:
    """k(i, j) = exp(-mean squared difference / (2 width^2)): the length scale grows with the root of the embedding's dimension."""
    return jnp.exp(-mean_squares(embeddings) / (2 * width**2))


def log_volume(kernel: Float[Array, "M M"], jitter: float = JITTER) -> Float[Array, ""]:
    """log det K, whose gradient is the inverse of K. jitter: on the diagonal, so that two equal members cost much and not everything."""
    return jnp.linalg.slogdet(kernel + jitter * jnp.eye(kernel.shape[0]))[1]


def volume(kernel: Float[Array, "M M"], jitter: float = 0.0) -> Float[Array, ""]:
    """det K in [0, 1] for a kernel of ones on the diagonal: 0 when two members coincide, 1 when all are far apart (arXiv 2002.00632)."""
    sign, log = jnp.linalg.slogdet(kernel + jitter * jnp.eye(kernel.shape[0]))
    return jnp.where(sign > 0, jnp.exp(log), 0.0)


def mean_distance(embeddings: Float[Array, "M d"]) -> Float[Array, ""]:
    """Root mean square difference, averaged over pairs: what novelty search rewards. Two tight clusters can have a large one."""
    members = embeddings.shape[0]
    return _root(mean_squares(embeddings)).sum() / (members * (members - 1))


def duplicates(embeddings: Float[Array, "M d"], within: float | Array) -> Float[Array, ""]:
    """Share of members with another one at most `within` away (root mean square)."""
    apart = _root(mean_squares(embeddings)) + jnp.where(jnp.eye(embeddings.shape[0]) > 0, jnp.inf, 0.0)
    return jnp.mean((apart.min(1) <= within).astype(jnp.float32))


def mean_squares(embeddings: Float[Array, "M d"]) -> Float[Array, "M M"]:
    """Mean squared difference of each pair."""
    return jnp.square(embeddings[:, None] - embeddings[None]).mean(-1)


def _root(squares: Float[Array, "M M"]) -> Float[Array, "M M"]:
    """The square root with a finite gradient at zero."""
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)
