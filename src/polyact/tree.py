"""What polyact does with pytrees of parameters: split off what is trained, average, count.

A policy carries things that must never move under a gradient (normalisation statistics, the scale of its actions, fixed random
features). Those nodes inherit `Frozen`, so that every learner leaves them alone without knowing of them.
"""

from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

Tree = TypeVar("Tree")


class Frozen(eqx.Module):
    """Marks a node whose arrays are constants: `trainable` and `ema` pass them by."""


def trainable(module: Tree) -> tuple[Tree, Tree]:
    """Split into (parameters, the rest); `combine` joins them. Parameters: floating arrays outside every `Frozen` node."""
    return eqx.partition(module, _mask(module), is_leaf=_frozen)


def combine(parameters: Tree, rest: Tree) -> Tree:
    """Inverse of `trainable`."""
    return eqx.combine(parameters, rest)


def ema(target: Tree, online: Tree, rate: float | Float[Array, ""]) -> Tree:
    """Polyak average `target + rate * (online - target)` over the parameters; everything else stays `target`'s."""
    old, rest = trainable(target)
    new, _ = trainable(online)
    return combine(jax.tree.map(lambda a, b: a + (rate * (b - a)).astype(a.dtype), old, new), rest)


def count_parameters(module: PyTree) -> int:
    """How many numbers a learner would train."""
    return sum(leaf.size for leaf in jax.tree.leaves(trainable(module)[0]))


def numbers_as_arrays(tree: Tree) -> Tree:
    """Floats among the leaves become arrays, with a type of their own: values that differ only in them then share one compiled program."""

    def strong(leaf: Any) -> Any:
        weak = isinstance(leaf, float) or (eqx.is_inexact_array(leaf) and getattr(leaf, "weak_type", False))
        return jnp.asarray(leaf, jnp.result_type(leaf)) if weak else leaf

    return jax.tree.map(strong, tree)


def _frozen(node: PyTree) -> bool:
    return isinstance(node, Frozen)


def _mask(module: PyTree) -> PyTree:
    return jax.tree.map(lambda node: not _frozen(node) and eqx.is_inexact_array(node), module, is_leaf=_frozen)
