"""Returns and advantages as plain functions on time-major arrays [T, ...]."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def discounted_returns(
    reward: Float[Array, "T *batch"], stop: Float[Array, "T *batch"], last: Float[Array, "*batch"], discount: float | Array
) -> Float[Array, "T *batch"]:
    """G_t = r_t + discount * (1 - stop_t) * G_{t+1}, with G_T = last. `stop` is 1 where an episode ended."""

    def back(following: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        value = now[0] + discount * (1 - now[1]) * following
        return value, value

    return jax.lax.scan(back, last, (reward, stop), reverse=True)[1]


def generalised_advantage(
    reward: Float[Array, "T *batch"],
    value: Float[Array, "T *batch"],
    next_value: Float[Array, "T *batch"],
    terminated: Float[Array, "T *batch"],
    done: Float[Array, "T *batch"],
    discount: float | Array,
    trace: float | Array,
) -> Float[Array, "T *batch"]:
    """GAE (arXiv 1506.02438 eq. 16): sum over k of (discount * trace)^k delta_{t+k}, cut where an episode is done.

    next_value: value of the observation actually reached, also where the episode was truncated (never a reset's observation).
    terminated: no value follows; done: terminated or truncated.
    """
    delta = reward + discount * (1 - terminated) * next_value - value

    def back(following: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        advantage = now[0] + discount * trace * (1 - now[1]) * following
        return advantage, advantage

    return jax.lax.scan(back, jnp.zeros_like(delta[0]), (delta, done), reverse=True)[1]


def normalised(advantage: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Zero mean and unit standard deviation over all entries."""
    return (advantage - advantage.mean()) / (advantage.std() + 1e-8)
