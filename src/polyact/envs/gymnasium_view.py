"""A functional environment as a gymnasium.Env, so that Stable-Baselines3, and whatever else speaks gymnasium, can train on it."""

from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import numpy as np

from polyact import spaces
from polyact.envs.base import Env, Observation, State
from polyact.envs.render import render_rgb
from polyact.envs.scene import Drawable
from polyact.envs.wrappers import unwrapped
from polyact.errors import PolyactError
from polyact.spaces import Space


def as_gymnasium(env: Env, render_mode: str | None = None) -> "GymnasiumView":
    """`env` as a gymnasium.Env: the same dynamics, compiled for the CPU, truncated at `env.horizon`.

    render_mode: None, or "rgb_array" for environments that can be drawn. `reset(seed=...)` fixes everything that follows.
    """
    return GymnasiumView(env, render_mode)


class GymnasiumView(gymnasium.Env):
    """See `as_gymnasium`. `state` is the functional state; setting it lets an episode go on from there."""

    def __init__(self, env: Env, render_mode: str | None = None):
        drawn, _ = unwrapped(env)
        if render_mode not in (None, "rgb_array"):
            raise PolyactError(f"render_mode must be None or 'rgb_array', got '{render_mode}'")
        if render_mode and not isinstance(drawn, Drawable):
            raise PolyactError(f"{type(drawn).__name__} can't be drawn, so render_mode must be None")
        fps = round(1 / float(getattr(drawn, "timestep", 1 / 30)))
        self.metadata = {"render_modes": ["rgb_array"] if isinstance(drawn, Drawable) else [], "render_fps": fps}
        self.render_mode = render_mode
        self.world = env
        self.observation_space = spaces.to_gymnasium(env.observation_space)
        self.action_space = spaces.to_gymnasium(env.action_space)
        self._spaces = env.observation_space, env.action_space
        self._device = _cpu()
        self._reset, self._step, self._structure = _compile(jax.device_put(env, self._device))
        self._leaves: tuple[jax.Array, ...] | None = None
        self._key: jax.Array | None = None
        self._elapsed = 0

    @property
    def state(self) -> State:
        if self._leaves is None:
            raise PolyactError("there is no state before the first reset")
        return jax.tree.unflatten(self._structure, self._leaves)

    @state.setter
    def state(self, state: State) -> None:
        leaves, structure = jax.tree.flatten(state)
        if structure != self._structure:
            raise PolyactError(f"a state of {type(self.world).__name__} has the structure {self._structure}, got {structure}")
        self._leaves = tuple(jax.device_put(leaf, self._device) for leaf in leaves)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        number = jax.device_put(self.np_random.integers(2**32, dtype=np.uint32), self._device)
        self._leaves, self._key, observation = self._reset(number)
        self._elapsed = 0
        return _to_host(self._spaces[0], observation), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._leaves is None:
            raise PolyactError("call reset before the first step")
        given = _from_host(self._spaces[1], action)
        self._leaves, self._key, observation, reward, terminated, truncated, info = self._step(self._leaves, self._key, given)
        self._elapsed += 1
        ended = bool(terminated)
        cut = (bool(truncated) or self._elapsed >= self.world.horizon) and not ended
        return _to_host(self._spaces[0], observation), float(reward), ended, cut, jax.tree.map(np.array, info)

    def render(self) -> np.ndarray | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        if self.render_mode is None:
            return None
        env, state = unwrapped(self.world, self.state)
        assert isinstance(env, Drawable)
        return render_rgb(env, state)


def _compile(env: Env) -> tuple[Callable[..., Any], Callable[..., Any], Any]:
    """Reset and step of one environment, its parameters constants of the programs, and the structure of its states.

    States travel as tuples of leaves and keys as their data: calling a compiled function with those takes a fraction of the time.
    """
    structure = jax.tree.structure(jax.eval_shape(env.reset, jax.random.key(0))[0])

    @jax.jit
    def reset(number: jax.Array) -> tuple[tuple[jax.Array, ...], jax.Array, Observation]:
        first, later = jax.random.split(jax.random.key(number))
        state, observation = env.reset(first)
        return tuple(jax.tree.leaves(state)), jax.random.key_data(later), observation

    @jax.jit
    def step(leaves: tuple[jax.Array, ...], key: jax.Array, action: Any) -> tuple[Any, ...]:
        now, later = jax.random.split(jax.random.wrap_key_data(key))
        state, step = env.step(jax.tree.unflatten(structure, leaves), action, now)
        ends = step.reward, step.terminated, step.truncated
        return tuple(jax.tree.leaves(state)), jax.random.key_data(later), step.observation, *ends, step.info

    return reset, step, structure


def _cpu() -> Any:
    """The CPU also where an accelerator is the default: one small step at a time is no work for it."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return jax.local_devices()[0]


def _to_host(space: Space, value: Any) -> Any:
    """A value as gymnasium's spaces want it, sharing no memory with what comes later."""
    match space:
        case spaces.Dict():
            return {name: _to_host(part, value[name]) for name, part in space.items}
        case spaces.Tuple():
            return tuple(_to_host(part, one) for part, one in zip(space.spaces, value, strict=True))
        case spaces.Discrete():
            return np.int64(value)
        case spaces.MultiDiscrete():
            return np.array(value, np.int64)
    return np.array(value, space.dtype)  # pyright: ignore[reportAttributeAccessIssue]


def _from_host(space: Space, value: Any) -> Any:
    match space:
        case spaces.Dict():
            return {name: _from_host(part, value[name]) for name, part in space.items}
        case spaces.Tuple():
            return tuple(_from_host(part, one) for part, one in zip(space.spaces, value, strict=True))
    array = np.asarray(value, space.dtype)  # pyright: ignore[reportAttributeAccessIssue]
    if array.shape != space.shape:  # pyright: ignore[reportAttributeAccessIssue]
        raise PolyactError(f"an action of {space} has shape {space.shape}, got {array.shape}")  # pyright: ignore[reportAttributeAccessIssue]
    return array
