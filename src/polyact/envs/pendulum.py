"""Pendulum: swing a rod up and hold it, with a torque too weak to lift it in one go.

The dynamics, observation and reward are those of gymnasium's Pendulum-v1, so results compare directly.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.envs.base import Env, Step
from polyact.spaces import Box, Space


class PendulumState(eqx.Module):
    angle: Float[Array, ""]  # rad, 0 is upright
    velocity: Float[Array, ""]  # rad/s


class Pendulum(Env):
    """Observation [3]: cos, sin of the angle and its velocity (rad/s). Action [1]: torque (N m)."""

    gravity: float = 10.0
    mass: float = 1.0
    length: float = 1.0
    timestep: float = 0.05
    max_speed: float = 8.0
    max_torque: float = eqx.field(static=True, default=2.0)
    horizon: int = eqx.field(static=True, default=200)

    @property
    def observation_space(self) -> Space:
        return Box(np.array([-1, -1, -8]), np.array([1, 1, 8]))

    @property
    def action_space(self) -> Space:
        return Box(-self.max_torque, self.max_torque, (1,))

    def reset(self, key: PRNGKeyArray) -> tuple[PendulumState, Array]:
        angle, velocity = jax.random.uniform(key, (2,), minval=-1, maxval=1) * jnp.array([jnp.pi, 1.0])
        state = PendulumState(angle, velocity)
        return state, _observe(state)

    def step(self, state: PendulumState, action: Array, key: PRNGKeyArray) -> tuple[PendulumState, Step]:
        torque = jnp.clip(action[0], -self.max_torque, self.max_torque)
        wrapped = (state.angle + jnp.pi) % (2 * jnp.pi) - jnp.pi
        cost = wrapped**2 + 0.1 * state.velocity**2 + 0.001 * torque**2
        acceleration = 1.5 * self.gravity / self.length * jnp.sin(state.angle) + 3 * torque / (self.mass * self.length**2)
        velocity = jnp.clip(state.velocity + acceleration * self.timestep, -self.max_speed, self.max_speed)
        new = PendulumState(state.angle + velocity * self.timestep, velocity)
        no = jnp.asarray(False)
        return new, Step(_observe(new), -cost, no, no, {})


def _observe(state: PendulumState) -> Float[Array, "3"]:
    return jnp.stack([jnp.cos(state.angle), jnp.sin(state.angle), state.velocity])
