"""`train` for environments that live on the host: the same learners, a loop around compiled acting and compiled learning.

The replay buffer is on the device and updated in place. What simulators hold can't be saved, so a resumed run goes on with new
episodes. Seed s of a training owns the slots s * N .. (s + 1) * N - 1.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from polyact.envs.host import HostEnv
from polyact.learning.base import TrainState
from polyact.learning.collect import Metrics, Tally
from polyact.learning.fleet import Fleet, Summary, accumulate, empty_summary
from polyact.learning.host_process import HostCarry, HostProcess, Moment
from polyact.learning.program import as_count
from polyact.learning.replay import Replay


class HostFleet(Fleet):
    """All seeds of a training side by side in one host environment.

    From the first metric that is not finite a seed learns no more, so the states before that step are at hand without a copy.
    """

    def __init__(self, env: HostEnv, process: HostProcess, states: list[HostCarry], keys: list[PRNGKeyArray]):
        self.env, self.process, self.current, self.keys = env, process, states, keys
        self.observation: Any = None
        self.start = np.ones((len(keys), process.envs), bool)
        self.memory = [process.remember(carry.learner, key) for carry, key in zip(states, keys, strict=True)]
        self.stopped: list[Summary] | None = None
        self._choose = eqx.filter_jit(_choose)
        self._absorb = eqx.filter_jit(_absorb, donate="all-except-first")

    def advance(self, first: int, count: int) -> list[Summary]:
        if self.stopped is not None:
            return self.stopped
        if self.observation is None:
            self.observation = jax.tree.map(np.array, self.env.reset(self._seeds(first, np.arange(self.env.count))))
        summaries: list[Summary | None] = [None] * len(self.keys)
        for i in range(first // self.process.stride, (first + count) // self.process.stride):
            began = list(self.memory)
            moments = [self._step(i, t) for t in range(self.process.length)]
            for seed, key in enumerate(self.keys):
                columns = jax.tree.map(lambda *leaves: np.stack(leaves), *[moment[seed] for moment in moments])
                carry = self.current[seed]
                rest = (self.process, carry.learner, carry.tally, summaries[seed], columns, began[seed], key, as_count(i))
                learner, tally, summaries[seed], replay = self._absorb(rest, carry.replay)
                self.current[seed] = HostCarry(learner, replay, tally)
        self.last = jax.block_until_ready(summaries)
        return self.last

    def back(self) -> None:
        self.stopped = self.last

    def states(self) -> list[HostCarry]:
        return self.current

    def _step(self, i: int, t: int) -> list[Moment]:
        """One step of every environment; what each seed saw of it."""
        seen, start, envs = self.observation, self.start, self.process.envs
        parts = [slice(seed * envs, (seed + 1) * envs) for seed in range(len(self.keys))]
        chosen = []
        for seed, part in enumerate(parts):
            mine = jax.tree.map(lambda leaf, part=part: leaf[part], seen)
            chosen.append(
                self._choose(
                    self.process,
                    self.current[seed].learner,
                    mine,
                    self.memory[seed],
                    start[seed],
                    self.keys[seed],
                    as_count(i),
                    as_count(t),
                )
            )
        self.memory = [memory for _, _, memory in chosen]
        actions = jax.tree.map(
            lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves]), *[action for _, action, _ in chosen]
        )
        step = self.env.step(actions)
        moments = []
        for seed, part in enumerate(parts):
            cut = lambda tree, part=part: jax.tree.map(lambda leaf: leaf[part], tree)  # noqa: E731
            decision = jax.tree.map(np.asarray, chosen[seed][0])
            outcome = (cut(step.observation), step.reward[part], step.terminated[part], step.truncated[part], cut(step.info))
            moments.append(Moment(cut(seen), decision, *outcome, start[seed]))
        ended = np.flatnonzero(step.terminated | step.truncated)
        self.observation = step.observation
        if len(ended):
            fresh = self.env.reset(self._seeds((i * self.process.length + t + 1) * envs, ended), ended)
            self.observation = jax.tree.map(lambda old, new: _replaced(old, ended, new), step.observation, fresh)
        self.start = np.isin(np.arange(self.env.count), ended).reshape(len(self.keys), envs)
        return moments

    def _seeds(self, step: int, slots: np.ndarray) -> np.ndarray:
        """The reset seeds of the episodes that begin after `step` steps of a seed: a function of its key, the step and the place."""
        envs = self.process.envs
        entropy = [np.asarray(jax.random.key_data(key)).tolist() for key in self.keys]
        made = [np.random.SeedSequence([*entropy[slot // envs], step, slot % envs]).generate_state(1)[0] for slot in slots]
        return np.array(made, np.int64) >> 1


def _choose(
    process: HostProcess, state: TrainState, observation: Any, memory: Any, start: Any, key: PRNGKeyArray, i: Array, t: Array
) -> tuple[Any, Any, Any]:
    play, _ = jax.random.split(jax.random.fold_in(key, i))
    return process.choose(state, observation, memory, start, jax.random.fold_in(play, t), i)


def _absorb(rest: PyTree, replay: Replay | None) -> tuple[TrainState, Tally, Summary, Replay | None]:
    process, learner, tally, summary, moments, memory, key, i = rest
    moments = jax.tree.map(jnp.asarray, moments)
    _, learn = jax.random.split(jax.random.fold_in(key, i))
    carry, metrics = process.absorb(HostCarry(learner, replay, tally), moments, memory, learn, i)

    def count(tally: Tally, now: tuple[Array, Array]) -> tuple[Tally, Metrics]:
        return tally.after(*now)

    tally, episodes = jax.lax.scan(count, tally, (moments.reward, moments.terminated | moments.truncated))
    metrics = metrics | jax.tree.map(lambda values: values.sum(), episodes)
    summary = empty_summary(metrics) if summary is None else summary
    summary = accumulate(summary, metrics, i * process.stride)
    healthy = jnp.all(jnp.stack([at < 0 for at in summary.broken.values()]))
    new, old = eqx.filter(carry.learner, eqx.is_array), eqx.filter(learner, eqx.is_array)
    kept = jax.tree.map(lambda a, b: jnp.where(healthy, a, b), new, old)
    return eqx.combine(kept, learner), tally, summary, carry.replay


def _replaced(old: np.ndarray, rows: np.ndarray, new: np.ndarray) -> np.ndarray:
    old = np.array(old)
    old[rows] = new
    return old
