"""Conditioning by feature-wise affine transformation (FiLM, Perez et al., 1709.07871)."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.errors import PolyactError
from polyact.nets.layers import Linear
from polyact.nets.mlp import MLP, Network


class FiLM(eqx.Module):
    """x [W], condition [C] -> x * (1 + scale(condition)) + shift(condition). Starts as the identity."""

    affine: Linear

    @classmethod
    def build(cls, condition: int, width: int) -> "FiLM":
        return cls(Linear(jnp.zeros((condition, 2 * width)), jnp.zeros(2 * width)))

    def __call__(self, x: Float[Array, " width"], condition: Float[Array, " condition"]) -> Float[Array, " width"]:
        scale, shift = jnp.split(self.affine(condition), 2)
        return x * (1 + scale) + shift


class ConditionedMLP(eqx.Module):
    """x [I], condition [C] -> [O]: an MLP whose every hidden layer is modulated by the condition before its activation."""

    base: MLP
    films: tuple[FiLM, ...]

    @classmethod
    def build(cls, network: Network, inputs: int, condition: int, outputs: int, key: PRNGKeyArray) -> "ConditionedMLP":
        """The architecture of `network`, with conditioning. PolyactError when it has no hidden layer to condition."""
        if network.depth < 1:
            raise PolyactError("a conditioned MLP needs at least one hidden layer")
        return cls(network.build(inputs, outputs, key), tuple(FiLM.build(condition, network.width) for _ in range(network.depth)))

    def __call__(self, x: Float[Array, " inputs"], condition: Float[Array, " condition"]) -> Float[Array, " outputs"]:
        return self.base(x, lambda layer, hidden: self.films[layer](hidden, condition))
