"""Cloning inside one's own compiled program: a policy fitted to rows of data by one loop, for experiments that are compiled whole.

`fit` with `BC` does the same for people, with reports, checkpoints and data larger than the device.
"""

from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from polyact import tree
from polyact.data.sampling import Batch, Sampling
from polyact.data.source import Data, as_mixture
from polyact.data.table import build_table
from polyact.learning.optimiser import Optimiser, descend
from polyact.policies.base import Imitable

M = TypeVar("M", bound=PyTree)
P = TypeVar("P", bound=Imitable)


def clone(
    policy: P,
    rows: Batch,
    *,
    steps: int,
    key: PRNGKeyArray,
    batch_size: int = 256,
    optimiser: Optimiser | None = None,
    decay: float = 0.995,
) -> P:
    """The policy after `steps` updates on batches drawn from `rows`; the moving average of its weights (`minimise`)."""
    count = len(jax.tree.leaves(rows)[0])

    def loss(policy: P, key: PRNGKeyArray) -> Float[Array, ""]:
        draw, rest = jax.random.split(key)
        chosen = jax.random.randint(draw, (batch_size,), 0, count)
        return policy.imitation_loss(jax.tree.map(lambda column: column[chosen], rows), rest)

    return minimise(loss, policy, steps=steps, key=key, optimiser=optimiser, decay=decay)


def minimise(
    loss: Callable[[M, PRNGKeyArray], Float[Array, ""]],
    module: M,
    *,
    steps: int,
    key: PRNGKeyArray,
    optimiser: Optimiser | None = None,
    decay: float = 0.0,
) -> M:
    """The module after `steps` of Adam (by default 1e-3 falling by a cosine) on loss(module, key).

    decay: returns the moving average of the weights that keeps this share at every step, or as much as steps so far allow.
    """
    optimiser = optimiser or Optimiser(1e-3, schedule="cosine")
    arrays, still = eqx.partition(module, eqx.is_array)

    def one(i: Array, carry: PyTree) -> PyTree:
        module, average = (eqx.combine(part, still) for part in carry[:2])
        value = lambda m: (loss(m, jax.random.fold_in(key, i)), None)  # noqa: E731
        module, moments, _ = descend(value, module, optimiser, carry[2])
        average = tree.ema(average, module, 1 - jnp.minimum(decay, (i + 1) / (i + 10)))
        return *(eqx.filter(part, eqx.is_array) for part in (module, average)), moments

    _, average, _ = jax.lax.fori_loop(0, steps, one, (arrays, arrays, optimiser.init(module, steps)))
    return eqx.combine(average, still)


def drawn_rows(data: Data, sampling: Sampling, count: int, key: PRNGKeyArray) -> Batch:
    """`count` rows of data cut by `sampling`, drawn evenly (with replacement when there are fewer): one shape whatever the episodes'."""
    table, _ = build_table(as_mixture(data), ("observation", "action"), budget=1 << 32)
    which, rest = jax.random.split(key)
    eligible = np.flatnonzero(sampling.eligible(table.index))
    steps = jax.random.choice(which, jnp.asarray(eligible, jnp.int32), (count,), replace=len(eligible) < count)
    return sampling.gather(table.columns, sampling.rows(table.index, steps, rest))
