"""`train` for environments that live on the host: the same learners, a loop around compiled acting and compiled learning.

The replay buffer is on the device and updated in place. What simulators hold can't be saved, so a resumed run goes on with new
episodes. Seed s of a training owns the slots s * N .. (s + 1) * N - 1.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from polyact.envs.host import HostEnv
from polyact.learning.collect import Tally
from polyact.learning.fleet import Fleet, Summary, accumulate, empty_summary
from polyact.learning.host_process import HostCarry, HostProcess, Moment
from polyact.learning.program import Still, pack, unpack
from polyact.learning.replay import Replay


class HostFleet(Fleet):
    """All seeds of a training side by side in one host environment.

    From the first metric that is not finite a seed learns no more, so the states before that step are at hand without a copy.
    """

    def __init__(self, env: HostEnv, process: HostProcess, states: list[HostCarry], keys: list[PRNGKeyArray]):
        self.env, self.process, self.keys = env, process, keys
        self.options, self.kind = pack(process)
        packed = [pack(carry.learner) for carry in states]
        self.learners, self.learner_kind = [arrays for arrays, _ in packed], packed[0][1]
        self.replays, self.tallies = [carry.replay for carry in states], [carry.tally for carry in states]
        self.memory = [
            _remember(self.kind, self.learner_kind, self.options, learner, key)
            for learner, key in zip(self.learners, keys, strict=True)
        ]
        self.parts = [slice(seed * process.envs, (seed + 1) * process.envs) for seed in range(len(keys))]
        self.entropy = [np.asarray(jax.random.key_data(key)).tolist() for key in keys]
        self.observation: Any = None
        self.start = np.ones(env.count, bool)
        self.last: list[Summary] = []
        self.stopped = False

    def advance(self, first: int, count: int) -> list[Summary]:
        if self.stopped:
            return self.last
        if self.observation is None:
            self.observation = self.env.reset(self._seeds(first, np.arange(self.env.count)))
        summaries: list[Summary | None] = [None] * len(self.keys)
        for i in range(first // self.process.stride, (first + count) // self.process.stride):
            began = list(self.memory)
            moments = [self._step(i, t) for t in range(self.process.length)]
            for seed in range(len(self.keys)):
                columns = jax.tree.map(lambda *leaves: np.stack(leaves), *[moment[seed] for moment in moments])
                parts = (columns, began[seed], self.tallies[seed], summaries[seed], self.keys[seed], np.int32(i))
                self.learners[seed], self.replays[seed], self.tallies[seed], summaries[seed] = _absorb(
                    self.kind, self.learner_kind, self.options, self.learners[seed], self.replays[seed], *parts
                )
        self.last = [summary for summary in jax.block_until_ready(summaries) if summary is not None]
        return self.last

    def back(self) -> None:
        self.stopped = True

    def states(self) -> list[HostCarry]:
        learners = [unpack(arrays, self.learner_kind) for arrays in self.learners]
        return [HostCarry(*parts) for parts in zip(learners, self.replays, self.tallies, strict=True)]

    def _step(self, i: int, t: int) -> list[Moment]:
        """One step of every environment; what each seed saw of it."""
        seen, start = self.observation, self.start
        chosen = [
            _choose(
                self.kind,
                self.learner_kind,
                self.options,
                self.learners[seed],
                _rows(seen, part),
                self.memory[seed],
                start[part],
                self.keys[seed],
                np.int32(i),
                np.int32(t),
            )
            for seed, part in enumerate(self.parts)
        ]
        self.memory = [memory for _, _, memory in chosen]
        actions = [jax.tree.map(np.asarray, action) for _, action, _ in chosen]
        step = self.env.step(jax.tree.map(lambda *leaves: np.concatenate(leaves), *actions))
        columns = (step.observation, step.reward, step.terminated, step.truncated, step.info, start)
        moments = [
            Moment(_rows(seen, part), jax.tree.map(np.asarray, chosen[seed][0]), *_rows(columns, part))
            for seed, part in enumerate(self.parts)
        ]
        self.observation, self.start = step.observation, step.terminated | step.truncated
        if self.start.any():
            slots = np.flatnonzero(self.start)
            fresh = self.env.reset(self._seeds((i * self.process.length + t + 1) * self.process.envs, slots), slots)
            self.observation = jax.tree.map(lambda old, new: _replaced(old, slots, new), step.observation, fresh)
        return moments

    def _seeds(self, step: int, slots: np.ndarray) -> np.ndarray:
        """The reset seeds of the episodes that begin after `step` steps of a seed: a function of its key, the step and the place."""
        envs = self.process.envs
        sequences = [np.random.SeedSequence([*self.entropy[slot // envs], step, slot % envs]) for slot in slots]
        return np.array([sequence.generate_state(1)[0] >> 1 for sequence in sequences], np.int64)


@partial(jax.jit, static_argnums=(0, 1))
def _remember(kind: Still, learner_kind: Still, options: list[Array], learner: list[Array], key: PRNGKeyArray) -> Any:
    return unpack(options, kind).remember(unpack(learner, learner_kind), key)


@partial(jax.jit, static_argnums=(0, 1))
def _choose(
    kind: Still,
    learner_kind: Still,
    options: list[Array],
    learner: list[Array],
    observation: Any,
    memory: Any,
    start: Any,
    key: PRNGKeyArray,
    i: Any,
    t: Any,
) -> tuple[Any, Any, Any]:
    play, _ = jax.random.split(jax.random.fold_in(key, i))
    state = unpack(learner, learner_kind)
    return unpack(options, kind).choose(state, observation, memory, start, jax.random.fold_in(play, t), i)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=4)
def _absorb(
    kind: Still,
    learner_kind: Still,
    options: list[Array],
    learner: list[Array],
    replay: Replay | None,
    moments: Moment,
    memory: Any,
    tally: Tally,
    summary: Summary | None,
    key: PRNGKeyArray,
    i: Any,
) -> tuple[list[Array], Replay | None, Tally, Summary]:
    process: HostProcess = unpack(options, kind)
    _, learn = jax.random.split(jax.random.fold_in(key, i))
    carry = HostCarry(unpack(learner, learner_kind), replay, tally)
    carry, metrics = process.absorb(carry, moments, memory, learn, i)
    tally, episodes = jax.lax.scan(
        lambda tally, now: tally.after(*now), tally, (moments.reward, moments.terminated | moments.truncated)
    )
    metrics = metrics | jax.tree.map(lambda values: values.sum(), episodes)
    summary = accumulate(empty_summary(metrics) if summary is None else summary, metrics, i * process.stride)
    healthy = jnp.all(jnp.stack([at < 0 for at in summary.broken.values()]))
    kept = [jnp.where(healthy, new, old) for new, old in zip(pack(carry.learner)[0], learner, strict=True)]
    return kept, carry.replay, tally, summary


def _rows(tree: Any, part: slice) -> Any:
    return jax.tree.map(lambda leaf: leaf[part], tree)


def _replaced(old: np.ndarray, rows: np.ndarray, new: np.ndarray) -> np.ndarray:
    old = np.array(old)
    old[rows] = new
    return old
