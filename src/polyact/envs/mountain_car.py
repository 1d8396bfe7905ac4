"""MountainCarContinuous: a car too weak for the hill must rock back and forth to get out of the valley.

The dynamics, observation and reward are those of gymnasium's MountainCarContinuous-v0, so results compare directly.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.envs.base import Observation, State, Step
from polyact.envs.physics import Parameter, at_least
from polyact.envs.scene import BLUE, GREEN, INK, PALE, Circle, Drawable, Line, Polygon, Scene, box
from polyact.spaces import Box, Space


class MountainCarContinuous(Drawable):
    """Observation [2]: position and velocity (per step). Action [1] in [-1, 1]: engine force.

    Reward: 100 on reaching the goal, which terminates, minus 0.1 action^2.
    """

    power: Parameter = 0.0015
    gravity: Parameter = 0.0025
    goal: Parameter = 0.45
    left: float = eqx.field(static=True, default=-1.2)
    right: float = eqx.field(static=True, default=0.6)
    max_speed: float = eqx.field(static=True, default=0.07)
    horizon: int = eqx.field(static=True, default=999)

    def __check_init__(self):
        at_least(1, horizon=self.horizon)

    @property
    def observation_space(self) -> Space:
        return Box(np.array([self.left, -self.max_speed]), np.array([self.right, self.max_speed]))

    @property
    def action_space(self) -> Space:
        return Box(-1, 1, (1,))

    def reset(self, key: PRNGKeyArray) -> tuple[Array, Array]:
        """The state is the observation."""
        state = jnp.stack([jax.random.uniform(key, minval=-0.6, maxval=-0.4), jnp.zeros(())])
        return state, state

    def step(self, state: Array, action: Array, key: PRNGKeyArray) -> tuple[Array, Step]:
        position, velocity = state
        force = jnp.clip(action[0], -1, 1)
        velocity = jnp.clip(velocity + force * self.power - self.gravity * jnp.cos(3 * position), -self.max_speed, self.max_speed)
        position = jnp.clip(position + velocity, self.left, self.right)
        velocity = jnp.where((position <= self.left) & (velocity < 0), 0.0, velocity)
        reached = (position >= self.goal) & (velocity >= 0)
        new = jnp.stack([position, velocity])
        # gymnasium charges for the action as it was asked for, not as it was clipped
        reward = 100.0 * reached - 0.1 * action[0] ** 2
        return new, Step(new, reward, reached, jnp.asarray(False), {})

    def backdrop(self) -> Scene:
        x = np.linspace(self.left, self.right, 80)
        ground = np.concatenate([np.stack([x, _height(x)], 1), [[self.right, -0.12], [self.left, -0.12]]])
        goal = float(self.goal)
        foot = _height(goal)
        flag = np.array([[goal, foot + 0.3], [goal + 0.12, foot + 0.25], [goal, foot + 0.2]])
        pole = Line(np.array([[goal, foot], [goal, foot + 0.3]]), 0.012, INK)
        return Scene((Polygon(ground, PALE), pole, Polygon(flag, GREEN)), (self.left, -0.12, self.right, 1.35))

    def scene(self, state: State) -> Scene:
        x = float(state[0])
        slope = np.arctan(0.45 * 3 * np.cos(3 * x))
        foot = np.array([x, _height(x)])
        along, up = np.array([np.cos(slope), np.sin(slope)]), np.array([-np.sin(slope), np.cos(slope)])
        wheels = [Circle(foot + 0.028 * up + side * along, 0.028, INK) for side in (-0.05, 0.05)]
        cabin = Polygon(box(foot + 0.105 * up, 0.045, 0.03, slope), BLUE)
        return self.backdrop().add(Polygon(box(foot + 0.06 * up, 0.085, 0.028, slope), BLUE), cabin, *wheels)

    def position(self, observation: Observation) -> np.ndarray:
        """The car's place on the hill."""
        x = np.asarray(observation)[:, 0]
        return np.stack([x, _height(x) + 0.05], 1)


def rock(env: MountainCarContinuous, observation: Float[Array, "2"], key: PRNGKeyArray) -> Float[Array, "1"]:
    """Push with the motion, so that every swing gains height."""
    return jnp.where(observation[1] >= 0, 1.0, -1.0)[None]


def _height(x: np.ndarray | float) -> np.ndarray | float:
    return 0.45 * np.sin(3 * x) + 0.55
