"""What collecting experience needs wherever it comes from: who acts, what is kept of a step, and when updates are due."""

from fractions import Fraction
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from polyact import spaces
from polyact.data.sampling import Sampling
from polyact.envs.base import Step
from polyact.errors import PolyactError
from polyact.learning.base import Decision, OffPolicyLearner, TrainState, Trajectory
from polyact.learning.fleet import Occurrences
from polyact.learning.program import Count, as_count, repeat
from polyact.learning.replay import Replay, Rows
from polyact.policies.encoding import ACTION_MASK
from polyact.spaces import Space

Metrics = dict[str, Any]


class ReplayRule(eqx.Module):
    """How an off-policy learner uses its experience, wherever that comes from. ratio: updates per step of all environments, as a
    fraction (numerator, denominator)."""

    learner: OffPolicyLearner
    action_space: Space
    sampling: Sampling
    envs: int
    batch_size: int
    capacity: int
    learning_starts: int
    ratio: tuple[int, int]

    def updates(self, iterations: int) -> int:
        """How many updates so many steps of all environments make, at least 1."""
        waiting = max(0, -(-self.learning_starts // self.envs) - 1)
        return max(1, (max(0, iterations - waiting) * self.ratio[0]) // self.ratio[1])

    def choose(self, state: TrainState, observation: PyTree, keys: Any, i: Any) -> Any:
        """Actions for observations [N, ...]: random ones at first, then exploring ones."""
        return jax.lax.cond(
            i * self.envs < self.learning_starts,
            jax.vmap(lambda o, k: random_action(self.action_space, o, k)),
            jax.vmap(lambda o, k: self.learner.explore(state, o, k)),
            observation,
            keys,
        )

    def absorb(
        self, state: TrainState, replay: Replay, rows: Rows, key: PRNGKeyArray, i: Any
    ) -> tuple[TrainState, Replay, Metrics]:
        """Put one step of all environments into the buffer and make the updates that are due."""
        replay = replay.add(rows)

        def update(u: Any, state: TrainState) -> tuple[TrainState, Metrics]:
            draw, step = jax.random.split(jax.random.fold_in(key, u))
            return self.learner.update(state, replay.sample(self.sampling, self.batch_size, draw), step)

        state, summary = repeat(update, state, as_count(0), due(i, self.envs, self.learning_starts, self.ratio))
        return state, replay, {name: Occurrences(total, summary.counts[name]) for name, total in summary.sums.items()}


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


def rows_of(observation: PyTree, action: Any, step: Step, needs: tuple[str, ...]) -> Rows:
    """What the replay buffer keeps of one step. PolyactError when costs are needed and the environment has none."""
    with_cost = "cost" in needs
    if with_cost and "cost" not in step.info:
        raise PolyactError(
            f"this learner needs info['cost'] from the environment, which reports {', '.join(step.info) or 'nothing'}"
        )
    terminated, ended = step.terminated.astype(jnp.float32), (step.terminated | step.truncated).astype(jnp.float32)
    return Rows(observation, action, step.reward, step.observation, terminated, ended, step.info["cost"] if with_cost else None)


def trajectory_row(observation: PyTree, decision: Decision, step: Step, start: Array) -> Trajectory:
    """One step of all environments as a row of a trajectory, without a memory."""
    return Trajectory(
        observation,
        decision.action,
        step.reward,
        step.observation,
        step.terminated.astype(jnp.float32),
        step.truncated.astype(jnp.float32),
        start,
        decision.log_prob,
        decision.value,
        None,
        step.info,
    )


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
