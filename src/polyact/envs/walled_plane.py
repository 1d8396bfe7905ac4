"""WalledPlane: walk on a plane towards the nearest of some goals, past walls. With a wall across the straight way the reward deceives."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from polyact.envs.base import Observation, Step
from polyact.envs.physics import Parameter, at_least, norm, table
from polyact.envs.scene import BLUE, GREEN, INK, Circle, Drawable, Polygon, Scene, box
from polyact.spaces import Box, Space


class WalledPlane(Drawable):
    """Observation [2]: position (m) in [-1, 1]^2. Action [2] in [-1, 1]: displacement as a share of `stride` (m).

    walls [K, 4]: left, bottom, right, top of rectangles. A move into a wall or out of the plane is dropped along the axis on which it
    would happen. goals [G, 2]. Reward: minus the distance to the nearest goal (m). Never terminates. info: goal [G], whether each is
    within `goal_radius`.
    """

    walls: Float[Array, "*batch K 4"] = eqx.field(default=((-0.5, 0.1, 0.5, 0.2),), converter=table("walls", None, 4))
    goals: Float[Array, "*batch G 2"] = eqx.field(default=((0.0, 0.6),), converter=table("goals", None, 2))
    start: Float[Array, "*batch 2"] = eqx.field(default=(0.0, -0.4), converter=table("start", 2))
    start_spread: Parameter = 0.02
    stride: Parameter = 0.06
    goal_radius: Parameter = 0.1
    horizon: int = eqx.field(static=True, default=50)

    def __check_init__(self):
        at_least(1, horizon=self.horizon, **{"the number of goals": self.goals.shape[-2]})

    @property
    def observation_space(self) -> Space:
        return Box(-1, 1, (2,))

    @property
    def action_space(self) -> Space:
        return Box(-1, 1, (2,))

    def reset(self, key: PRNGKeyArray) -> tuple[Array, Array]:
        place = self.start + self.start_spread * jax.random.uniform(key, (2,), minval=-1, maxval=1)
        return place, place

    def step(self, state: Array, action: Array, key: PRNGKeyArray) -> tuple[Array, Step]:
        move = self.stride * jnp.clip(action, -1, 1)
        for axis in (0, 1):
            tried = state.at[axis].add(move[axis])
            state = jnp.where(self.blocked(tried), state, tried)
        left = norm(state - self.goals)
        no = jnp.asarray(False)
        return state, Step(state, -left.min(), no, no, {"goal": left < self.goal_radius})

    def blocked(self, place: Float[Array, "2"]) -> Bool[Array, ""]:
        """Whether a place lies in a wall or off the plane."""
        x, y = place
        left, bottom, right, top = self.walls.T
        return jnp.any((x > left) & (x < right) & (y > bottom) & (y < top)) | jnp.any(jnp.abs(place) > 1)

    def backdrop(self) -> Scene:
        goals = [Circle(goal, float(self.goal_radius), GREEN, 0.3) for goal in np.asarray(self.goals, float)]
        walls = [
            Polygon(box(((a + c) / 2, (b + d) / 2), (c - a) / 2, (d - b) / 2), INK) for a, b, c, d in np.asarray(self.walls, float)
        ]
        return Scene((*goals, *walls), (-1.05, -1.05, 1.05, 1.05))

    def scene(self, state: Array) -> Scene:
        return self.backdrop().add(Circle(np.asarray(state, float), 0.03, BLUE))

    def position(self, observation: Observation) -> np.ndarray:
        return np.asarray(observation)


def ring_of_goals(count: int = 4, radius: float = 0.9, horizon: int = 50) -> WalledPlane:
    """No walls, and goals evenly around the start in the middle: all are worth the same."""
    angle = 2 * np.pi * np.arange(count) / count
    goals = radius * np.stack([np.cos(angle), np.sin(angle)], 1)
    return WalledPlane(np.zeros((0, 4)), goals, np.zeros(2), goal_radius=0.15, horizon=horizon)  # pyright: ignore[reportArgumentType]
