"""Worlds around a world: a time limit, actions that arrive late, a cost channel.

A wrapper is an environment with an environment inside. It hands its own key on unchanged and draws its own randomness from a stream
derived from it, so the wrapped and the plain world meet the same initial states and the same inner noise under the same keys: what
differs between two evaluations is what the wrapper does. Noise, pushes and attacks are in disturbances.py.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from polyact import spaces
from polyact.envs.base import AbstractVar, Action, Env, Observation, State, Step
from polyact.errors import PolyactError
from polyact.spaces import Space

_WRAPPER_STREAM = 0x3A91


class Wrapper(Env):
    """An environment around another one."""

    env: AbstractVar[Env]

    @abstractmethod
    def inner(self, state: State) -> State:
        """The inner environment's part of a state."""


class SameSpaces(Wrapper):
    """A wrapper that changes neither spaces nor horizon."""

    @property
    def observation_space(self) -> Space:
        return self.env.observation_space

    @property
    def action_space(self) -> Space:
        return self.env.action_space

    @property
    def horizon(self) -> int:
        return self.env.horizon


class Memoryless(SameSpaces):
    """A wrapper that changes only the step and remembers nothing: its states are the inner environment's."""

    def inner(self, state: State) -> State:
        return state

    def reset(self, key: PRNGKeyArray) -> tuple[State, Observation]:
        return self.env.reset(key)


class TimeLimit(Wrapper):
    """The same world with another horizon (steps until whoever runs the episode truncates it)."""

    env: Env
    horizon: int = eqx.field(static=True)

    def __check_init__(self):
        if self.horizon < 1:
            raise PolyactError(f"a time limit needs at least one step, got {self.horizon}")

    @property
    def observation_space(self) -> Space:
        return self.env.observation_space

    @property
    def action_space(self) -> Space:
        return self.env.action_space

    def inner(self, state: State) -> State:
        return state

    def reset(self, key: PRNGKeyArray) -> tuple[State, Observation]:
        return self.env.reset(key)

    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Step]:
        return self.env.step(state, action, key)


class DelayState(eqx.Module):
    inner: State
    pending: PyTree  # actions sent and not yet arrived, oldest first, leading axis `steps`


class ActionDelay(SameSpaces):
    """Actions take effect `steps` control steps after they were sent.

    Until the first one arrives the world gets `idle_action`: zeros, clipped into the action space. A real-time rollout whose latency
    is k control steps, with zeros as its fallback, is this wrapper with steps = k; steps = 0 is the plain world.
    """

    env: Env
    steps: int = eqx.field(static=True)

    def __check_init__(self):
        if self.steps < 0:
            raise PolyactError(f"an action can't arrive {-self.steps} steps before it is sent")

    def inner(self, state: DelayState) -> State:
        return state.inner

    def reset(self, key: PRNGKeyArray) -> tuple[DelayState, Observation]:
        inner, observation = self.env.reset(key)
        idle = idle_action(self.action_space)
        return DelayState(inner, jax.tree.map(lambda part: jnp.repeat(part[None], self.steps, 0), idle)), observation

    def step(self, state: DelayState, action: Action, key: PRNGKeyArray) -> tuple[DelayState, Step]:
        queue = jax.tree.map(
            lambda pending, new: jnp.concatenate([pending, jnp.asarray(new, pending.dtype)[None]]), state.pending, action
        )
        inner, step = self.env.step(state.inner, jax.tree.map(lambda part: part[0], queue), key)
        return DelayState(inner, jax.tree.map(lambda part: part[1:], queue)), step


class CostChannel(Memoryless):
    """Adds info["cost"]: `cost(state, action, next state)` of the wrapped environment's states, a scalar, for constrained control."""

    env: Env
    cost: Callable[[State, Action, State], Array] = eqx.field(converter=lambda function: as_leafless(function))

    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Step]:
        new, step = self.env.step(state, action, key)
        cost = jnp.asarray(self.cost(state, action, new), step.reward.dtype)
        return new, with_info(step, cost=cost)


def idle_action(space: Space) -> Action:
    """Doing nothing: zeros, clipped into the action space (a Discrete's start when zero is not in it)."""
    match space:
        case spaces.Box():
            return jnp.asarray(np.clip(np.zeros(space.shape), space.low, space.high), space.dtype)
        case spaces.Discrete():
            return jnp.asarray(np.clip(0, space.start, space.start + space.n - 1), space.dtype)
        case spaces.MultiDiscrete() | spaces.MultiBinary():
            return jnp.zeros(space.shape, space.dtype)
        case spaces.Dict():
            return {name: idle_action(part) for name, part in space.items}
        case spaces.Tuple():
            return tuple(map(idle_action, space.spaces))
    raise PolyactError(f"{space} has no action that stands for doing nothing")


def unwrapped(env: Env, state: State = None) -> tuple[Env, State]:
    """The innermost environment and its part of a state: what is drawn."""
    while isinstance(env, Wrapper):
        env, state = env.env, state if state is None else env.inner(state)
    return env, state


def own_key(wrapper: Wrapper, key: PRNGKeyArray) -> PRNGKeyArray:
    """A key for the wrapper's own randomness, different for each layer, while `key` itself goes to the environment inside."""
    depth, env = 0, wrapper.env
    while isinstance(env, Wrapper):
        depth, env = depth + 1, env.env
    return jax.random.fold_in(key, _WRAPPER_STREAM + depth)


def with_info(step: Step, **extra: Any) -> Step:
    """The same step with more in `info`."""
    return Step(step.observation, step.reward, step.terminated, step.truncated, step.info | extra)


def as_leafless(function: Any) -> Any:
    """A function as a pytree, so that environments holding it can be passed through jit, vmap and scan like any other."""
    return function if isinstance(function, eqx.Module | jax.tree_util.Partial) else jax.tree_util.Partial(function)


def float_box(space: Space, purpose: str) -> spaces.Box:
    """`space` when it is a Box of floats; else one line that says what needed it."""
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return space
    raise PolyactError(f"{purpose} needs a Box of floats, got {space}")
