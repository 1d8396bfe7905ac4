"""Several policies of one architecture as one, by averaging weights; only weights and normalisation statistics are exchanged.

`average` is federated averaging. `merge` first permutes the hidden units of every member towards a common reference (FLEET-MERGE, arXiv
2310.01362), which makes averages of separately initialised policies mean something.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from polyact import tree
from polyact.composition.align import Align, Matrices, coordinate_descent
from polyact.composition.symmetry import symmetry
from polyact.errors import PolyactError
from polyact.nets.ensemble import stack
from polyact.nets.layers import Linear
from polyact.policies.base import Policy
from polyact.policies.normalise import Normaliser
from polyact.policies.recurrent import Recurrent


def average(policies: Sequence[Policy]) -> Policy:
    """The mean of all parameters, observations being normalised by pooled statistics (`alike`). Raises PolyactError as `alike` does."""
    return _mean(alike(policies))


def merge(policies: Sequence[Policy], *, seed: int = 0, rounds: int = 5, align: Align = coordinate_descent) -> Policy:
    """The mean of all members after their hidden units were permuted to fit.

    The reference is the first member, then the mean of the aligned members, until that changes nothing, at most `rounds` times in all.
    Every member is aligned to the one reference, never to a neighbour. Raises PolyactError as `alike` and `symmetry` do.
    """
    if rounds < 1:
        raise PolyactError(f"merging needs at least one round of alignment, got {rounds}")
    members = [folded(policy) for policy in alike(policies)]
    rng, groups = np.random.default_rng(seed), symmetry(members[0])
    merged, before = members[0], None
    for _ in range(rounds):
        found = [align(merged, member, groups, rng) for member in members]
        if before is not None and all(map(_equal, found, before)):
            break
        merged, before = _mean([groups.permuted(*pair) for pair in zip(members, found, strict=True)]), found
    return merged


def alike(policies: Sequence[Policy]) -> list[Policy]:
    """The same functions with one normaliser of observations: statistics are pooled, first layers make up for the change.

    Raises PolyactError when there is no policy, when architectures differ, and when actions have different scales.
    """
    if not policies:
        raise PolyactError("there is no policy to merge")
    if not hasattr(policies[0], "body"):
        raise PolyactError(f"{type(policies[0]).__name__} has no one body whose units could be made common; it can't be merged")
    stacked = stack(policies)
    scale = stacked.body.action_scale
    if any(bool(np.ptp(np.asarray(leaf), 0).any()) for leaf in jax.tree.leaves(scale)):
        raise PolyactError("policies whose actions have different scales can't be merged; train them with common action bounds")
    means, stds = np.asarray(stacked.body.normaliser.mean), np.asarray(stacked.body.normaliser.std)
    if not (np.ptp(means, 0).any() or np.ptp(stds, 0).any()):
        return list(policies)
    mean = means.mean(0)
    std = np.sqrt((stds**2 + (means - mean) ** 2).mean(0))
    return [_normalised_by(Normaliser(jnp.asarray(mean), jnp.asarray(std)), policy) for policy in policies]


def folded(policy: Policy) -> Policy:
    """The same function, with two linear layers in a row made one where that is possible; other policies come back as they are.

    The network of a recurrent policy ends linearly and its cell begins linearly. Only their product matters, and the units between
    them could be mixed freely, so factors of separately trained policies have nothing in common that a permutation could find.
    """
    if not (isinstance(policy, Recurrent) and policy.network.hidden):
        return policy
    last, inner = policy.network.last, policy.cell.inner  # pyright: ignore[reportAttributeAccessIssue]
    plain = Linear(jnp.eye(len(last.weight)), jnp.zeros_like(last.bias))
    whole = Linear(last.weight @ inner.weight, last.bias @ inner.weight + inner.bias)
    return eqx.tree_at(lambda p: (p.network.last, p.cell.inner), policy, (plain, whole))


def _normalised_by(normaliser: Normaliser, policy: Policy) -> Policy:
    old, network = policy.body.normaliser, policy.network  # pyright: ignore[reportAttributeAccessIssue]
    if network.expand is not None:
        raise PolyactError("policies with Fourier features and different normalisation statistics can't be merged")
    first = network.hidden[0] if network.hidden else network.last
    weight = (normaliser.std / old.std)[:, None] * first.weight
    moved = Linear(weight, first.bias + ((normaliser.mean - old.mean) / old.std) @ first.weight)
    deep = bool(network.hidden)
    policy = eqx.tree_at(lambda p: p.network.hidden[0] if deep else p.network.last, policy, moved)
    return eqx.tree_at(lambda p: p.body.normaliser, policy, normaliser)


def _equal(one: Matrices, other: Matrices) -> bool:
    return all(np.array_equal(one[group], other[group]) for group in one)


def _mean(policies: Sequence[Policy]) -> Policy:
    _, rest = tree.trainable(policies[0])
    parameters = [tree.trainable(policy)[0] for policy in policies]
    return tree.combine(jax.tree.map(lambda *leaves: sum(leaves[1:], start=leaves[0]) / len(leaves), *parameters), rest)
