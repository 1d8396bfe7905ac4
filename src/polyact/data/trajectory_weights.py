"""Sampling weights that favour good trajectories, for `fit(..., weights=...)` under any learner (RW and AW, arXiv 2306.13085).

A mixed data set then looks to the learner as if a better policy had recorded it.
"""

import jax
import numpy as np
from jaxtyping import Float

from polyact.data.episodes import Column, Episodes
from polyact.errors import DataError, PolyactError

Scores = Float[np.ndarray, " E"]


def trajectory_weights(scores: Scores, alpha: float = 0.1) -> Scores:
    """exp(x / alpha) of each trajectory's score, brought to [0, 1] first; the largest weight is 1. For every step of the trajectory.

    scores: the returns (RW), or `advantages` (AW). alpha: small ones go to the best trajectory, large ones to uniform sampling. Raises
    PolyactError unless alpha is positive, DataError for scores that are not finite.
    """
    scores = np.asarray(scores, np.float64)
    if not alpha > 0:
        raise PolyactError(f"alpha must be positive, got {alpha}")
    if not len(scores) or not np.isfinite(scores).all():
        raise DataError(f"trajectory weights need at least one score, and finite ones, got {len(scores)}")
    spread = np.ptp(scores)
    return np.exp((scores - scores.max()) / (alpha * spread)) if spread > 0 else np.ones(len(scores))


def advantages(episodes: Episodes) -> Scores:
    """Returns minus what a linear regression on the first observation expects: what is left when luck at the start is taken out."""
    returns = episodes.returns
    return returns - predicted_returns(episodes, returns)


def predicted_returns(episodes: Episodes, returns: Scores) -> Scores:
    """Least squares of returns on the first observations with an intercept; each value of a discrete observation is an entry of its own."""
    if episodes.observation is None:
        raise DataError("advantages of trajectories need observations, which were not recorded")
    first = episodes.starts + np.arange(episodes.count)
    parts = jax.tree.leaves(jax.tree.map(lambda column: _numbers(np.asarray(column[first])), episodes.observation))
    design = np.concatenate([np.ones((episodes.count, 1)), *parts], axis=1)
    return design @ np.linalg.lstsq(design, returns, rcond=None)[0]


def best_trajectories(scores: Scores, share: float = 0.1) -> Scores:
    """Weight 1 for the best `share` of trajectories (at least one), 0 for the others."""
    if not 0 < share <= 1:
        raise PolyactError(f"share must lie in (0, 1], got {share}")
    weights = np.zeros(len(scores))
    weights[np.argsort(-np.asarray(scores), kind="stable")[: max(1, round(share * len(scores)))]] = 1.0
    return weights


def half_and_half(episodes: Episodes, share: float = 0.1) -> Scores:
    """Half of a batch from the best `share` of trajectories by return, half from all."""
    best, lengths = best_trajectories(episodes.returns, share), episodes.lengths
    return best / (best * lengths).sum() + 1 / lengths.sum()


def positive_sided_variance(returns: Scores) -> float:
    """Mean of max(0, return - mean return)^2: how much better than average some trajectories are, and how much there is to gain."""
    returns = np.asarray(returns, np.float64)
    return float(np.mean(np.maximum(0.0, returns - returns.mean()) ** 2))


def weighted_behaviour(episodes: Episodes, weights: Scores, states: int, actions: int) -> Float[np.ndarray, "S A"]:
    """The policy that tabular data seem to be recorded by when trajectories count as much as their weights; uniform where nobody was."""
    if len(weights) != episodes.count:
        raise PolyactError(f"{episodes.count} episodes need as many weights, got {len(weights)}")
    rows = np.arange(episodes.steps) + np.repeat(np.arange(episodes.count), episodes.lengths)
    counts = np.zeros((states, actions))
    np.add.at(counts, (np.asarray(episodes.observation)[rows], np.asarray(episodes.action)), np.repeat(weights, episodes.lengths))
    total = counts.sum(1, keepdims=True)
    return np.where(total > 0, counts / np.where(total > 0, total, 1), 1 / actions)


def _numbers(column: Column) -> Float[np.ndarray, "E width"]:
    """Rows as vectors; integers, which are names and not quantities, as indicators."""
    column = np.asarray(column)
    if column.dtype.kind in "iu" and column.ndim == 1:
        return np.asarray(column[:, None] == np.unique(column), np.float64)
    return column.reshape(len(column), -1).astype(np.float64)
