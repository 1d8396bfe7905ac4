"""What one iteration of learning is when the environments live on the host: choose actions, and later learn from what came of them."""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from polyact import spaces
from polyact.envs.base import Step
from polyact.envs.vector import where
from polyact.learning.base import Decision, OnPolicyLearner, TrainState
from polyact.learning.collect import Metrics, ReplayRule, Tally, into_bounds, rows_of, trajectory_row
from polyact.learning.process import INITIAL
from polyact.learning.replay import Replay
from polyact.policies.spec import Spec
from polyact.spaces import Space


class HostCarry(eqx.Module):
    """replay: None for an on-policy learner."""

    learner: TrainState
    replay: Replay | None
    tally: Tally


class Moment(eqx.Module):
    """One step of N environments as the host saw it; stacked, what `absorb` gets [T, N, ...]."""

    observation: Any
    decision: Decision
    reached: Any
    reward: Any
    terminated: Any
    truncated: Any
    info: Any
    start: Any

    @property
    def step(self) -> Step:
        """What the environment gave back."""
        return Step(self.reached, self.reward, self.terminated, self.truncated, self.info)


class HostProcess(eqx.Module):
    """One learner in N environments of the host: an iteration is `length` steps of all of them, then `absorb`."""

    @property
    @abstractmethod
    def envs(self) -> int:
        """N."""

    @property
    @abstractmethod
    def length(self) -> int:
        """Steps of every environment in one iteration."""

    @property
    def stride(self) -> int:
        """Environment steps of one iteration."""
        return self.envs * self.length

    @abstractmethod
    def updates(self, iterations: int) -> int:
        """How often the learner's `update` is called in so many iterations."""

    @abstractmethod
    def begin(self, spec: Spec, key: PRNGKeyArray) -> HostCarry:
        """What is carried from iteration to iteration, at the start."""

    @abstractmethod
    def remember(self, state: TrainState, key: PRNGKeyArray) -> Any:
        """What the actors [N, ...] remember before their first step; None when nothing is."""

    @abstractmethod
    def choose(
        self, state: TrainState, observation: Any, memory: Any, start: Any, key: PRNGKeyArray, i: Any
    ) -> tuple[Any, Any, Any]:
        """(decisions, actions for the environments, memory) for observations [N, ...]; `start` [N] marks first ones."""

    @abstractmethod
    def absorb(self, carry: HostCarry, moments: Moment, memory: Any, key: PRNGKeyArray, i: Any) -> tuple[HostCarry, Metrics]:
        """Learn from an iteration that began with `memory`."""


class HostOffPolicy(HostProcess):
    rule: ReplayRule

    @property
    def envs(self) -> int:
        return self.rule.envs

    @property
    def length(self) -> int:
        return 1

    def updates(self, iterations: int) -> int:
        return self.rule.updates(iterations)

    def begin(self, spec: Spec, key: PRNGKeyArray) -> HostCarry:
        learner = self.rule.learner.init(spec, jax.random.fold_in(key, INITIAL))
        draw = lambda space: jax.vmap(lambda k: spaces.sample(space, k))(jax.random.split(key, self.envs))  # noqa: E731
        number, flag = jnp.zeros(self.envs), jnp.zeros(self.envs, bool)

        def example() -> Any:
            observation = draw(spec.observation_space)
            step = Step(observation, number, flag, flag, {"cost": number})
            return rows_of(observation, draw(spec.action_space), step, self.rule.learner.needs)

        return HostCarry(learner, Replay.empty(jax.eval_shape(example), self.rule.capacity), Tally.zero(self.envs))

    def remember(self, state: TrainState, key: PRNGKeyArray) -> Any:
        return None

    def choose(
        self, state: TrainState, observation: Any, memory: Any, start: Any, key: PRNGKeyArray, i: Any
    ) -> tuple[Any, Any, Any]:
        action = self.rule.choose(state, observation, jax.random.split(key, self.envs), i)
        return Decision(action), action, memory

    def absorb(self, carry: HostCarry, moments: Moment, memory: Any, key: PRNGKeyArray, i: Any) -> tuple[HostCarry, Metrics]:
        one = jax.tree.map(lambda leaf: leaf[0], moments)
        rows = rows_of(one.observation, one.decision.action, one.step, self.rule.learner.needs)
        assert carry.replay is not None
        state, replay, metrics = self.rule.absorb(carry.learner, carry.replay, rows, key, i)
        return HostCarry(state, replay, carry.tally), metrics


class HostOnPolicy(HostProcess):
    learner: OnPolicyLearner
    action_space: Space
    count: int

    @property
    def envs(self) -> int:
        return self.count

    @property
    def length(self) -> int:
        return self.learner.rollout_length

    def updates(self, iterations: int) -> int:
        return iterations

    def begin(self, spec: Spec, key: PRNGKeyArray) -> HostCarry:
        return HostCarry(self.learner.init(spec, jax.random.fold_in(key, INITIAL)), None, Tally.zero(self.envs))

    def remember(self, state: TrainState, key: PRNGKeyArray) -> Any:
        return jax.vmap(lambda k: self.learner.start(state, k))(jax.random.split(key, self.envs))

    def choose(
        self, state: TrainState, observation: Any, memory: Any, start: Any, key: PRNGKeyArray, i: Any
    ) -> tuple[Any, Any, Any]:
        memory = where(start, self.remember(state, key), memory)
        keys = jax.random.split(key, self.envs)
        decision, memory = jax.vmap(lambda o, m, k: self.learner.act(state, o, m, k))(observation, memory, keys)
        return decision, into_bounds(self.action_space, decision.action), memory

    def absorb(self, carry: HostCarry, moments: Moment, memory: Any, key: PRNGKeyArray, i: Any) -> tuple[HostCarry, Metrics]:
        rows = jax.vmap(lambda m: trajectory_row(m.observation, m.decision, m.step, m.start))(moments)
        rows = eqx.tree_at(lambda t: t.memory, rows, memory, is_leaf=lambda leaf: leaf is None)
        state, metrics = self.learner.update(carry.learner, rows, key)
        return HostCarry(state, None, carry.tally), metrics
