"""Mirror-descent steps on probabilities: multiplicative weights, and the same pulled towards a magnet (magnetic mirror descent)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float


def mirror_step(
    policy: Float[ArrayLike, "*rows A"],
    gain: Float[ArrayLike, "*rows A"],
    rate: float | Array,
    mask: Bool[ArrayLike, "*rows A"] | None = None,
) -> Float[Array, "*rows A"]:
    """policy * exp(rate * gain), normalised: the maximiser of <gain, p> - KL(p, policy) / rate.

    Multiplicative weights, when gain is a round's negative loss. mask: what is allowed (everything); the rest gets probability 0. An
    action of probability 0 keeps it: see `floored`. A constant added to a row of gains changes nothing.
    """
    return _normalised(_log(policy) + rate * jnp.asarray(gain), mask)


def magnetic_step(
    policy: Float[ArrayLike, "*rows A"],
    gain: Float[ArrayLike, "*rows A"],
    rate: float | Array,
    pull: float | Array,
    magnet: Float[ArrayLike, "*rows A"],
    mask: Bool[ArrayLike, "*rows A"] | None = None,
) -> Float[Array, "*rows A"]:
    """[policy * magnet^(pull rate) * exp(rate gain)]^(1 / (1 + pull rate)), normalised (magnetic mirror descent, arXiv 2206.05825).

    The maximiser of <gain, p> - pull KL(p, magnet) - KL(p, policy) / rate; with pull 0 it is `mirror_step`.
    """
    strength = pull * rate
    towards = jnp.where(strength == 0, 0.0, strength * _log(magnet))
    return _normalised((_log(policy) + towards + rate * jnp.asarray(gain)) / (1 + strength), mask)


def floored(
    policy: Float[ArrayLike, "*rows A"], least: float, mask: Bool[ArrayLike, "*rows A"] | None = None
) -> Float[Array, "*rows A"]:
    """The policy mixed with so much of the uniform one that every allowed action has at least `least`."""
    policy = jnp.asarray(policy, jnp.float32)
    allowed = jnp.ones_like(policy) if mask is None else jnp.asarray(mask, policy.dtype)
    share = least * allowed.sum(-1, keepdims=True)
    return (1 - share) * policy + least * allowed


def _log(policy: Float[ArrayLike, "*rows A"]) -> Float[Array, "*rows A"]:
    return jnp.log(jnp.asarray(policy, jnp.float32))


def _normalised(logits: Float[Array, "*rows A"], mask: Bool[ArrayLike, "*rows A"] | None) -> Float[Array, "*rows A"]:
    return jax.nn.softmax(logits if mask is None else jnp.where(jnp.asarray(mask), logits, -jnp.inf), axis=-1)
