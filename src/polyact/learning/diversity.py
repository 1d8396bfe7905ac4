"""How different the members of a population behave: the volume that they span, and measures that it is compared with."""

import jax.numpy as jnp
from jaxtyping import Array, Float

JITTER = 1e-6
TINY = 1e-30


def squared_exponential(embeddings: Float[Array, "M d"], width: float | Array = 1.0) -> Float[Array, "M M"]:
    """k(i, j) = exp(-mean squared difference / (2 width^2)): the length scale grows with the root of the embedding's dimension."""
    return jnp.exp(-mean_squares(embeddings) / (2 * width**2))


def log_volume(kernel: Float[Array, "M M"], jitter: float = JITTER) -> Float[Array, ""]:
    """log det K, whose gradient is the inverse of K. jitter: on the diagonal, so that two equal members cost much and not everything."""
    return jnp.log(jnp.maximum(_pivots(kernel + jitter * jnp.eye(kernel.shape[0])), TINY)).sum()


def volume(kernel: Float[Array, "M M"], jitter: float = 0.0) -> Float[Array, ""]:
    """det K in [0, 1] for a kernel of ones on the diagonal: 0 when two members coincide, 1 when all are far apart (arXiv 2002.00632)."""
    return jnp.prod(jnp.maximum(_pivots(kernel + jitter * jnp.eye(kernel.shape[0])), 0.0))


def _pivots(kernel: Float[Array, "M M"]) -> Float[Array, " M"]:
    """What elimination finds on the diagonal of a positive definite matrix; their product is its determinant. Written out, because batches
    of tiny matrices are much faster so than one LAPACK call for each."""
    found = []
    for _ in range(kernel.shape[0]):
        pivot, column, row, rest = kernel[0, 0], kernel[1:, 0], kernel[0, 1:], kernel[1:, 1:]
        found.append(pivot)
        kernel = rest - jnp.outer(column, row) / jnp.where(pivot > 0, pivot, 1.0)
    return jnp.stack(found)


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
