"""Values of a policy from its log: fitted Q evaluation, tabular and linear, and the type that any other critic can fill.

Fitted Q evaluation (Le et al. 2019; Ernst et al. 2005) regresses q(s, a) on r + discount * E q(s', a' ~ target) until nothing changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import sparse

from polyact.data.episodes import Column, Episodes
from polyact.errors import PolyactError
from polyact.evaluation.off_policy.log import check_table, next_observations, numbered, observations, terminated, unweighted


@dataclass(frozen=True)
class ActionValues:
    """Values of the target policy. q(observations [n, ...], actions [n, ...]) -> [n]; v(observations [n, ...]) -> [n], the mean of q over
    the target's actions. Both in NumPy. note: what is known to be shaky about them; discount: theirs, None when not known.
    """

    q: Callable[[Column, Column], np.ndarray]
    v: Callable[[Column], np.ndarray]
    note: str = ""
    discount: float | None = None


def tabular_values(q: Float[np.ndarray, "S A"], policy: Float[np.ndarray, "S A"], note: str = "") -> ActionValues:
    """Values from a table [states, actions], for numbered observations and actions."""
    v = (q * policy).sum(1)
    return ActionValues(
        lambda states, actions: q[np.asarray(states), np.asarray(actions)], lambda states: v[np.asarray(states)], note
    )


def fitted_q_tabular(
    episodes: Episodes, policy: Float[np.ndarray, "S A"], discount: float, *, tolerance: float = 1e-12, sweeps: int = 100_000
) -> tuple[ActionValues, Float[np.ndarray, "S A"]]:
    """Fitted Q evaluation for numbered states and actions: the values, and q [S, A]. Pairs that were never logged keep q = 0.

    Its fixed point solves the empirical MDP. Raises PolyactError when the sweeps run out (a discount of 1 and episodes that never end).
    """
    unweighted(episodes, discount)
    states, actions = numbered(episodes)
    check_table(policy, states, actions)
    pair, goes_on = states * policy.shape[1] + actions, ~terminated(episodes)
    after = np.asarray(next_observations(episodes), np.int64)
    if after.max() >= len(policy):
        raise PolyactError(f"the log reaches state {after.max()}, the policy's table has shape {policy.shape}")
    count = np.bincount(pair, minlength=policy.size)
    share = 1.0 / np.maximum(count, 1)
    reward = np.bincount(pair, np.asarray(episodes.reward, np.float64), minlength=policy.size) * share
    moves = sparse.csr_matrix((share[pair] * goes_on, (pair, after)), shape=(policy.size, len(policy)))
    q = np.zeros(policy.shape)
    for _ in range(sweeps):
        new = (reward + discount * (moves @ (q * policy).sum(1))).reshape(policy.shape)
        change, q = float(np.abs(new - q).max()), new
        if change <= tolerance * (1 + float(np.abs(q).max())):
            return tabular_values(q, policy, _coverage(policy, count.reshape(policy.shape), after[goes_on])), q
    raise PolyactError(f"fitted Q evaluation still changes by {change:.2g} after {sweeps} sweeps: use a discount below 1")


def fitted_q_linear(
    episodes: Episodes,
    features: Callable[[Column, Column], np.ndarray],
    expected_features: Callable[[Column], np.ndarray],
    discount: float,
    *,
    ridge: float = 1e-6,
    tolerance: float = 1e-10,
    sweeps: int = 10_000,
) -> tuple[ActionValues, Float[np.ndarray, " K"]]:
    """Fitted Q evaluation with q = features . w: the values, and w [K].

    features(observations, actions) -> [n, K]; expected_features(observations) -> [n, K], their mean over the target's actions.
    ridge: penalty per step.
    Raises PolyactError when the iteration diverges, which it may do with features that overlap little.
    """
    unweighted(episodes, discount)
    here = np.asarray(features(observations(episodes), _required(episodes.action)), np.float64)
    after = np.asarray(expected_features(next_observations(episodes)), np.float64) * ~terminated(episodes)[:, None]
    if here.shape != after.shape or here.ndim != 2 or len(here) != episodes.steps:
        raise PolyactError(
            f"features have shape {here.shape} and expected features {after.shape}, both should be [{episodes.steps}, K]"
        )
    gram = here.T @ here / len(here) + ridge * np.eye(here.shape[1])
    start = np.linalg.solve(gram, here.T @ np.asarray(episodes.reward, np.float64) / len(here))
    step = discount * np.linalg.solve(gram, here.T @ after / len(here))
    w = start
    for sweep in range(sweeps):
        new = start + step @ w
        change, w = float(np.abs(new - w).max()), new
        if not np.isfinite(change) or change > 1e12 * (1 + np.abs(start).max()):
            raise PolyactError(
                f"fitted Q evaluation diverged at sweep {sweep}: use fewer features, more ridge or a smaller discount"
            )
        if change <= tolerance * (1 + np.abs(w).max()):
            return _linear(features, expected_features, w), w
    raise PolyactError(f"fitted Q evaluation still changes by {change:.2g} after {sweeps} sweeps: use a discount below 1")


def _coverage(policy: np.ndarray, count: np.ndarray, after: np.ndarray) -> str:
    share = float((policy * (count == 0)).sum(1)[after].mean()) if len(after) else 0.0
    return f"{100 * share:.1f}% of the target's next actions were never logged; their value is taken as 0" if share > 0 else ""


def _linear(
    features: Callable[[Column, Column], np.ndarray], expected: Callable[[Column], np.ndarray], w: np.ndarray
) -> ActionValues:
    return ActionValues(lambda o, a: features(o, a) @ w, lambda o: expected(o) @ w)


def _required(action: Column | None) -> Column:
    if action is None:
        raise PolyactError("off-policy evaluation needs actions, and these episodes have none")
    return action
