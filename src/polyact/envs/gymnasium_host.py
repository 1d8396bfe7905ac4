"""Any Gymnasium environment as a `HostEnv`: MuJoCo, robots, games, whatever registers itself with gymnasium.

gymnasium's vector environments restart an episode by themselves, in the step after its end (AutoresetMode.NEXT_STEP) or in the same
one (SAME_STEP, the final observation then hides in the info). A plain loop needs neither: it stops where an episode ends, gives every
episode its own seed and is as fast, for the simulators' steps are what takes the time.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import Int

from polyact import spaces
from polyact.envs.host import HostEnv, HostStep, Slots
from polyact.errors import PolyactError, need
from polyact.spaces import Space


def from_gymnasium(
    env: str | Callable[[], gymnasium.Env],
    count: int = 1,
    horizon: int | None = None,
    options: Mapping[str, Any] | None = None,
    info: Sequence[str] = (),
) -> "GymnasiumEnv":
    """`count` copies of a Gymnasium environment.

    env: a registered name ("InvertedPendulum-v5", or "package:Name-v0" to import what registers it) or a function that makes one.
    horizon: steps until an episode is truncated; default: the registered limit. options: further arguments of `gymnasium.make`, such
    as {"render_mode": "rgb_array"}. info: names of numbers to record from the step's info (0 where a step does not report one).
    Raises PolyactError for unknown names, missing packages (with the command that installs them) and when no horizon is known.
    """
    if count < 1:
        raise PolyactError(f"count must be at least 1, got {count}")
    if horizon is not None and horizon < 1:
        raise PolyactError(f"an episode needs a horizon of at least one step, got {horizon}")
    if isinstance(env, str):
        name, make = env, _maker(env, horizon, dict(options or {}))
    elif options:
        raise PolyactError("options are for environments that are made by name; put them into the function that makes this one")
    else:
        name, make = getattr(env, "__name__", type(env).__name__), env
    slots = [_made(name, make) for _ in range(count)]
    limit = horizon or (slots[0].spec.max_episode_steps if slots[0].spec else None)
    if not limit:
        raise PolyactError(
            f"gymnasium's '{name}' has no time limit of its own: say how many steps an episode lasts with horizon=..."
        )
    return GymnasiumEnv(name, slots, limit, tuple(info))


class GymnasiumEnv(HostEnv):
    """Gymnasium environments in slots, stepped one after the other. Made by `from_gymnasium`.

    Box actions are clipped into the action space, as functional environments do themselves. Raises PolyactError for actions that are
    not finite.
    """

    def __init__(self, name: str, slots: Sequence[gymnasium.Env], horizon: int, info: tuple[str, ...]):
        self.name = name
        self.count = len(slots)
        self.horizon = horizon
        self.observation_space = spaces.from_gymnasium(slots[0].observation_space)
        self.action_space = spaces.from_gymnasium(slots[0].action_space)
        self.control_hz = _control_rate(slots[0])
        self._slots = list(slots)
        self._elapsed = np.full(self.count, -1)  # -1: no episode is running
        self._info = info
        self._reported: set[str] = set()

    def reset(self, seeds: Sequence[int] | Int[np.ndarray, "K"], slots: Slots = None) -> Any:
        chosen = self._chosen(slots)
        if len(seeds) != len(chosen):
            raise PolyactError(f"{len(chosen)} episodes need as many seeds, got {len(seeds)}")
        observations = [self._slots[slot].reset(seed=int(seed))[0] for slot, seed in zip(chosen, seeds, strict=True)]
        self._elapsed[chosen] = 0
        return _stack(self.observation_space, observations)

    def step(self, actions: Any, slots: Slots = None) -> HostStep:
        chosen = self._chosen(slots)
        idle = chosen[self._elapsed[chosen] < 0]
        if len(idle):
            raise PolyactError(f"no episode is running in slot {idle[0]} of '{self.name}': reset it first")
        each = _unstack(self.action_space, actions, len(chosen))
        results = [self._slots[slot].step(action) for slot, action in zip(chosen, each, strict=True)]
        self._elapsed[chosen] += 1
        terminated = np.array([bool(result[2]) for result in results])
        cut = np.array([bool(result[3]) for result in results])
        truncated = (cut | (self._elapsed[chosen] >= self.horizon)) & ~terminated
        info = self._recorded([result[4] for result in results], bool(np.any(terminated | truncated)))
        self._elapsed[chosen[terminated | truncated]] = -1
        reward = np.array([float(result[1]) for result in results])
        return HostStep(_stack(self.observation_space, [result[0] for result in results]), reward, terminated, truncated, info)

    def render(self, slot: int = 0) -> np.ndarray:
        env = self._slots[slot]
        if env.render_mode != "rgb_array":
            raise PolyactError(f"'{self.name}' was made without pictures; pass options={{'render_mode': 'rgb_array'}}")
        return np.asarray(env.render(), np.uint8)

    def close(self) -> None:
        while self._slots:
            self._slots.pop().close()

    def _chosen(self, slots: Slots) -> np.ndarray:
        if not self._slots:
            raise PolyactError(f"'{self.name}' has been closed")
        chosen = np.arange(self.count) if slots is None else np.asarray(slots, int)
        if chosen.ndim != 1 or np.any(chosen < 0) or np.any(chosen >= self.count):
            raise PolyactError(f"'{self.name}' has slots 0 .. {self.count - 1}, got {chosen.tolist()}")
        return chosen

    def _recorded(self, infos: list[dict[str, Any]], ended: bool) -> dict[str, np.ndarray]:
        columns = {}
        for name in self._info:
            found = [info.get(name) for info in infos]
            if any(value is not None for value in found):
                self._reported.add(name)
            elif ended and name not in self._reported:
                raise PolyactError(
                    f"'{self.name}' never reported '{name}' in an episode; its info has: {', '.join(infos[0]) or 'nothing'}"
                )
            columns[name] = np.array([0.0 if value is None else float(value) for value in found])
        return columns


def _maker(name: str, horizon: int | None, options: dict[str, Any]) -> Callable[[], gymnasium.Env]:
    entry = gymnasium.registry.get(name)
    if entry is not None and str(entry.entry_point).startswith("gymnasium.envs.mujoco"):
        need("mujoco", "mujoco", f"the environment '{name}'")
    limit = {} if horizon is None else {"max_episode_steps": horizon}
    return lambda: gymnasium.make(name, disable_env_checker=True, **limit, **options)


def _made(name: str, make: Callable[[], gymnasium.Env]) -> gymnasium.Env:
    try:
        return make()
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        raise PolyactError(f"gymnasium can't make '{name}': {' '.join(str(error).split())}") from error


def _control_rate(env: gymnasium.Env) -> float | None:
    """From the interval in seconds that simulators call `dt` (MuJoCo, Pendulum) or `tau` (CartPole)."""
    interval = getattr(env.unwrapped, "dt", None) or getattr(env.unwrapped, "tau", None)
    return 1 / float(interval) if isinstance(interval, int | float) and interval > 0 else None


def _stack(space: Space, values: Sequence[Any]) -> Any:
    match space:
        case spaces.Dict():
            return {name: _stack(part, [value[name] for value in values]) for name, part in space.items}
        case spaces.Tuple():
            return tuple(_stack(part, [value[place] for value in values]) for place, part in enumerate(space.spaces))
        case spaces.Text():
            return np.array(values, object)
    return np.stack([np.asarray(value, space.dtype) for value in values])  # pyright: ignore[reportAttributeAccessIssue]


def _unstack(space: Space, batch: Any, count: int) -> list[Any]:
    """One action for each slot, in the types gymnasium's environments expect."""
    match space:
        case spaces.Dict():
            parts = {name: _unstack(part, batch[name], count) for name, part in space.items}
            return [{name: parts[name][place] for name in parts} for place in range(count)]
        case spaces.Tuple():
            return list(zip(*(_unstack(part, one, count) for part, one in zip(space.spaces, batch, strict=True)), strict=True))
        case spaces.Text():
            return list(batch)
    array, shape = np.asarray(batch), space.shape  # pyright: ignore[reportAttributeAccessIssue]
    if array.shape != (count, *shape):
        raise PolyactError(f"{count} actions of {space} have shape {(count, *shape)}, got {array.shape}")
    if not np.all(np.isfinite(array)):
        raise PolyactError(f"action {array[~np.isfinite(array).reshape(count, -1).all(1)][0].tolist()} is not finite")
    if isinstance(space, spaces.Box):
        return list(np.clip(array, space.low, space.high).astype(space.dtype))
    return array.tolist() if isinstance(space, spaces.Discrete) else list(array.astype(np.int64))
