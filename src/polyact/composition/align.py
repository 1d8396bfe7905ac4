"""Permute the hidden units of one policy so that its weights come close to another's.

Two ways. `coordinate_descent` improves one group of units after the other by linear assignment (Git Re-Basin, arXiv 2209.04836, extended
to recurrent layers). `soft_permutations` learns scores by gradient, through Sinkhorn's soft permutations with a hard permutation in the
forward pass (FLEET-MERGE, arXiv 2310.01362).
"""

from collections.abc import Callable, Mapping
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

Matrices = dict[str, Float[np.ndarray, "W W"]]  # on the host: assignments are found there, step by step
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
    mean = {group: np.full((width, width), 1 / width, np.float32) for group, width in symmetry.widths.items()}
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
    scores = {g: jnp.asarray(0.01 * rng.normal(size=(w, w)), jnp.float32) for g, w in symmetry.widths.items()}
    state, soft, best = optax.adam(learning_rate).init(scores), _softened(scores, temperature), (-np.inf, symmetry.identity())
    for _ in range(steps):
        hard = {group: assigned(own) for group, own in soft.items()}
        value, scores, state, soft = _straight_through(scores, state, hard, *pair, symmetry.axes, temperature, learning_rate)
        best = max(best, (float(value), hard), key=lambda found: found[0])
    return best[1]


def sinkhorn(scores: Float[Array, "W W"], iterations: int = 20) -> Float[Array, "W W"]:
    """A matrix with rows and columns that sum to one: exp(scores), normalised along both axes in turn."""

    def both(_: Any, logs: Array) -> Array:
        logs = logs - jax.nn.logsumexp(logs, 1, keepdims=True)
        return logs - jax.nn.logsumexp(logs, 0, keepdims=True)

    return jnp.exp(jax.lax.fori_loop(0, iterations, both, scores))


def assigned(scores: Float[Array, "W W"] | Float[np.ndarray, "W W"]) -> Float[np.ndarray, "W W"]:
    """The permutation matrix with the largest inner product with the scores."""
    _, columns = linear_sum_assignment(np.asarray(scores), maximize=True)
    return np.eye(len(columns), dtype=np.float32)[columns]


def agreement(matrices: Mapping[str, Any], reference: list[Array], member: list[Array], axes: tuple[Axes, ...]) -> Float[Array, ""]:
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
            slope, target = np.asarray(slopes[group]), assigned(slopes[group])
            rise = float(np.vdot(slope, target - found[group]))
            bow = float(_agreement(found | {group: target}, *pair, symmetry.axes)) - float(value) - rise
            step = 1.0 if bow >= 0 else min(1.0, -rise / (2 * bow))
            nearer = found[group] + np.float32(step) * (target - found[group])
            found, moved = found | {group: nearer}, max(moved, step * rise)
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
def _softened(scores: dict[str, Array], temperature: float) -> dict[str, Array]:
    return {group: sinkhorn(own / temperature) for group, own in scores.items()}


@partial(jax.jit, static_argnums=(5, 6, 7))
def _straight_through(
    scores: dict[str, Array],
    state: Any,
    hard: Mapping[str, Any],
    reference: list[Array],
    member: list[Array],
    axes: tuple[Axes, ...],
    temperature: float,
    learning_rate: float,
) -> tuple[Float[Array, ""], dict[str, Array], Any, dict[str, Array]]:
    """Agreement at the hard permutations; scores after one step on the squared distance, Adam's state, and the new soft permutations."""

    def distance(scores: dict[str, Array]) -> tuple[Array, Array]:
        soft = _softened(scores, temperature)
        through = {group: hard[group] + soft[group] - jax.lax.stop_gradient(soft[group]) for group in soft}
        value = agreement(through, reference, member, axes)
        moved = [moved_by(weight, own, through) for weight, own in zip(member, axes, strict=True)]
        return sum((jnp.square(a - b).sum() for a, b in zip(reference, moved, strict=True)), start=jnp.zeros(())), value

    slope, value = jax.grad(distance, has_aux=True)(scores)
    updates, state = optax.adam(learning_rate).update(slope, state)
    scores = optax.apply_updates(scores, updates)  # pyright: ignore[reportAssignmentType]
    return value, scores, state, _softened(scores, temperature)
