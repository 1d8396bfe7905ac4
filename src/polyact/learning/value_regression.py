"""A value function by least squares on fixed features: no step size, and exactly as large as the returns are."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.nets.layers import Linear
from polyact.tree import Frozen


class ValueRegression(Frozen):
    """value(x) = weights . (1, x, x^2, tanh of random projections of x). Scaling all targets scales all values alike."""

    hidden: Linear
    weights: Float[Array, " features"]
    ridge: float = eqx.field(static=True, default=1e-3)

    @classmethod
    def build(cls, inputs: int, projections: int, key: PRNGKeyArray) -> "ValueRegression":
        """Zero everywhere until it is fitted. inputs: entries of x, which should be of order one."""
        hidden = Linear(*_projections(inputs, projections, key))
        return cls(hidden, jnp.zeros(1 + 2 * inputs + projections))

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, ""]:
        return self.features(x) @ self.weights

    def features(self, x: Float[Array, " inputs"]) -> Float[Array, " features"]:
        return jnp.concatenate([jnp.ones(1), x, x**2, jnp.tanh(self.hidden(x))])

    def fitted(self, x: Float[Array, "rows inputs"], targets: Float[Array, " rows"]) -> "ValueRegression":
        """The ridge regression of the targets; the penalty is relative to the features' mean square."""
        rows = jax.vmap(self.features)(x)
        gram = rows.T @ rows / len(rows)
        gram = gram + self.ridge * jnp.mean(jnp.diag(gram)) * jnp.eye(len(gram))
        weights = jax.scipy.linalg.solve(gram, rows.T @ targets / len(rows), assume_a="pos")
        return ValueRegression(self.hidden, weights, self.ridge)


def _projections(inputs: int, projections: int, key: PRNGKeyArray) -> tuple[Array, Array]:
    weight, bias = jax.random.split(key)
    return jax.random.normal(weight, (inputs, projections)), jax.random.normal(bias, (projections,))
