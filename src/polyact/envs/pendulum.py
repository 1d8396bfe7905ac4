"""Pendulum: swing a rod up and hold it, with a torque too weak to lift it in one go.

The dynamics, observation and reward are those of gymnasium's Pendulum-v1, so results compare directly.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.envs.base import Observation, Step
from polyact.envs.physics import Parameter, at_least, wrap
from polyact.envs.scene import INK, PALE, RED, Circle, Drawable, Line, Scene
from polyact.spaces import Box, Space


class PendulumState(eqx.Module):
    angle: Float[Array, ""]  # rad, 0 is upright
    velocity: Float[Array, ""]  # rad/s


class Pendulum(Drawable):
    """Observation [3]: cos, sin of the angle and its velocity (rad/s). Action [1]: torque (N m)."""

    gravity: Parameter = 10.0
    mass: Parameter = 1.0
    length: Parameter = 1.0
    timestep: Parameter = 0.05
    max_speed: float = eqx.field(static=True, default=8.0)
    max_torque: float = eqx.field(static=True, default=2.0)
    horizon: int = eqx.field(static=True, default=200)

    def __check_init__(self):
        at_least(1, horizon=self.horizon)

    @property
    def observation_space(self) -> Space:
        high = np.array([1, 1, self.max_speed])
        return Box(-high, high)

    @property
    def action_space(self) -> Space:
        return Box(-self.max_torque, self.max_torque, (1,))

    def reset(self, key: PRNGKeyArray) -> tuple[PendulumState, Array]:
        angle, velocity = jax.random.uniform(key, (2,), minval=-1, maxval=1) * jnp.array([jnp.pi, 1.0])
        state = PendulumState(angle, velocity)
        return state, _observe(state)

    def step(self, state: PendulumState, action: Array, key: PRNGKeyArray) -> tuple[PendulumState, Step]:
        torque = jnp.clip(action[0], -self.max_torque, self.max_torque)
        cost = wrap(state.angle) ** 2 + 0.1 * state.velocity**2 + 0.001 * torque**2
        acceleration = 1.5 * self.gravity / self.length * jnp.sin(state.angle) + 3 * torque / (self.mass * self.length**2)
        velocity = jnp.clip(state.velocity + acceleration * self.timestep, -self.max_speed, self.max_speed)
        new = PendulumState(state.angle + velocity * self.timestep, velocity)
        no = jnp.asarray(False)
        return new, Step(_observe(new), -cost, no, no, {})

    def backdrop(self) -> Scene:
        reach = float(self.length) * 1.25
        return Scene((Circle((0.0, 0.0), float(self.length), PALE, 0.35),), (-reach, -reach, reach, reach))

    def scene(self, state: PendulumState) -> Scene:
        length, angle = float(self.length), float(state.angle)
        tip = length * np.array([np.sin(angle), np.cos(angle)])
        return self.backdrop().add(
            Line(np.stack([np.zeros(2), tip]), 0.14 * length, RED),
            Circle((0.0, 0.0), 0.06 * length, INK),
        )

    def position(self, observation: Observation) -> np.ndarray:
        """The tip of the rod."""
        return float(self.length) * np.asarray(observation)[:, [1, 0]]


def swing_up(env: Pendulum, observation: Float[Array, "3"], key: PRNGKeyArray) -> Float[Array, "1"]:
    """Pump energy until the rod can coast to the top, then hold it there with a linear controller."""
    cos, sin, velocity = observation
    # Energy of the rod about its pivot, per m l^2: zero when it stands upright at rest.
    energy = velocity**2 / 6 + env.gravity / env.length * (cos - 1) / 2
    pump = jnp.where(energy < 0, env.max_torque, -env.max_torque) * jnp.sign(velocity + 1e-6)
    stiffness = 1.5 * env.gravity / env.length + 20.0
    hold = -env.mass * env.length**2 / 3 * (stiffness * jnp.arctan2(sin, cos) + 9.0 * velocity)
    near = (cos > 0.8) & (jnp.abs(energy) < 2.0)
    return jnp.clip(jnp.where(near, hold, pump), -env.max_torque, env.max_torque)[None]


def _observe(state: PendulumState) -> Float[Array, "3"]:
    return jnp.stack([jnp.cos(state.angle), jnp.sin(state.angle), state.velocity])
