"""Episodes in environments that live on the host: a loop over slots around one compiled, batched policy."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from polyact.acting.streams import ACTOR, memory_key, start_key, step_key
from polyact.data.episodes import Episodes, concatenate
from polyact.envs.host import HostEnv
from polyact.policies.base import Policy, Reporting


def host_rollout(policy: Policy, env: HostEnv, *, episodes: int, key: PRNGKeyArray) -> Episodes:
    """Whole episodes, in order; episode i starts from the seed that its key gives, whichever slot it runs in."""
    seeds = episode_seeds(key, episodes)
    count = min(env.count, episodes)
    slots = np.arange(count)
    running, started = np.arange(count), count  # the episode in each slot, -1 when there is none left
    observation = env.reset(seeds[running], slots)
    observation = jax.tree.map(np.array, observation)
    time, memory = np.zeros(count, np.int64), _start(policy, key, running)
    rows: list[list[Any]] = [[] for _ in range(episodes)]
    finals: dict[int, Any] = {}
    while np.any(running >= 0):
        action, memory, notes = _act(policy, observation, memory, key, jnp.asarray(running), jnp.asarray(time))
        active = slots[running >= 0]
        host_action = jax.tree.map(np.asarray, action)
        step = env.step(jax.tree.map(lambda a, here=active: a[here], host_action), active)
        notes = jax.tree.map(np.asarray, notes)
        for row, slot in enumerate(active):
            info = {name: values[row] for name, values in step.info.items()} | {
                name: values[slot] for name, values in notes.items()
            }
            seen, done = jax.tree.map(lambda a, s=slot: np.array(a[s]), (observation, host_action))
            rows[running[slot]].append((seen, done, step.reward[row], step.terminated[row], step.truncated[row], info))
        for leaf, new in zip(jax.tree.leaves(observation), jax.tree.leaves(step.observation), strict=True):
            leaf[active] = new
        time[active] += 1
        ended = active[np.asarray(step.terminated | step.truncated)]
        for slot in ended:
            finals[int(running[slot])] = jax.tree.map(lambda a, s=slot: np.array(a[s]), observation)
        again = ended[: max(0, episodes - started)]
        running[ended] = -1
        if len(again):
            running[again] = np.arange(started, started + len(again))
            started += len(again)
            time[again] = 0
            fresh = env.reset(seeds[running[again]], again)
            for leaf, new in zip(jax.tree.leaves(observation), jax.tree.leaves(fresh), strict=True):
                leaf[again] = new
            memory = _restart(policy, key, memory, jnp.asarray(running), jnp.asarray(np.isin(slots, again)))
    return concatenate([_episode(rows[number], finals[number]) for number in range(episodes)])


def episode_seeds(key: PRNGKeyArray, episodes: int) -> np.ndarray:
    """The reset seed of each episode [episodes], below 2^31."""
    bits = jax.vmap(lambda number: jax.random.bits(start_key(jax.random.fold_in(key, number))))(jnp.arange(episodes))
    return np.asarray(bits >> 1).astype(np.int64)


@eqx.filter_jit
def _start(policy: Policy, key: PRNGKeyArray, numbers: Int[Array, "K"] | np.ndarray) -> PyTree:
    return jax.vmap(lambda number: policy.start(memory_key(jax.random.fold_in(key, number))))(jnp.asarray(numbers))


@eqx.filter_jit
def _restart(policy: Policy, key: PRNGKeyArray, memory: PyTree, numbers: Int[Array, "K"], again: Array) -> PyTree:
    def pick(old: Array, new: Array) -> Array:
        return jnp.where(again.reshape(again.shape + (1,) * (old.ndim - 1)), new, old)

    return jax.tree.map(pick, memory, _start(policy, key, numbers))


@eqx.filter_jit
def _act(
    policy: Policy, observation: PyTree, memory: PyTree, key: PRNGKeyArray, numbers: Int[Array, "K"], time: Int[Array, "K"]
) -> tuple[PyTree, PyTree, dict[str, Any]]:
    def one(observation: Any, memory: Any, number: Array, t: Array) -> tuple[Any, Any, dict[str, Any]]:
        action, memory = policy.act(observation, memory, step_key(jax.random.fold_in(key, number), ACTOR, t))
        return action, memory, policy.report(memory) if isinstance(policy, Reporting) else {}

    return jax.vmap(one)(observation, memory, numbers, time)


def _episode(rows: list[Any], final: Any) -> Episodes:
    seen, done, reward, terminated, truncated, info = zip(*rows, strict=True)
    return Episodes(
        lengths=np.array([len(rows)]),
        observation=jax.tree.map(lambda *parts: np.stack(parts), *seen, final),
        action=jax.tree.map(lambda *parts: np.stack(parts), *done),
        reward=np.array(reward, np.float32),
        terminated=np.array(terminated, bool),
        truncated=np.array(truncated, bool),
        info=jax.tree.map(lambda *parts: np.stack(parts), *info),
    )
