"""DoubleIntegrator: bring a mass to rest at the origin; linear dynamics and quadratic cost, so the best policy is known exactly."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.envs.base import Observation, State, Step
from polyact.envs.physics import Parameter, at_least
from polyact.envs.scene import BLUE, GREEN, PALE, Circle, Drawable, Line, Scene
from polyact.spaces import Box, Space


class DoubleIntegrator(Drawable):
    """Observation [2 D]: positions (m), then velocities (m/s). Action [D] in [-1, 1]: force as a share of `max_force` (N).

    The force is constant over a control interval and the motion within it exact. Reward: minus the quadratic cost of the state and
    force that the step started with. With the default numbers the optimal force stays within its bounds from every initial state.
    """

    mass: Parameter = 1.0
    timestep: Parameter = 0.1
    max_force: Parameter = 5.0
    position_cost: Parameter = 1.0
    velocity_cost: Parameter = 0.1
    force_cost: Parameter = 0.1
    dimensions: int = eqx.field(static=True, default=1)
    horizon: int = eqx.field(static=True, default=100)

    def __check_init__(self):
        at_least(1, dimensions=self.dimensions, horizon=self.horizon)

    @property
    def observation_space(self) -> Space:
        return Box(-np.inf, np.inf, (2 * self.dimensions,))

    @property
    def action_space(self) -> Space:
        return Box(-1, 1, (self.dimensions,))

    def reset(self, key: PRNGKeyArray) -> tuple[Array, Array]:
        """Uniform in [-1, 1] for positions, [-0.5, 0.5] for velocities. The state is the observation."""
        scale = jnp.repeat(jnp.array([1.0, 0.5]), self.dimensions)
        state = scale * jax.random.uniform(key, (2 * self.dimensions,), minval=-1, maxval=1)
        return state, state

    def step(self, state: Array, action: Array, key: PRNGKeyArray) -> tuple[Array, Step]:
        force = self.max_force * jnp.clip(action, -1, 1)
        a, b = self.matrices()
        x = state.reshape(2, self.dimensions)
        q, r = self.costs()
        cost = jnp.sum(q[:, None] * x**2) + r * jnp.sum(force**2)
        new = (a @ x + b[:, None] * force).reshape(-1)
        no = jnp.asarray(False)
        return new, Step(new, -cost, no, no, {})

    def matrices(self) -> tuple[Float[Array, "2 2"], Float[Array, "2"]]:
        """A and b of one axis: (position, velocity)' = A (position, velocity) + b force."""
        dt, one, zero = jnp.asarray(self.timestep, float), jnp.ones(()), jnp.zeros(())
        return jnp.stack([one, dt, zero, one]).reshape(2, 2), jnp.stack([dt**2 / 2, dt]) / self.mass

    def costs(self) -> tuple[Float[Array, "2"], Float[Array, ""]]:
        """Weights of (position^2, velocity^2) and of force^2 in the cost of one step."""
        return jnp.stack([jnp.asarray(w, float) for w in (self.position_cost, self.velocity_cost)]), jnp.asarray(
            self.force_cost, float
        )

    def backdrop(self) -> Scene:
        axis = np.array([[-1.7, 0.0], [1.7, 0.0]])
        lines = [Line(axis, 0.015, PALE)] + [Line(axis[:, ::-1], 0.015, PALE)] * (self.dimensions > 1)
        height = 1.7 if self.dimensions > 1 else 0.5
        return Scene((*lines, Circle((0.0, 0.0), 0.09, GREEN, 0.6)), (-1.7, -height, 1.7, height))

    def scene(self, state: State) -> Scene:
        (x, y), velocity = _plane(np.asarray(state, float)[None])[0], _plane(np.asarray(state, float)[None, self.dimensions :])[0]
        arrow = np.array([[x, y], [x + 0.3 * velocity[0], y + 0.3 * velocity[1]]])
        return self.backdrop().add(Circle((x, y), 0.07, BLUE), Line(arrow, 0.02, BLUE))

    def position(self, observation: Observation) -> np.ndarray:
        """The first two coordinates."""
        return _plane(np.asarray(observation)[:, : self.dimensions])


def lqr(env: DoubleIntegrator) -> tuple[Float[Array, "2"], Float[Array, "2 2"]]:
    """The exact optimum over an endless horizon, without force bounds: (gain, value).

    Along each axis force = -gain . (position, velocity), and the cost to go is x' value x. The Riccati equation is solved by the
    structure-preserving doubling algorithm (Chu, Fan, Lin, Wang 2004): ten iterations stand for a horizon of 1024 steps.
    """
    a, b = env.matrices()
    q, r = env.costs()
    forward, inward, value = a, jnp.outer(b, b) / r, jnp.diag(q)
    for _ in range(10):
        bend = _inverse(jnp.eye(2) + inward @ value)
        step = forward @ bend
        inward, value = inward + step @ inward @ forward.T, value + forward.T @ value @ bend @ forward
        forward = step @ forward
    return b @ value @ a / (r + b @ value @ b), value


def optimal(env: DoubleIntegrator, observation: Float[Array, "O"], key: PRNGKeyArray) -> Float[Array, "A"]:
    """The LQR's action."""
    gain, _ = lqr(env)
    return jnp.clip(-gain @ observation.reshape(2, -1) / env.max_force, -1, 1)


def _inverse(matrix: Float[Array, "2 2"]) -> Float[Array, "2 2"]:
    (a, b), (c, d) = matrix
    return jnp.stack([d, -b, -c, a]).reshape(2, 2) / (a * d - b * c)


def _plane(points: np.ndarray) -> np.ndarray:
    """The first two coordinates [T, 2]; the second is zero when there is one only."""
    return np.concatenate([points, np.zeros((len(points), 1))], 1)[:, :2] if points.shape[1] < 2 else points[:, :2]
