"""Permute the hidden units of one policy so that its weights come close to another's.

Two ways. `coordinate_descent` improves one group of units after the other by linear assignment (Git Re-Basin, arXiv 2209.04836, extended
to recurrent layers). `soft_permutations` learns scores by gradient, through Sinkhorn's soft permutations with a hard permutation in the
forward pass (FLEET-MERGE, arXiv 2310.01362).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float
from scipy.optimize import linear_sum_assignment

from polyact.composition.symmetry import Axes, Symmetry, moved_by
from polyact.errors import PolyactError
from polyact.policies.base import Policy

Matrices = dict[str, Float[Array, "W W"]]
Align = Callable[[Policy, Policy, Symmetry, np.random.Generator], Matrices]


def coordinate_descent(
    reference: Policy, member: Policy, symmetry: Symmetry, rng: np.random.Generator, *, restarts: int = 1, sweeps: int = 30
) -> Matrices:
    """The best permutations found from the identity, from the mean of all permutations and from `restarts` random starts.

    Each group in turn gets the assignment that is best for the slope of the inner product of all weights. Where the objective is
    quadratic in it (recurrent weights) that is one step towards a fixed point: over soft permutations, with steps as long as they
    help, and over hard ones, kept only when they are better.
    """
    pair = symmetry.weights(reference), symmetry.weights(member)
    mean = {group: jnp.full((width, width), 1 / width) for group, width in symmetry.widths.items()}
    random = [symmetry.random(rng) for _ in range(restarts)]
    relaxed = [_relaxed(pair, start, symmetry, sweeps) for start in (mean, *random)]
    ends = [_descend(pair, start, symmetry, rng, sweeps) for start in (symmetry.identity(), *relaxed, *random)]
    return max(ends, key=lambda end: end[0])[1]


def soft_permutations(
    reference: Policy,
    member: Policy,
    symmetry: Symmetry,
    rng: np.random.Generator,
    *,
    steps: int = 200,
    learning_rate: float = 0.03,
    temperature: float = 1.0,
) -> Matrices:
    """The best permutations met while the scores X descend on the squared distance of the weights at P = hard + S - stopped S.

    S = Sinkhorn(X / temperature), hard its projection by linear assignment. Raises PolyactError for settings that are not positive.
    """
    if min(steps, learning_rate, temperature) <= 0:
        raise PolyactError(f"steps, learning_rate and temperature must be positive, got {steps}, {learning_rate}, {temperature}")
    pair = symmetry.weights(reference), symmetry.weights(member)
    optimiser = optax.adam(learning_rate)
    scores = {g: jnp.asarray(0.01 * rng.normal(size=(w, w)), jnp.float32) for g, w in symmetry.widths.items()}
    state, best = optimiser.init(scores), (-np.inf, symmetry.identity())
    for _ in range(steps):
        hard = {group: assigned(soft) for group, soft in _softened(scores, temperature).items()}
        value, slope = _straight_through(scores, hard, *pair, symmetry.axes, temperature)
        best = max(best, (float(value), hard), key=lambda found: found[0])
        updates, state = optimiser.update(slope, state)
        scores = optax.apply_updates(scores, updates)
    return best[1]


def sinkhorn(scores: Float[Array, "W W"], iterations: int = 20) -> Float[Array, "W W"]:
    """A matrix with rows and columns that sum to one: exp(scores), normalised along both axes in turn."""

    def both(_: Any, logs: Array) -> Array:
        logs = logs - jax.nn.logsumexp(logs, 1, keepdims=True)
        return logs - jax.nn.logsumexp(logs, 0, keepdims=True)

    return jnp.exp(jax.lax.fori_loop(0, iterations, both, scores))


def assigned(scores: Float[Array, "W W"]) -> Float[Array, "W W"]:
    """The permutation matrix with the largest inner product with the scores."""
    _, columns = linear_sum_assignment(np.asarray(scores), maximize=True)
    return jnp.eye(len(columns))[columns]


def agreement(matrices: Matrices, reference: list[Array], member: list[Array], axes: tuple[Axes, ...]) -> Float[Array, ""]:
    """Inner product of the reference's weights and the member's, permuted; the squared distance is a constant minus twice that."""
    moved = [moved_by(weight, own, matrices) for weight, own in zip(member, axes, strict=True)]
    return sum((jnp.vdot(one, other) for one, other in zip(reference, moved, strict=True)), start=jnp.zeros(()))


_agreement, _slopes = jax.jit(agreement, static_argnums=3), jax.jit(jax.value_and_grad(agreement), static_argnums=3)


Pair = tuple[list[Array], list[Array]]


def _relaxed(pair: Pair, found: Matrices, symmetry: Symmetry, sweeps: int) -> Matrices:
    """Frank and Wolfe's method over doubly stochastic matrices, one group after the other, projected at the end.

    Along the way to an assignment the agreement is a parabola, whose top gives the step (as FAQ does, Vogelstein et al. 2015).
    """
    for _ in range(sweeps):
        moved = 0.0
        for group in symmetry.widths:
            value, slopes = _slopes(found, *pair, symmetry.axes)
            target = assigned(slopes[group])
            rise = float(jnp.vdot(slopes[group], target - found[group]))
            bow = float(_agreement(found | {group: target}, *pair, symmetry.axes)) - float(value) - rise
            step = 1.0 if bow >= 0 else min(1.0, -rise / (2 * bow))
            found, moved = found | {group: found[group] + step * (target - found[group])}, max(moved, step * rise)
        if moved <= 1e-4 * abs(float(value)):
            break
    return {group: assigned(soft) for group, soft in found.items()}


def _descend(pair: Pair, found: Matrices, symmetry: Symmetry, rng: np.random.Generator, sweeps: int) -> tuple[float, Matrices]:
    """Agreement and permutations at a fixed point of one assignment after the other."""
    value, slopes = _slopes(found, *pair, symmetry.axes)
    for _ in range(sweeps):
        before = float(value)
        for group in map(str, rng.permutation(list(symmetry.widths))):
            tried = found | {group: assigned(slopes[group])}
            tried_value, tried_slopes = _slopes(tried, *pair, symmetry.axes)
            if float(tried_value) > float(value):
                found, value, slopes = tried, tried_value, tried_slopes
        if float(value) <= before:
            break
    return float(value), found


@partial(jax.jit, static_argnums=1)
def _softened(scores: Matrices, temperature: float) -> Matrices:
    return {group: sinkhorn(own / temperature) for group, own in scores.items()}


@partial(jax.jit, static_argnums=(4, 5))
def _straight_through(
    scores: Matrices, hard: Matrices, reference: list[Array], member: list[Array], axes: tuple[Axes, ...], temperature: float
) -> tuple[Float[Array, ""], Matrices]:
    """Agreement at the hard permutations, and the slope of the squared distance with respect to the scores."""

    def distance(scores: Matrices) -> tuple[Array, Array]:
        soft = {group: sinkhorn(own / temperature) for group, own in scores.items()}
        through = {group: hard[group] + soft[group] - jax.lax.stop_gradient(soft[group]) for group in soft}
        value = agreement(through, reference, member, axes)
        moved = [moved_by(weight, own, through) for weight, own in zip(member, axes, strict=True)]
        return sum((jnp.square(a - b).sum() for a, b in zip(reference, moved, strict=True)), start=jnp.zeros(())), value

    slope, value = jax.grad(distance, has_aux=True)(scores)
    return value, slope
