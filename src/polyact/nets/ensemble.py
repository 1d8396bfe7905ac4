"""Several networks of one architecture as one module: parameters stacked along a leading axis, one batched product per layer.

Measured on a CPU, forward and backward at batch 256: as fast as unrolled members for two and for five of width 256, and faster for
two of width 64; on a GPU one launch instead of K. So the stacked form is the only one.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.errors import PolyactError
from polyact.nets.mlp import MLP, Network


class Ensemble(eqx.Module):
    """x [I] -> [K, O]: the same input through K independently initialised networks."""

    members: MLP
    count: int = eqx.field(static=True)

    @classmethod
    def build(cls, network: Network, count: int, inputs: int, outputs: int, key: PRNGKeyArray) -> "Ensemble":
        """`count` networks from [inputs] to [outputs]."""
        if count < 1:
            raise PolyactError(f"an ensemble needs at least one member, got {count}")
        return cls(eqx.filter_vmap(lambda k: network.build(inputs, outputs, k))(jax.random.split(key, count)), count)

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, "members outputs"]:
        return eqx.filter_vmap(lambda member: member(x))(self.members)

    def each(self, x: Float[Array, "members inputs"]) -> Float[Array, "members outputs"]:
        """Every member on an input of its own."""
        return eqx.filter_vmap(lambda member, own: member(own))(self.members, x)

    def member(self, index: int) -> MLP:
        """One member as an ordinary network."""
        return take(self.members, index)


def stack(modules: Any) -> Any:
    """A sequence of modules of one structure as one module with a leading axis on every array.

    Raises PolyactError when they differ in structure or shapes.
    """
    arrays, statics = zip(*(eqx.partition(module, eqx.is_array) for module in modules), strict=True)
    first = jax.tree.structure(arrays[0])
    shapes = [[leaf.shape for leaf in jax.tree.leaves(tree)] for tree in arrays]
    alike = all(jax.tree.structure(tree) == first for tree in arrays) and all(other == shapes[0] for other in shapes)
    if not alike or any(jax.tree.leaves(static) != jax.tree.leaves(statics[0]) for static in statics):
        raise PolyactError("only modules of the same architecture can be stacked")
    return eqx.combine(jax.tree.map(lambda *leaves: jnp.stack(leaves), *arrays), statics[0])


def take(stacked: Any, index: int | Array) -> Any:
    """One module out of a stack."""
    return jax.tree.map(lambda leaf: leaf[index] if eqx.is_array(leaf) else leaf, stacked)
