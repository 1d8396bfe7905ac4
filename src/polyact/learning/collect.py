"""Collection and learning as one step of one program: what `train` compiles for environments that are functions.

An off-policy iteration is one step of every environment, into the replay buffer, and the updates that are due. An on-policy iteration
is `rollout_length` steps of every environment and one `update`. Iteration i draws from fold_in(key, i) alone, and everything else it
depends on is in its carry.
"""

from abc import abstractmethod
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from polyact import spaces
from polyact.data.sampling import Sampling
from polyact.envs.base import Env, Step
from polyact.envs.families import Family
from polyact.envs.vector import VectorState, reset_many, step_many, where
from polyact.errors import PolyactError
from polyact.learning.base import OffPolicyLearner, OnPolicyLearner, TrainState, Trajectory
from polyact.learning.fleet import Occurrences, Summary
from polyact.learning.program import Count, repeat
from polyact.learning.replay import Replay, Rows
from polyact.policies.encoding import ACTION_MASK
from polyact.policies.spec import Spec
from polyact.spaces import Space

if TYPE_CHECKING:
    from typing import ClassVar as AbstractVar  # a type checker would take an AbstractVar for an argument of every __init__
else:
    from equinox import AbstractVar

INITIAL = 2**31 - 1  # streams for fresh networks and first episodes, beyond the iterations'
FIRST = 2**31 - 2
Metrics = dict[str, Any]


class Tally(eqx.Module):
    """Return and length so far of the episode running in each environment [N]."""

    returns: Float[Array, "N"]
    lengths: Float[Array, "N"]

    @classmethod
    def zero(cls, count: int) -> "Tally":
        return cls(jnp.zeros(count), jnp.zeros(count))

    def after(self, reward: Float[Array, "N"], ended: Array) -> tuple["Tally", Metrics]:
        """The tally after one step, and what the episodes that ended with it have to report."""
        returns, lengths, over = self.returns + reward, self.lengths + 1, ended.astype(jnp.float32)
        metrics = {
            "episode_return": Occurrences((over * returns).sum(), over.sum()),
            "episode_length": Occurrences((over * lengths).sum(), over.sum()),
        }
        return Tally(returns * (1 - over), lengths * (1 - over)), metrics


class Process(eqx.Module):
    """How one learner lives in one environment."""

    envs: AbstractVar[int]

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
    """ratio: updates per iteration as a fraction (numerator, denominator)."""

    learner: OffPolicyLearner
    env: Env | Family
    sampling: Sampling
    envs: int
    batch_size: int
    capacity: int
    learning_starts: int
    ratio: tuple[int, int]

    @property
    def stride(self) -> int:
        return self.envs

    def updates(self, iterations: int) -> int:
        waiting = max(0, -(-self.learning_starts // self.envs) - 1)
        numerator, denominator = self.ratio
        return max(1, (max(0, iterations - waiting) * numerator) // denominator)

    def begin(self, spec: Spec, key: PRNGKeyArray) -> OffPolicyCarry:
        learner = self.learner.init(spec, jax.random.fold_in(key, INITIAL))
        vector = reset_many(self.env, jax.random.split(jax.random.fold_in(key, FIRST), self.envs))
        example = eqx.filter_eval_shape(lambda v: self._play(learner, v, key, 0)[1], vector)
        return OffPolicyCarry(learner, vector, Replay.empty(example, self.capacity), Tally.zero(self.envs))

    def iterate(self, carry: OffPolicyCarry, key: PRNGKeyArray, i: Any) -> tuple[OffPolicyCarry, Metrics]:
        play, learn = jax.random.split(jax.random.fold_in(key, i))
        vector, rows = self._play(carry.learner, carry.vector, play, i)
        tally, episodes = carry.tally.after(rows.reward, rows.ended)
        replay = carry.replay.add(rows)

        def update(u: Any, state: TrainState) -> tuple[TrainState, Metrics]:
            draw, step = jax.random.split(jax.random.fold_in(learn, u))
            return self.learner.update(state, replay.sample(self.sampling, self.batch_size, draw), step)

        state, summary = repeat(
            update, carry.learner, jnp.zeros((), jnp.int32), due(i, self.envs, self.learning_starts, self.ratio)
        )
        metrics = {name: Occurrences(total, summary.counts[name]) for name, total in summary.sums.items()}
        return OffPolicyCarry(state, vector, replay, tally), metrics | episodes

    def _play(self, state: TrainState, vector: VectorState, key: PRNGKeyArray, i: Any) -> tuple[VectorState, Rows]:
        keys = jax.random.split(key, (2, self.envs))
        explore = lambda o, k: self.learner.explore(state, o, k)  # noqa: E731
        action = jax.lax.cond(
            i * self.envs < self.learning_starts,
            jax.vmap(lambda o, k: random_action(self.env.action_space, o, k)),
            jax.vmap(explore),
            vector.observation,
            keys[0],
        )
        following, step = step_many(self.env, vector, action, keys[1])
        return following, rows_of(vector.observation, action, step, "cost" in self.learner.needs)


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
        collect, learn = jax.random.split(jax.random.fold_in(key, i))
        keys = jax.random.split(collect, (self.learner.rollout_length, 2, self.envs))

        def step(running: Any, keys: Any) -> tuple[Any, tuple[Trajectory, Metrics]]:
            vector, memory, tally = running
            vector, memory, row = self._play(carry.learner, vector, memory, keys)
            tally, episodes = tally.after(row.reward, row.ended)
            return (vector, memory, tally), (row, episodes)

        start = (carry.vector, carry.memory, carry.tally)
        (vector, memory, tally), (rows, episodes) = jax.lax.scan(step, start, keys)
        trajectory = eqx.tree_at(lambda t: t.memory, rows, carry.memory, is_leaf=lambda leaf: leaf is None)
        state, metrics = self.learner.update(carry.learner, trajectory, learn)
        return OnPolicyCarry(state, vector, memory, tally), metrics | jax.tree.map(lambda values: values.sum(), episodes)

    def _play(self, state: TrainState, vector: VectorState, memory: PyTree, keys: Any) -> tuple[VectorState, PyTree, Trajectory]:
        act = lambda o, m, k: self.learner.act(state, o, m, k)  # noqa: E731
        decision, remembered = jax.vmap(act)(vector.observation, memory, keys[0])
        following, step = step_many(self.env, vector, into_bounds(self.env.action_space, decision.action), keys[1])
        fresh = jax.vmap(lambda k: self.learner.start(state, k))(keys[0])
        row = Trajectory(
            vector.observation,
            decision.action,
            step.reward,
            step.observation,
            step.terminated.astype(jnp.float32),
            step.truncated.astype(jnp.float32),
            vector.elapsed == 0,
            decision.log_prob,
            decision.value,
            None,
            step.info,
        )
        return following, where(step.terminated | step.truncated, fresh, remembered), row


def advance(process: Process, carry: PyTree, key: PRNGKeyArray, first: Count, count: Count) -> tuple[PyTree, Summary]:
    """`count` environment steps from step `first`, both whole multiples of the stride."""
    carry, summary = repeat(lambda i, c: process.iterate(c, key, i), carry, first // process.stride, count // process.stride)
    broken = {name: jnp.where(at < 0, at, at * process.stride) for name, at in summary.broken.items()}
    return carry, Summary(summary.sums, broken, summary.counts)


def due(i: Any, envs: int, learning_starts: int, ratio: tuple[int, int]) -> Count:
    """How many updates iteration i makes: `ratio` of them on average once `learning_starts` steps are there."""
    numerator, denominator = ratio
    turn = i % denominator
    number = ((turn + 1) * numerator) // denominator - (turn * numerator) // denominator
    return jnp.where((i + 1) * envs >= learning_starts, number, 0).astype(jnp.int32)


def per_iteration(update_ratio: float, envs: int) -> tuple[int, int]:
    """Updates per iteration, from updates per environment step, as a fraction. PolyactError when it is not positive."""
    if not update_ratio > 0:
        raise PolyactError(f"update_ratio must be positive, got {update_ratio}")
    fraction = Fraction(update_ratio * envs).limit_denominator(10_000)
    if not fraction:
        raise PolyactError(f"update_ratio {update_ratio} is less than one update in 10000 steps of {envs} environments")
    return fraction.numerator, fraction.denominator


def rows_of(observation: PyTree, action: Any, step: Step, with_cost: bool) -> Rows:
    """What the replay buffer keeps of one step. PolyactError when costs are needed and the environment has none."""
    if with_cost and "cost" not in step.info:
        raise PolyactError(
            f"this learner needs info['cost'] from the environment, which reports {', '.join(step.info) or 'nothing'}"
        )
    terminated, ended = step.terminated.astype(jnp.float32), (step.terminated | step.truncated).astype(jnp.float32)
    return Rows(observation, action, step.reward, step.observation, terminated, ended, step.info["cost"] if with_cost else None)


def random_action(space: Space, observation: Any, key: PRNGKeyArray) -> Any:
    """An action drawn uniformly, among the allowed ones where the observation carries a mask."""
    if isinstance(space, spaces.Discrete) and isinstance(observation, dict) and ACTION_MASK in observation:
        return space.start + jax.random.categorical(key, jnp.log(observation[ACTION_MASK].astype(jnp.float32)))
    return spaces.sample(space, key)


def into_bounds(space: Space, action: Any) -> Any:
    """Continuous actions moved into their bounds; others as they are."""
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return jnp.clip(action, space.low, space.high)
    return action
