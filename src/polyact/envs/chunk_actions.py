"""A world whose one action is a whole chunk of another's: what learners need that decide once per chunk."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from polyact.envs.base import Action, Env, Observation, State, Step
from polyact.envs.vector import where
from polyact.envs.wrappers import Wrapper, float_box
from polyact.errors import PolyactError
from polyact.spaces import Box, Space


class ChunkActions(Wrapper):
    """`length` steps of `env` as one. Action [length * A]: its actions, one after the other; none is played once the episode has ended.

    Rewards are summed undiscounted, info columns are true (or largest) if they were at any step. The horizon counts chunks, rounded down.
    """

    env: Env
    length: int = eqx.field(static=True)

    def __check_init__(self):
        if not 1 <= self.length <= self.env.horizon:
            raise PolyactError(f"a chunk's length must lie between 1 and the horizon {self.env.horizon}, got {self.length}")

    @property
    def observation_space(self) -> Space:
        return self.env.observation_space

    @property
    def action_space(self) -> Space:
        box = float_box(self.env.action_space, "chunks")
        low, high = (np.tile(np.broadcast_to(bound, box.shape).reshape(-1), self.length) for bound in (box.low, box.high))
        return Box(low, high)

    @property
    def horizon(self) -> int:
        return self.env.horizon // self.length

    def inner(self, state: State) -> State:
        return state

    def reset(self, key: PRNGKeyArray) -> tuple[State, Observation]:
        return self.env.reset(key)

    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Step]:
        shape = float_box(self.env.action_space, "chunks").shape
        actions, keys = jnp.reshape(action, (self.length, *shape)), jax.random.split(key, self.length)
        first = self.env.step(state, actions[0], keys[0])
        return go_on(lambda state, now: self.env.step(state, *now), first, (actions[1:], keys[1:]))


def go_on(play: Callable[[Any, Any], tuple[Any, Step]], first: tuple[Any, Step], inputs: Any) -> tuple[Any, Step]:
    """More steps after the first as one with it: `state, step = play(state, input)` for every row of `inputs`, until the episode ends.

    Rewards are summed, info columns are the largest.
    """

    def one(carry: tuple[Any, Step], now: Any) -> tuple[tuple[Any, Step], None]:
        state, done = carry
        moved, step = play(state, now)
        over = done.terminated | done.truncated
        info = jax.tree.map(jnp.maximum, done.info, step.info)
        step = Step(step.observation, done.reward + step.reward, step.terminated, step.truncated, info)
        return where(over, carry, (moved, step)), None

    return jax.lax.scan(one, first, inputs)[0]
