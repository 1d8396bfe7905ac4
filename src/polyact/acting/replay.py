"""The states an episode went through, stepped again from its recorded actions under the key it was played with."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from polyact.acting.streams import WORLD, start_key, step_key
from polyact.data.episodes import Episodes
from polyact.envs.base import Env
from polyact.errors import PolyactError
from polyact.tree import numbers_as_arrays


def states_of(env: Env, episodes: Episodes, number: int, key: PRNGKeyArray) -> list[Any]:
    """The states of episode `number`, first to last (its length plus one), as NumPy values.

    Raises PolyactError when actions are missing, or when `env` under `key` does not begin with the recorded observation.
    """
    one = episodes.episode(number)
    if one.action is None or one.observation is None:
        raise PolyactError("states can be found again only where observations and actions were recorded")
    if one.steps > env.horizon:
        raise PolyactError(f"episode {number} has {one.steps} steps, this environment ends after {env.horizon}")
    # Always the whole horizon, so that episodes of different lengths share one compiled program.
    actions = jax.tree.map(lambda a: np.concatenate([a, np.repeat(a[-1:], env.horizon - one.steps, axis=0)]), one.action)
    states, observation = _states(numbers_as_arrays(env), actions, jax.random.fold_in(key, number))
    for seen, again in zip(jax.tree.leaves(one.observation), jax.tree.leaves(observation), strict=True):
        if not np.allclose(seen[0], again, rtol=1e-4, atol=1e-4):
            raise PolyactError("these episodes were not played in this environment under this key")
    states = jax.tree.map(np.asarray, states)
    return [jax.tree.map(lambda leaf, t=t: leaf[t], states) for t in range(one.steps + 1)]


@eqx.filter_jit
def _states(env: Env, actions: PyTree, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
    state, observation = env.reset(start_key(key))

    def step(carry: Any, action: Any) -> tuple[Any, Any]:
        state, t = carry
        state, _ = env.step(state, action, step_key(key, WORLD, t))
        return (state, t + 1), state

    _, later = jax.lax.scan(step, (state, 0), actions)
    return jax.tree.map(
        lambda first, rest: jax.numpy.concatenate([jax.numpy.asarray(first)[None], rest]), state, later
    ), observation
