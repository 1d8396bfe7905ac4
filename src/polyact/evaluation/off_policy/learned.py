"""Values learned by `FQE` as what the off-policy estimators read: a direct method, or the model inside a doubly robust one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np

from polyact.data.episodes import Column
from polyact.errors import PolyactError
from polyact.evaluation.off_policy.values import ActionValues
from polyact.learning.fitted import Fitted
from polyact.learning.fitted_q import FQE

BLOCK = 4096  # rows that are judged at once


def learned_values(fitted: Fitted, *, samples: int = 32, seed: int = 0) -> ActionValues:
    """The values that `fit(FQE(policy), ...)` learned, averaged over its seeds.

    samples: actions drawn for the value of each observation, where it is not a sum over classes. Raises PolyactError for anything
    that is not a fitted FQE.
    """
    learner = fitted.learner
    if not isinstance(learner, FQE):
        raise PolyactError(f"learned_values needs a fitted FQE, got {type(learner).__name__}")
    functions, policy = [state.q for state in fitted.states], learner.policy
    judge = eqx.filter_jit(lambda observation, action: sum(q.q(observation, action) for q in functions) / len(functions))
    value = eqx.filter_jit(lambda observation, key: sum(q.v(policy, observation, samples, key) for q in functions) / len(functions))

    def q(observation: Column, action: Column) -> np.ndarray:
        return _blocks(lambda at, rows: judge(*rows), (observation, action))

    def v(observation: Column) -> np.ndarray:
        key = jax.random.key(seed)
        return _blocks(lambda at, rows: value(rows[0], jax.random.fold_in(key, at)), (observation,))

    return ActionValues(q, v, discount=float(learner.discount))


def _blocks(judge: Callable[[int, Any], Any], columns: tuple[Any, ...]) -> np.ndarray:
    """Judge all rows, block by block; the last block is filled up with its last row, so that one program serves all."""
    rows = len(jax.tree.leaves(columns)[0])
    size = min(BLOCK, rows)
    out = []
    for at in range(0, rows, size):
        places = np.minimum(np.arange(at, at + size), rows - 1)
        block = jax.tree.map(lambda column, places=places: np.asarray(column)[places], columns)
        out.append(np.asarray(judge(at, block), np.float64)[: rows - at])
    return np.concatenate(out) if out else np.zeros(0)
