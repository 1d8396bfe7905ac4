"""A policy meets an environment: whole episodes, thousands at once for functional environments.

Every policy meets the same initial states and disturbances under the same key (`polyact.acting.streams`); that is what makes
evaluation paired.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from polyact.acting.host import host_rollout
from polyact.acting.realtime import Fallback, Latency, real_time
from polyact.acting.streams import ACTOR, WORLD, memory_key, start_key, step_key
from polyact.data.episodes import Episodes, concatenate
from polyact.envs.base import Env
from polyact.envs.families import Family
from polyact.envs.host import HostEnv
from polyact.errors import PolyactError
from polyact.policies.base import Policy, Reporting
from polyact.tree import numbers_as_arrays

PROGRAM_BYTES = 256 << 20


def rollout(
    policy: Policy,
    env: Env | Family | HostEnv,
    *,
    episodes: int,
    key: PRNGKeyArray,
    control_hz: float | None = None,
    latency: Latency = None,
    fallback: Fallback = "hold",
    in_flight: int | None = None,
) -> Episodes:
    """Run whole episodes and return them, with true final observations and terminated and truncated apart.

    env: a functional environment (one compiled program), a Family (episode i runs in member i modulo its count), or a bridged one
    (vectorised host loop, compiled acting). With `control_hz` (Hz) and `latency` the world does not wait for the policy: see
    `polyact.acting.realtime.real_time`. Worlds that differ only in their parameters share the compiled program. Raises PolyactError
    for impossible clocks, and for a fallback or a number of inferences in flight where the world waits.
    """
    if episodes < 1:
        raise PolyactError(f"rollout needs episodes >= 1, got {episodes}")
    if control_hz is not None or latency is not None:
        policy = real_time(policy, env, control_hz=control_hz, latency=latency, fallback=fallback, in_flight=in_flight)
    elif fallback != "hold" or in_flight is not None:
        raise PolyactError("fallback and in_flight have no effect in a world that waits; give control_hz and latency too")
    if isinstance(env, HostEnv):
        return host_rollout(policy, env, episodes=episodes, key=key)
    env = numbers_as_arrays(env)
    size = _episodes_per_program(policy, env, episodes)
    return concatenate([_run(policy, env, range(first, min(first + size, episodes)), key) for first in range(0, episodes, size)])


class Trace(eqx.Module):
    """Recorded episodes, padded: every array [T, E, ...]; row t of `observation` is what was acted on at step t."""

    observation: Any
    action: Any
    reward: Any
    terminated: Any
    truncated: Any
    info: Any


def _run(policy: Policy, env: Env | Family, numbers: range, key: PRNGKeyArray) -> Episodes:
    places = jnp.arange(numbers.start, numbers.stop)
    if isinstance(env, Family):
        members = jax.tree.map(lambda leaf: jnp.asarray(leaf)[places % env.count], env.members)
        results = _episodes(policy, members, places, key, True)
    else:
        results = _episodes(policy, env, places, key, False)
    return _as_episodes(*jax.tree.map(np.asarray, results))


@eqx.filter_jit
def _episodes(
    policy: Policy, env: Env, numbers: Int[Array, "E"], key: PRNGKeyArray, many: bool
) -> tuple[Trace, PyTree, Int[Array, "E"]]:
    """(trace, final observations, lengths) of the episodes with these numbers."""
    keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)
    axis = 0 if many else None
    state, observation, memory = jax.vmap(_begin, (axis, None, 0))(env, policy, keys)
    first = jax.eval_shape(jax.vmap(_advance, (axis, None, 0, 0, 0, 0, None)), env, policy, state, observation, memory, keys, 0)[-1]
    buffers = jax.tree.map(lambda leaf: jnp.zeros((env.horizon, *leaf.shape), leaf.dtype), first)
    lengths = jnp.zeros(numbers.shape, jnp.int32)

    def more(carry: Any) -> Array:
        return (carry[0] < env.horizon) & ~jnp.all(carry[5])

    def step(carry: Any) -> Any:
        t, state, observation, memory, buffers, over, lengths = carry
        new_state, reached, memory, row = jax.vmap(_advance, (axis, None, 0, 0, 0, 0, None))(
            env, policy, state, observation, memory, keys, t
        )
        buffers = jax.tree.map(lambda buffer, value: buffer.at[t].set(value), buffers, row)
        state, reached = _keep(over, (state, observation), (new_state, reached))
        lengths = jnp.where(over, lengths, t + 1)
        return t + 1, state, reached, memory, buffers, over | row.terminated | row.truncated, lengths

    over = jnp.zeros(numbers.shape, bool)
    _, _, final, _, buffers, _, lengths = jax.lax.while_loop(more, step, (0, state, observation, memory, buffers, over, lengths))
    return buffers, final, lengths


def _begin(env: Env, policy: Policy, key: PRNGKeyArray) -> tuple[PyTree, PyTree, PyTree]:
    state, observation = env.reset(start_key(key))
    return state, observation, policy.start(memory_key(key))


def _advance(
    env: Env, policy: Policy, state: PyTree, observation: PyTree, memory: PyTree, key: PRNGKeyArray, t: Any
) -> tuple[PyTree, PyTree, PyTree, Trace]:
    action, memory = policy.act(observation, memory, step_key(key, ACTOR, t))
    state, step = env.step(state, action, step_key(key, WORLD, t))
    info = step.info | (policy.report(memory) if isinstance(policy, Reporting) else {})
    truncated = (step.truncated | (t + 1 >= env.horizon)) & ~step.terminated
    row = Trace(observation, action, step.reward, step.terminated, truncated, info)
    return state, step.observation, memory, row


def _keep(over: Array, old: PyTree, new: PyTree) -> PyTree:
    def pick(before: Array, after: Array) -> Array:
        return jnp.where(over.reshape(over.shape + (1,) * (jnp.ndim(after) - 1)), before, after)

    return jax.tree.map(pick, old, new)


def _as_episodes(trace: Trace, final: PyTree, lengths: np.ndarray) -> Episodes:
    horizon = int(lengths.max())
    full = bool(np.all(lengths == horizon))
    keep = np.arange(horizon) < lengths[:, None]

    def flat(column: np.ndarray) -> np.ndarray:
        by_episode = np.swapaxes(column[:horizon], 0, 1)
        return np.ascontiguousarray(by_episode).reshape(-1, *column.shape[2:]) if full else by_episode[keep]

    def with_final(column: np.ndarray, last: np.ndarray) -> np.ndarray:
        rows = np.concatenate([np.swapaxes(column[:horizon], 0, 1), np.zeros_like(last)[:, None]], axis=1)
        rows[np.arange(len(lengths)), lengths] = last
        return rows[np.arange(horizon + 1) <= lengths[:, None]]

    return Episodes(
        lengths=lengths.astype(np.int64),
        observation=jax.tree.map(with_final, trace.observation, final),
        action=jax.tree.map(flat, trace.action),
        reward=flat(trace.reward),
        terminated=flat(trace.terminated),
        truncated=flat(trace.truncated),
        info={name: jax.tree.map(flat, column) for name, column in trace.info.items()},
    )


def _episodes_per_program(policy: Policy, env: Env | Family, episodes: int) -> int:
    single = env.member(0) if isinstance(env, Family) else env

    def row(key: PRNGKeyArray) -> Trace:
        return _advance(single, policy, *_begin(single, policy, key), key, 0)[-1]

    shapes = eqx.filter_eval_shape(row, jax.random.key(0))
    width = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))
    return int(np.clip(PROGRAM_BYTES // (width * env.horizon), 1, episodes))


def successes(episodes: Episodes, names: Sequence[str] = ("success", "is_success", "reached")) -> np.ndarray | None:
    """Whether each episode was a success at any step [E], from the first info column of these names; None when there is none."""
    column = next((episodes.info[name] for name in names if name in episodes.info), None)
    if column is None:
        return None
    return np.maximum.reduceat(np.asarray(column, bool), episodes.starts)
