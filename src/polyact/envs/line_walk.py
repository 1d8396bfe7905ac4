"""LineWalk: walk along a line to its end, not too fast. The smallest world in which a neighbour's action is worth borrowing."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.envs.base import Env, Step
from polyact.envs.physics import Parameter, at_least
from polyact.spaces import Box, Space


class LineWalk(Env):
    """Observation [1]: position in [0, 1]. Action [1] in [-1, 1]: step, as a share of `stride`.

    Reward: the way gained. Reaching 1 ends the task, and so does an action whose size is beyond `trip`, which gains nothing. Episodes
    start uniformly in [0, `start`]. The best policy steps as far as it may without tripping and earns 1 - its start.
    """

    start: Parameter = 0.05
    stride: Parameter = 0.1
    trip: Parameter = 0.55
    horizon: int = eqx.field(static=True, default=80)

    def __check_init__(self):
        at_least(1, horizon=self.horizon)

    @property
    def observation_space(self) -> Space:
        return Box(0, 1, (1,))

    @property
    def action_space(self) -> Space:
        return Box(-1, 1, (1,))

    def reset(self, key: PRNGKeyArray) -> tuple[Array, Array]:
        state = jax.random.uniform(key, (1,), maxval=self.start)
        return state, state

    def step(self, state: Float[Array, "1"], action: Float[Array, "1"], key: PRNGKeyArray) -> tuple[Array, Step]:
        tripped = jnp.abs(action[0]) > self.trip
        new = jnp.where(tripped, state, jnp.clip(state + self.stride * action, 0, 1))
        return new, Step(new, (new - state)[0], tripped | (new[0] >= 1), jnp.asarray(False), {})


def checkerboard(position: Float[np.ndarray, "..."], cells: int) -> np.ndarray:
    """Whether positions lie in a cell with an odd number, counted from 0 over [0, 1)."""
    return np.floor(np.asarray(position) * cells).astype(int) % 2 == 1
