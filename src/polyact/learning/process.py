"""Collection and learning as one step of one program: what `train` compiles for environments that are functions.

An off-policy iteration is one step of every environment, into the replay buffer, and the updates that are due. An on-policy iteration
is `rollout_length` steps of every environment and one `update`. Iteration i draws from fold_in(key, i) alone, and everything else it
depends on is in its carry.
"""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from polyact.envs.base import Env
from polyact.envs.families import Family
from polyact.envs.vector import VectorState, reset_many, step_many, where
from polyact.learning.base import OnPolicyLearner, TrainState, Trajectory
from polyact.learning.collect import Metrics, ReplayRule, Tally, into_bounds, rows_of, trajectory_row
from polyact.learning.fleet import Summary
from polyact.learning.program import Count, repeat
from polyact.learning.replay import Replay, Rows
from polyact.policies.spec import Spec

INITIAL = 2**31 - 1  # streams for fresh networks and first episodes, beyond the iterations'
FIRST = 2**31 - 2


class Process(eqx.Module):
    """How one learner lives in one environment."""

    @property
    @abstractmethod
    def stride(self) -> int:
        """Environment steps of one iteration."""

    @abstractmethod
    def updates(self, iterations: int) -> int:
        """How often `update` is called in so many iterations."""

    @abstractmethod
    def begin(self, spec: Spec, key: PRNGKeyArray) -> PyTree:
        """What is carried from iteration to iteration, at the start; its `learner` is the learner's state."""

    @abstractmethod
    def iterate(self, carry: Any, key: PRNGKeyArray, i: Any) -> tuple[PyTree, Metrics]:
        """The i-th iteration."""


class OffPolicyCarry(eqx.Module):
    learner: TrainState
    vector: VectorState
    replay: Replay
    tally: Tally


class OffPolicyProcess(Process):
    rule: ReplayRule
    env: Env | Family

    @property
    def stride(self) -> int:
        return self.rule.envs

    def updates(self, iterations: int) -> int:
        return self.rule.updates(iterations)

    def begin(self, spec: Spec, key: PRNGKeyArray) -> OffPolicyCarry:
        learner = self.rule.learner.init(spec, jax.random.fold_in(key, INITIAL))
        vector = reset_many(self.env, jax.random.split(jax.random.fold_in(key, FIRST), self.rule.envs))
        example = eqx.filter_eval_shape(lambda v: self._play(learner, v, key, 0)[1], vector)
        return OffPolicyCarry(learner, vector, Replay.empty(example, self.rule.capacity), Tally.zero(self.rule.envs))

    def iterate(self, carry: OffPolicyCarry, key: PRNGKeyArray, i: Any) -> tuple[OffPolicyCarry, Metrics]:
        play, learn = jax.random.split(jax.random.fold_in(key, i))
        vector, rows = self._play(carry.learner, carry.vector, play, i)
        tally, episodes = carry.tally.after(rows.reward, rows.ended)
        state, replay, metrics = self.rule.absorb(carry.learner, carry.replay, rows, learn, i)
        return OffPolicyCarry(state, vector, replay, tally), metrics | episodes

    def _play(self, state: TrainState, vector: VectorState, key: PRNGKeyArray, i: Any) -> tuple[VectorState, Rows]:
        keys = jax.random.split(key, (2, self.rule.envs))
        action = self.rule.choose(state, vector.observation, keys[0], i)
        following, step = step_many(self.env, vector, action, keys[1])
        return following, rows_of(vector.observation, action, step, self.rule.learner.needs)


class OnPolicyCarry(eqx.Module):
    learner: TrainState
    vector: VectorState
    memory: PyTree
    tally: Tally


class OnPolicyProcess(Process):
    learner: OnPolicyLearner
    env: Env | Family
    envs: int

    @property
    def stride(self) -> int:
        return self.envs * self.learner.rollout_length

    def updates(self, iterations: int) -> int:
        return iterations

    def begin(self, spec: Spec, key: PRNGKeyArray) -> OnPolicyCarry:
        learner = self.learner.init(spec, jax.random.fold_in(key, INITIAL))
        keys = jax.random.split(jax.random.fold_in(key, FIRST), (2, self.envs))
        memory = jax.vmap(lambda k: self.learner.start(learner, k))(keys[1])
        return OnPolicyCarry(learner, reset_many(self.env, keys[0]), memory, Tally.zero(self.envs))

    def iterate(self, carry: OnPolicyCarry, key: PRNGKeyArray, i: Any) -> tuple[OnPolicyCarry, Metrics]:
        play, learn = jax.random.split(jax.random.fold_in(key, i))
        carry, trajectory, episodes = self.collect(carry, play)
        state, metrics = self.learner.update(carry.learner, trajectory, learn)
        return OnPolicyCarry(state, carry.vector, carry.memory, carry.tally), metrics | episodes

    def collect(self, carry: OnPolicyCarry, key: PRNGKeyArray) -> tuple[OnPolicyCarry, Trajectory, Metrics]:
        """One rollout with the learner as it is: what is carried on, the trajectory, and what its finished episodes report."""
        keys = jax.random.split(key, (self.learner.rollout_length, 2, self.envs))

        def step(running: Any, keys: Any) -> tuple[Any, tuple[Trajectory, Metrics]]:
            vector, memory, tally = running
            vector, memory, row = self._play(carry.learner, vector, memory, keys)
            tally, episodes = tally.after(row.reward, row.ended)
            return (vector, memory, tally), (row, episodes)

        running, (rows, episodes) = jax.lax.scan(step, (carry.vector, carry.memory, carry.tally), keys)
        trajectory = eqx.tree_at(lambda t: t.memory, rows, carry.memory, is_leaf=lambda leaf: leaf is None)
        return OnPolicyCarry(carry.learner, *running), trajectory, jax.tree.map(lambda values: values.sum(), episodes)

    def _play(self, state: TrainState, vector: VectorState, memory: PyTree, keys: Any) -> tuple[VectorState, PyTree, Trajectory]:
        act = lambda o, m, k: self.learner.act(state, o, m, k)  # noqa: E731
        decision, remembered = jax.vmap(act)(vector.observation, memory, keys[0])
        following, step = step_many(self.env, vector, into_bounds(self.env.action_space, decision.action), keys[1])
        fresh = jax.vmap(lambda k: self.learner.start(state, k))(keys[0])
        row = trajectory_row(vector.observation, decision, step, vector.elapsed == 0)
        return following, where(step.terminated | step.truncated, fresh, remembered), row


def advance(process: Process, carry: PyTree, key: PRNGKeyArray, first: Count, count: Count) -> tuple[PyTree, Summary]:
    """`count` environment steps from step `first`, both whole multiples of the stride."""
    carry, summary = repeat(lambda i, c: process.iterate(c, key, i), carry, first // process.stride, count // process.stride)
    broken = {name: jnp.where(at < 0, at, at * process.stride) for name, at in summary.broken.items()}
    return carry, Summary(summary.sums, broken, summary.counts)
