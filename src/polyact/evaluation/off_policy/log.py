"""Logged episodes as off-policy estimators see them: rewards and importance weights over time, and who gave the probabilities.

Estimators need the probability of each logged action under the behaviour (column `log_prob`) and under the target. A log without the
former can be completed from a policy that imitates the behaviour, or from counts where observations and actions are numbers of states.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from polyact.data.episodes import Column, Episodes
from polyact.errors import DataError, PolyactError
from polyact.policies.base import StochasticPolicy

Target = np.ndarray | StochasticPolicy


@dataclass(frozen=True)
class Log:
    """E episodes, padded to T steps.

    log_weight [E, T]: log of the product of target/behaviour probabilities up to and with each step (constant after the end).
    reward [E, T]: discounted by its time, zero after the end. alive [E, T]: whether the step was taken.
    """

    log_weight: Float[np.ndarray, "E T"]
    reward: Float[np.ndarray, "E T"]
    alive: Bool[np.ndarray, "E T"]
    discount: float

    def padded(self, column: np.ndarray) -> Float[np.ndarray, "E T"]:
        """A step column [N] in this shape, zero after the end."""
        table = np.zeros(self.alive.shape)
        table[self.alive] = column
        return table


def weigh(episodes: Episodes, target: Target, discount: float) -> Log:
    """The log with its importance weights.

    target: log-probabilities [N] of the logged actions under the target policy, or the policy itself. Raises DataError when rewards or
    behaviour probabilities are missing, and PolyactError on a discount outside (0, 1].
    """
    behaviour = behaviour_log_prob(episodes)
    wanted = log_prob_of(target, episodes)
    log = unweighted(episodes, discount)
    with np.errstate(invalid="ignore"):
        steps = np.where(log.alive, log.padded(wanted - behaviour), 0.0)
    return replace(log, log_weight=np.cumsum(steps, axis=1))


def unweighted(episodes: Episodes, discount: float) -> Log:
    """The log without importance weights, for estimators that use a model of values only."""
    if not 0 < discount <= 1:
        raise PolyactError(f"discount must lie in (0, 1], got {discount}")
    if episodes.reward is None:
        raise DataError("off-policy evaluation needs rewards, and these episodes have none")
    if not episodes.count:
        raise DataError("off-policy evaluation needs at least one episode")
    alive = np.arange(int(episodes.lengths.max())) < episodes.lengths[:, None]
    log = Log(np.zeros(alive.shape), np.zeros(alive.shape), alive, discount)
    reward = log.padded(np.asarray(episodes.reward, np.float64))
    return replace(log, reward=reward * discount ** np.arange(alive.shape[1]))


def behaviour_log_prob(episodes: Episodes) -> Float[np.ndarray, " N"]:
    """The column `log_prob`; where it is missing, the error says how to get one."""
    if episodes.log_prob is None:
        raise DataError(
            "these episodes have no log_prob, so importance weights are unknown: complete them with with_log_prob(episodes, policy) "
            "for a policy that imitates the behaviour (e.g. BC), or with estimate_propensities(episodes) for numbered states and actions"
        )
    found = np.asarray(episodes.log_prob, np.float64)
    bad = np.flatnonzero(~np.isfinite(found))
    if len(bad):
        raise DataError(f"log_prob of step {bad[0]} is {found[bad[0]]}, although its action was taken; expected a finite number")
    return found


def log_prob_of(target: Target, episodes: Episodes) -> Float[np.ndarray, " N"]:
    """Log-probabilities [N] of the logged actions under a policy (or given as an array already)."""
    if not isinstance(target, StochasticPolicy):
        found = np.asarray(target, np.float64)
        if found.shape != (episodes.steps,):
            raise PolyactError(
                f"log-probabilities of the target have shape {found.shape}, expected ({episodes.steps},), one per step"
            )
        if np.any(np.isnan(found) | (found == np.inf)):
            raise PolyactError("log-probabilities of the target hold NaN or infinity")
        return found
    import equinox as eqx

    found = eqx.filter_jit(eqx.filter_vmap(target.log_prob))(observations(episodes), _actions(episodes))
    return np.asarray(found, np.float64)


def with_log_prob(episodes: Episodes, policy: StochasticPolicy) -> Episodes:
    """The episodes with `log_prob` from a policy that acted, or that imitates the one that did."""
    return replace(episodes, log_prob=log_prob_of(policy, episodes))


def estimate_propensities(episodes: Episodes) -> Episodes:
    """The episodes with `log_prob` estimated by counting: how often each action was taken in each state.

    For numbered observations and actions. Estimated propensities are never zero on what was logged; errors of counting add to those
    of the estimate.
    """
    states, actions = numbered(episodes)
    pairs, states_seen = np.stack([states, actions], 1), np.bincount(states)
    _, which, count = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    return replace(episodes, log_prob=np.log(count[which.reshape(-1)] / states_seen[states]))


def tabular_log_prob(episodes: Episodes, policy: Float[np.ndarray, "S A"]) -> Float[np.ndarray, " N"]:
    """Log-probabilities [N] of the logged actions under a table of action probabilities."""
    states, actions = numbered(episodes)
    check_table(policy, states, actions)
    with np.errstate(divide="ignore"):
        return np.log(policy[states, actions])


def unsupported(episodes: Episodes, policy: Float[np.ndarray, "S A"]) -> float:
    """Share of the target's actions, in the states of the log, that the behaviour was never seen to take there."""
    states, actions = numbered(episodes)
    check_table(policy, states, actions)
    seen = np.zeros(policy.shape, bool)
    seen[states, actions] = True
    return float((policy * ~seen).sum(1)[states].mean())


def observations(episodes: Episodes) -> Column:
    """What was observed before each step [N, ...]."""
    return _rows(episodes, np.repeat(np.arange(episodes.count), episodes.lengths) + np.arange(episodes.steps))


def next_observations(episodes: Episodes) -> Column:
    """What was observed after each step [N, ...]."""
    return _rows(episodes, np.repeat(np.arange(episodes.count), episodes.lengths) + np.arange(episodes.steps) + 1)


def first_observations(episodes: Episodes) -> Column:
    """What was observed at the start of each episode [E, ...]."""
    return _rows(episodes, episodes.starts + np.arange(episodes.count))


def terminated(episodes: Episodes) -> Bool[np.ndarray, " N"]:
    """Whether the task ended at each step; where that was not recorded, the last step of an episode counts as an end."""
    if episodes.terminated is not None:
        return np.asarray(episodes.terminated, bool)
    ends = np.zeros(episodes.steps, bool)
    ends[episodes.starts + episodes.lengths - 1] = True
    return ends


def numbered(episodes: Episodes) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " N"]]:
    """States [N] and actions [N] as numbers. Raises DataError when they are anything else."""
    return _numbers("observation", observations(episodes)), _numbers("action", _actions(episodes))


def check_table(policy: np.ndarray, states: np.ndarray, actions: np.ndarray) -> None:
    """Raise unless a table [S, A] holds probabilities for all states and actions logged."""
    if policy.ndim != 2 or np.any(policy < 0) or not np.allclose(policy.sum(1), 1, atol=1e-6):
        raise PolyactError(
            f"a tabular policy is a table [states, actions] of probabilities whose rows sum to 1, got shape {policy.shape}"
        )
    if states.max() >= policy.shape[0] or actions.max() >= policy.shape[1] or min(states.min(), actions.min()) < 0:
        raise PolyactError(
            f"the log reaches state {states.max()} and action {actions.max()}, the policy's table has shape {policy.shape}"
        )


def _numbers(name: str, column: Column) -> np.ndarray:
    if isinstance(column, dict) or column.dtype.kind not in "iu" or column.ndim != 1:
        kind = "a dictionary" if isinstance(column, dict) else f"{column.dtype} of shape {column.shape}"
        raise DataError(f"tabular evaluation needs {name}s that are whole numbers, one per step; the column holds {kind}")
    return np.asarray(column, np.int64)


def _actions(episodes: Episodes) -> Column:
    if episodes.action is None:
        raise DataError("off-policy evaluation needs actions, and these episodes have none")
    return episodes.action


def _rows(episodes: Episodes, rows: np.ndarray) -> Column:
    if episodes.observation is None:
        raise DataError("off-policy evaluation of a policy needs observations, and these episodes have none")
    return _take(episodes.observation, rows)


def _take(column: Column, rows: np.ndarray) -> Column:
    return {key: _take(part, rows) for key, part in column.items()} if isinstance(column, dict) else np.asarray(column)[rows]
