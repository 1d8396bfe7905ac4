"""Which hidden units of a policy may be permuted without changing what it computes, and how.

Every axis of a weight that runs over the units of a hidden layer belongs to a group; one permutation of the group moves all its axes
together. A recurrent layer has one group for its inputs from itself, its outputs and all its gates (Robot Fleet Learning via Policy
Merging, arXiv 2310.01362, section 4).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polyact.errors import PolyactError
from polyact.nets.mlp import MLP
from polyact.policies.base import Policy
from polyact.policies.recurrent import Recurrent

MEMORY = "memory"


class Axis(NamedTuple):
    """An axis over the units of a group, `blocks` times one after the other (the gates of a cell)."""

    group: str
    blocks: int = 1


Axes = tuple[Axis | None, ...]


@dataclass(frozen=True)
class Symmetry:
    """widths: the units of every group. places: where the weights are; axes: the groups of their axes, None for fixed ones."""

    widths: dict[str, int]
    places: tuple[Callable[[Any], Array], ...]
    axes: tuple[Axes, ...]

    def weights(self, policy: Policy) -> list[Any]:
        """The weights of a policy that any permutation moves."""
        return [place(policy) for place in self.places]

    def permuted(self, policy: Policy, matrices: Mapping[str, Any]) -> Policy:
        """The policy with new unit i = sum_j matrix_ij old unit j in every group; the same function when they are permutations."""
        moved = [moved_by(weight, axes, matrices) for weight, axes in zip(self.weights(policy), self.axes, strict=True)]
        return eqx.tree_at(self.weights, policy, moved)

    def identity(self) -> dict[str, Float[np.ndarray, "W W"]]:
        """The permutations that change nothing."""
        return {group: np.eye(width, dtype=np.float32) for group, width in self.widths.items()}

    def random(self, rng: np.random.Generator) -> dict[str, Float[np.ndarray, "W W"]]:
        """Permutations drawn evenly."""
        return {group: np.eye(width, dtype=np.float32)[rng.permutation(width)] for group, width in self.widths.items()}


def moved_by(weight: Array, axes: Axes, matrices: Mapping[str, Any]) -> Array:
    """A weight with the matrices of its groups applied along its axes."""
    shape = weight.shape
    for number, axis in enumerate(axes):
        if axis is not None:
            blocks = weight.reshape(*shape[:number], axis.blocks, -1, *shape[number + 1 :])
            turned = jnp.tensordot(matrices[axis.group], blocks, (1, number + 1))
            weight = jnp.moveaxis(turned, 0, number + 1).reshape(shape)
    return weight


def symmetry(policy: Policy) -> Symmetry:
    """The permutation symmetry of a `Recurrent` policy, or of one whose `network` is an MLP.

    Raises PolyactError for policies of another kind, and for networks whose units are not interchangeable.
    """
    if isinstance(policy, Recurrent):
        return _recurrent(policy)
    if not isinstance(getattr(policy, "network", None), MLP):
        raise PolyactError(f"the permutation symmetries of {type(policy).__name__} are not known; it has no MLP as its network")
    entries, _ = _mlp(policy.network, None)  # pyright: ignore[reportAttributeAccessIssue]
    return _gathered(policy, entries)


Entries = list[tuple[Callable[[Any], Array], Axes]]


def _mlp(network: MLP, out: Axis | None) -> tuple[Entries, Axis | None]:
    """Weights of a policy's MLP and their axes, and the group of what the last layer sees. out: of its outputs."""
    if network.expand is not None or network.spectral_norm:
        raise PolyactError("units behind Fourier features or spectral normalisation are not interchangeable between networks")
    entries: Entries = []
    seen: Axis | None = None
    for layer in range(len(network.hidden)):
        own = Axis("hidden" if network.residual else f"hidden {layer}")
        entries.append((lambda p, i=layer: p.network.hidden[i].weight, (seen, own)))
        entries.append((lambda p, i=layer: p.network.hidden[i].bias, (own,)))
        if network.norms:
            entries.append((lambda p, i=layer: p.network.norms[i].scale, (own,)))
            entries.append((lambda p, i=layer: p.network.norms[i].shift, (own,)))
        seen = own
    out = seen if out is not None and seen is not None else out
    entries.append((lambda p: p.network.last.weight, (seen, out)))
    entries.append((lambda p: p.network.last.bias, (out,)))
    return entries, out


def _recurrent(policy: Recurrent) -> Symmetry:
    """The network's outputs go into the cell linearly; they share the group of its last hidden layer, if it has one."""
    width = policy.out.weight.shape[0]
    gates = Axis(MEMORY, policy.cell.recurrent.weight.shape[1] // width)  # pyright: ignore[reportAttributeAccessIssue]
    entries, embedding = _mlp(policy.network, Axis("embedding"))
    entries += [
        (lambda p: p.cell.inner.weight, (embedding, gates)),
        (lambda p: p.cell.inner.bias, (gates,)),
        (lambda p: p.cell.recurrent.weight, (Axis(MEMORY), gates)),
        (lambda p: p.cell.recurrent.bias, (gates,)),
        (lambda p: p.out.weight, (Axis(MEMORY), None)),
    ]
    return _gathered(policy, entries)


def _gathered(policy: Policy, entries: Entries) -> Symmetry:
    moving = [(place, axes) for place, axes in entries if any(axes)]
    widths: dict[str, int] = {}
    for place, axes in moving:
        for axis, length in zip(axes, place(policy).shape, strict=True):
            if axis is not None:
                widths[axis.group] = length // axis.blocks
    if not widths:
        raise PolyactError(f"this {type(policy).__name__} has no hidden units to permute")
    return Symmetry(widths, tuple(place for place, _ in moving), tuple(axes for _, axes in moving))
