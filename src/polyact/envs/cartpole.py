"""CartPoleSwingUp: a pole hangs from a cart on a short track; swing it up and balance it.

The rigid-body equations are those of Barto, Sutton and Anderson (1983) with a uniform pole, joint and rail friction, integrated by a
fourth-order Runge-Kutta rule (their Euler step gains energy).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.envs.base import Observation, Step
from polyact.envs.physics import Parameter, at_least, rk4
from polyact.envs.scene import BLUE, INK, PALE, RED, Circle, Drawable, Line, Polygon, Scene, box
from polyact.spaces import Box, Space


class CartPoleState(eqx.Module):
    position: Float[Array, ""]  # m
    velocity: Float[Array, ""]  # m/s
    angle: Float[Array, ""]  # rad, 0 is upright
    rate: Float[Array, ""]  # rad/s


class CartPoleSwingUp(Drawable):
    """Observation [5]: cart position (m) and velocity, cos and sin of the pole's angle (0 is upright), its rate (rad/s).

    Action [1] in [-1, 1]: force on the cart as a share of `max_force` (N). Reward in [0, 1]: (1 + cos angle) / 2, less towards the
    ends of the track. Leaving the track terminates, so it costs all that could still be earned.
    """

    gravity: Parameter = 9.81
    cart_mass: Parameter = 1.0
    pole_mass: Parameter = 0.1
    pole_length: Parameter = 1.0
    cart_friction: Parameter = 0.1
    joint_friction: Parameter = 0.002
    max_force: Parameter = 10.0
    track: Parameter = 2.4
    timestep: Parameter = 0.04
    horizon: int = eqx.field(static=True, default=250)

    def __check_init__(self):
        at_least(1, horizon=self.horizon)

    @property
    def observation_space(self) -> Space:
        high = np.array([np.inf, np.inf, 1, 1, np.inf])
        return Box(-high, high)

    @property
    def action_space(self) -> Space:
        return Box(-1, 1, (1,))

    def reset(self, key: PRNGKeyArray) -> tuple[CartPoleState, Array]:
        position, velocity, angle, rate = 0.05 * jax.random.normal(key, (4,))
        state = CartPoleState(position, velocity, jnp.pi + angle, rate)
        return state, _observe(state)

    def step(self, state: CartPoleState, action: Array, key: PRNGKeyArray) -> tuple[CartPoleState, Step]:
        force = self.max_force * jnp.clip(action[0], -1, 1)
        new = rk4(lambda s: self._derivative(s, force), state, self.timestep)
        off = jnp.abs(new.position) / self.track
        reward = 0.5 * (1 + jnp.cos(new.angle)) * jnp.clip(1 - off**2, 0)
        return new, Step(_observe(new), reward, off > 1, jnp.asarray(False), {})

    def _derivative(self, state: CartPoleState, force: Array) -> CartPoleState:
        cos, sin = jnp.cos(state.angle), jnp.sin(state.angle)
        total, half = self.cart_mass + self.pole_mass, self.pole_length / 2
        pushed = (force - self.cart_friction * state.velocity + self.pole_mass * half * state.rate**2 * sin) / total
        drag = self.joint_friction * state.rate / (self.pole_mass * half)
        turn = (self.gravity * sin - cos * pushed - drag) / (half * (4 / 3 - self.pole_mass * cos**2 / total))
        return CartPoleState(state.velocity, pushed - self.pole_mass * half * turn * cos / total, state.rate, turn)

    def energy(self, state: CartPoleState) -> Float[Array, ""]:
        """Kinetic plus potential energy (J), zero for the pole upright at rest."""
        half = self.pole_length / 2
        kinetic = (
            (self.cart_mass + self.pole_mass) * state.velocity**2 / 2
            + self.pole_mass * half * state.velocity * state.rate * jnp.cos(state.angle)
            + 2 / 3 * self.pole_mass * half**2 * state.rate**2
        )
        return kinetic + self.pole_mass * self.gravity * half * (jnp.cos(state.angle) - 1)

    def backdrop(self) -> Scene:
        track, length = float(self.track), float(self.pole_length)
        ends = [Line(np.array([[x, -0.09], [x, 0.09]]), 0.05, INK) for x in (-track, track)]
        rail = Line(np.array([[-track, 0], [track, 0]]), 0.05, PALE)
        return Scene((rail, *ends), (-track - 0.3, -1.25 * length, track + 0.3, 1.35 * length))

    def scene(self, state: CartPoleState) -> Scene:
        x, angle, length = float(state.position), float(state.angle), float(self.pole_length)
        pole = np.array([[x, 0.0], [x + length * np.sin(angle), length * np.cos(angle)]])
        return self.backdrop().add(
            Polygon(box((x, 0.0), 0.26, 0.13), BLUE),
            Line(pole, 0.09, RED),
            Circle((x, 0.0), 0.04, "#ffffff"),
        )

    def position(self, observation: Observation) -> np.ndarray:
        """The tip of the pole."""
        x, _, cos, sin, _ = np.asarray(observation).T
        length = float(self.pole_length)
        return np.stack([x + length * sin, length * cos], 1)


def swing_up(env: CartPoleSwingUp, observation: Float[Array, "5"], key: PRNGKeyArray) -> Float[Array, "1"]:
    """Pump energy into the pole while keeping the cart near the middle, then balance with a linear controller."""
    x, v, cos, sin, rate = observation
    half = env.pole_length / 2
    energy = 2 / 3 * half * rate**2 + env.gravity * (cos - 1)  # per m l / 2
    drive = jnp.clip(2.0 * energy, -6, 6) * jnp.sign(rate * cos)
    pump = drive - 2.0 * x - 1.0 * v
    hold = 1.5 * x + 2.5 * v + 30.0 * jnp.arctan2(sin, cos) + 7.0 * rate
    near = (cos > 0.85) & (jnp.abs(rate) < 4.0)
    return jnp.clip(jnp.where(near, hold, pump) * (env.cart_mass + env.pole_mass) / env.max_force, -1, 1)[None]


def _observe(state: CartPoleState) -> Float[Array, "5"]:
    return jnp.stack([state.position, state.velocity, jnp.cos(state.angle), jnp.sin(state.angle), state.rate])
