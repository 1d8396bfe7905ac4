"""Several denoising policies as one: their estimates mixed at every noise level of a host's chain (GPC, arXiv 2510.01068).

Parents may follow different paths (diffusion, flow). A noisy chunk of the host is the same chunk for a parent at the time of equal
signal-to-noise ratio, after scaling; the clean estimate needs no conversion, so mixing clean estimates is mixing scores.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.errors import PolyactError
from polyact.policies.generative.denoised import TINY, Denoised, Field
from polyact.policies.generative.paths import Path

RULES = ("convex", "or", "and")


def matched(field: Field, path: Path, host: Path) -> Field:
    """A field on `path` as one on the path `host`, matched by the ratio of noise to signal."""

    def moved(noisy: Array, time: Array) -> Denoised:
        alpha, sigma = host.alpha(time), host.sigma(time)
        own = path.time(sigma / jnp.maximum(alpha, TINY))
        scale = (path.alpha(own) + path.sigma(own)) / (alpha + sigma)
        return field(scale * noisy, own)

    return moved


def mixed(fields: Sequence[Field], weights: Float[Array, " n"]) -> Field:
    """The convex combination of fields on one path."""

    def field(noisy: Array, time: Array) -> Denoised:
        known = [one(noisy, time) for one in fields]
        clean = sum(weight * one.clean for weight, one in zip(weights, known, strict=True))
        noise = sum(weight * one.noise for weight, one in zip(weights, known, strict=True))
        return Denoised(jnp.asarray(clean), jnp.asarray(noise))

    return field


def superposed(
    rule: str,
    fields: Sequence[Field],
    path: Path,
    noisy: Float[Array, "*shape"],
    levels: Float[Array, "L"],
    key: PRNGKeyArray,
    temperature: float = 1.0,
) -> Float[Array, "*shape"]:
    """A chain of ancestral steps whose weights follow the parents' densities along it (SuperDiff, 2412.17762).

    rule "or": the softmax of the log densities at `temperature`, so that each sample is one parent's; "and" (two parents): the weights
    under which both log densities change alike, so that samples are likely under both.

    In z = noisy / alpha the forward process adds noise only. With d the variance that a step removes and s the score of z, a step dz
    changes a parent's log density by dz s - d s^2 / 2 (its theorem 1).
    """
    count = len(fields)
    if rule not in RULES[1:] or (rule == "and" and count != 2):
        raise PolyactError(f"superposition takes the rule 'or', or 'and' for two parents, got '{rule}' for {count}")

    def one(carry: Any, at: Any) -> tuple[Any, None]:
        noisy, density = carry
        time, next, key = at
        ratio, after = (path.sigma(t) / jnp.maximum(path.alpha(t), TINY) for t in (time, next))
        known = [field(noisy, time) for field in fields]
        scores = -jnp.stack([estimate.noise for estimate in known]) / ratio
        removed = ratio**2 - after**2
        fresh = jnp.sqrt(removed) * after / ratio * jax.random.normal(key, noisy.shape)
        weights = jax.nn.softmax(temperature * density) if rule == "or" else _balancing(scores, removed, fresh, density)
        step = removed * jnp.tensordot(weights, scores, 1) + fresh
        gained = [(step * score).sum() - removed / 2 * jnp.square(score).sum() for score in scores]
        clean = jnp.tensordot(weights, jnp.stack([estimate.clean for estimate in known]), 1)
        noise = jnp.tensordot(weights, jnp.stack([estimate.noise for estimate in known]), 1)
        kept = after**2 / ratio
        moved = path.alpha(next) * (clean + kept * noise + fresh)
        return (moved, density + jnp.stack(gained)), None

    keys = jax.random.split(key, len(levels) - 1)
    return jax.lax.scan(one, (noisy, jnp.zeros(count)), (levels[:-1], levels[1:], keys))[0][0]


def _balancing(
    scores: Float[Array, "2 *shape"], removed: Float[Array, ""], fresh: Float[Array, "*shape"], density: Float[Array, "2"]
) -> Float[Array, "2"]:
    """The weights under which a step leaves both log densities equal."""
    first, second = scores
    apart = first - second
    wanted = density[1] - density[0] + removed / 2 * (jnp.square(first).sum() - jnp.square(second).sum())
    share = (wanted - ((removed * second + fresh) * apart).sum()) / jnp.maximum(removed * jnp.square(apart).sum(), 1e-12)
    return jnp.stack([share, 1 - share])


def best_pair(first: Float[Array, "*n"], second: Float[Array, "*n"]) -> Float[Array, ""]:
    """The weight of the first of two parents with these score errors that makes the mean squared error of the mix least, in [0, 1]."""
    cross = (first * second).mean()
    one, other = jnp.square(first).mean(), jnp.square(second).mean()
    return jnp.clip((other - cross) / jnp.maximum(one + other - 2 * cross, 1e-12), 0.0, 1.0)


def mixed_error(weights: Float[Array, " n"], errors: Float[Array, "n *m"]) -> Float[Array, ""]:
    """Mean squared error of the mix: a convex quadratic in the weights."""
    return jnp.square(jnp.tensordot(weights, errors, 1)).mean()


def final_error(errors: Float[Array, " N"], lipschitz: Float[Array, " N"], step: float | Array) -> Float[Array, ""]:
    """Grönwall's bound on the distance of the end of a chain from the true one's: the sum of errors, each grown by what follows.

    errors and Lipschitz constants of the velocity at N times, first those of noise, `step` apart.
    """
    growth = jnp.exp(step * (jnp.cumsum(lipschitz[::-1])[::-1] - lipschitz / 2))
    return (errors * growth).sum() * step


def simplex(parents: int, parts: int = 10) -> Float[Array, "m {parents}"]:
    """All weights of so many parents in steps of 1 / parts."""
    if parents < 1 or parts < 1:
        raise PolyactError(f"a grid of weights needs at least one parent and one part, got {parents} and {parts}")

    def of(left: int, places: int) -> list[list[int]]:
        if places == 1:
            return [[left]]
        return [[first, *rest] for first in range(left + 1) for rest in of(left - first, places - 1)]

    return jnp.asarray(of(parts, parents), jnp.float32) / parts
