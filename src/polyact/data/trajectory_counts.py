"""Tabular episodes as counts, for methods that compute on whole data sets instead of batches."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from polyact.data.episodes import Episodes
from polyact.errors import DataError

PADDING = 64


class Trajectories(eqx.Module):
    """Tabular episodes as counts: N trajectories, P = states times actions, R different returns, U different (s, a, r, s'), which are
    padded with some that never happened, so that data sets of one world have one shape.

    taken [N, P]: how often each pair was taken; reached [N, U]: how often with which outcome, where `pair` [U] and `result` [U] number
    the pair and x = (r, s'); outcome [N, R]: the return, as an indicator, and `returns` [R] its value; start [N]: the first state.
    """

    taken: Float[Array, "N P"]
    reached: Float[Array, "N U"]
    outcome: Float[Array, "N R"]
    returns: Float[Array, " R"]
    pair: Int[Array, " U"]
    result: Int[Array, " U"]
    start: Int[Array, " N"]
    states: int = eqx.field(static=True)
    actions: int = eqx.field(static=True)
    results: int = eqx.field(static=True)

    @classmethod
    def of(cls, episodes: Episodes, states: int, actions: int) -> Trajectories:
        """Counts of episodes with discrete observations and actions. Raises DataError without rewards."""
        if episodes.reward is None:
            raise DataError("counted trajectories need rewards, which were not recorded")
        number = np.repeat(np.arange(episodes.count), episodes.lengths)
        rows, seen = np.arange(episodes.steps) + number, np.asarray(episodes.observation)
        pair = seen[rows] * actions + np.asarray(episodes.action)
        rewards, kind = np.unique(episodes.reward, return_inverse=True)
        results = len(rewards) * states
        distinct, which = np.unique(pair * results + kind.reshape(-1) * states + seen[rows + 1], return_inverse=True)
        padded = np.pad(distinct, (0, -len(distinct) % PADDING))
        returns, earned = np.unique(np.round(episodes.returns, 6), return_inverse=True)
        first = seen[episodes.starts + np.arange(episodes.count)]
        return cls(
            taken=_counted(number, pair, (episodes.count, states * actions)),
            reached=_counted(number, which.reshape(-1), (episodes.count, len(padded))),
            outcome=_counted(np.arange(episodes.count), earned, (episodes.count, len(returns))),
            returns=jnp.asarray(returns, jnp.float32),
            pair=jnp.asarray(padded // results, jnp.int32),
            result=jnp.asarray(padded % results, jnp.int32),
            start=jnp.asarray(first, jnp.int32),
            states=states,
            actions=actions,
            results=results,
        )

    @property
    def steps(self) -> Float[Array, ""]:
        return self.taken.sum()


def _counted(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> Float[Array, "rows columns"]:
    table = np.zeros(shape, np.float32)
    np.add.at(table, (rows, columns), 1)
    return jnp.asarray(table)
