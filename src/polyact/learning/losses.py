"""Loss terms as plain functions on arrays, so that a learner reads like its paper and any term can be swapped."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def td_target(
    reward: Float[Array, "*batch"], bootstrap: Float[Array, "*batch"], value: Float[Array, "*batch"], discount: float | Array
) -> Float[Array, "*batch"]:
    """reward + discount * bootstrap * value, with no gradient. `bootstrap` is 0 where the task terminated."""
    return jax.lax.stop_gradient(reward + discount * bootstrap * value)


def squared_error(prediction: Float[Array, "*batch"], target: Float[Array, "*batch"]) -> Float[Array, ""]:
    """Mean squared difference."""
    return jnp.mean((prediction - target) ** 2)


def huber(prediction: Float[Array, "*batch"], target: Float[Array, "*batch"], threshold: float = 1.0) -> Float[Array, ""]:
    """Mean Huber loss: quadratic within `threshold`, linear beyond."""
    size = jnp.abs(prediction - target)
    return jnp.mean(jnp.where(size <= threshold, 0.5 * size**2, threshold * (size - 0.5 * threshold)))


def expectile(difference: Float[Array, "*batch"], level: float | Array) -> Float[Array, ""]:
    """Mean of |level - 1(difference < 0)| difference^2, asymmetric least squares (IQL, arXiv 2110.06169 eq. 5)."""
    weight = jnp.where(difference > 0, level, 1 - level)
    return jnp.mean(weight * difference**2)


def quantile_huber(difference: Float[Array, "*batch"], level: Float[Array, "*batch"], threshold: float = 1.0) -> Float[Array, ""]:
    """Mean quantile Huber loss of target - prediction at each `level` (QR-DQN, arXiv 1710.10044 eq. 10)."""
    size = jnp.abs(difference)
    smooth = jnp.where(size <= threshold, 0.5 * difference**2, threshold * (size - 0.5 * threshold))
    return jnp.mean(jnp.abs(level - (difference < 0)) * smooth / threshold)


def advantage_weight(
    advantage: Float[Array, "*batch"], temperature: float | Array, largest: float = 100.0
) -> Float[Array, "*batch"]:
    """exp(temperature * advantage), capped at `largest`, with no gradient: AWR's and IQL's weight (arXiv 2110.06169 eq. 7)."""
    return jax.lax.stop_gradient(jnp.minimum(jnp.exp(temperature * advantage), largest))


def conservative_gap(
    values: Float[Array, "batch samples"], value: Float[Array, "batch"], temperature: float = 1.0
) -> Float[Array, ""]:
    """Mean of temperature * logsumexp(values / temperature) - value: what CQL(H) presses down (arXiv 2006.04779 eq. 4)."""
    return jnp.mean(temperature * jax.nn.logsumexp(values / temperature, axis=1) - value)


def clipped_surrogate(ratio: Float[Array, "*batch"], advantage: Float[Array, "*batch"], clip: float | Array) -> Float[Array, ""]:
    """Negative PPO objective: -mean min(ratio A, clip(ratio, 1 - clip, 1 + clip) A) (arXiv 1707.06347 eq. 7)."""
    return -jnp.mean(jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage))


def masked_mean(values: Float[Array, "*batch"], mask: Array) -> Float[Array, ""]:
    """Mean over the entries where `mask` is true; 0 where there are none."""
    weight = mask.astype(values.dtype)
    return jnp.sum(values * weight) / jnp.maximum(jnp.sum(weight), 1.0)
