"""Running statistics of what a learner meets: of observations, for its normaliser, and of returns, for its critic."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from polyact.nets.layers import Linear
from polyact.policies.normalise import Normaliser
from polyact.tree import Frozen


class Moments(Frozen):
    """Count, mean and variance of all rows met so far, merged batch by batch (Chan et al. 1979)."""

    count: Float[Array, ""]
    mean: Float[Array, " width"]
    variance: Float[Array, " width"]

    @classmethod
    def none(cls, width: int) -> "Moments":
        return cls(jnp.zeros(()), jnp.zeros(width), jnp.ones(width))

    def after(self, rows: Float[Array, "rows width"]) -> "Moments":
        """The moments with further rows."""
        new, total = len(rows), self.count + len(rows)
        shift = rows.mean(0) - self.mean
        share = new / total
        variance = (1 - share) * self.variance + share * rows.var(0) + share * (1 - share) * shift**2
        return Moments(total, self.mean + share * shift, variance)

    def normaliser(self, measured: Array) -> Normaliser:
        """As a normaliser of the entries that are `measured`; the others, and constant ones, are left as they are."""
        std = jnp.sqrt(self.variance)
        std = jnp.where(std > 1e-6 * jnp.maximum(1, jnp.abs(self.mean)), std, 1.0)
        return Normaliser(jnp.where(measured, self.mean, 0.0), jnp.where(measured, std, 1.0))


class ReturnScale(Frozen):
    """The unit of a critic: value = mean + std * output. Follows the returns with a memory of about `1 / rate` batches."""

    count: Float[Array, ""]
    mean: Float[Array, ""]
    square: Float[Array, ""]

    @classmethod
    def unit(cls) -> "ReturnScale":
        return cls(jnp.zeros(()), jnp.zeros(()), jnp.ones(()))

    @property
    def std(self) -> Float[Array, ""]:
        """At least a tenth of the root mean square, because returns may all be equal."""
        return jnp.sqrt(jnp.maximum(self.square - self.mean**2, 0.01 * self.square) + 1e-12)

    def after(self, returns: Float[Array, "*batch"], rate: float = 0.1) -> "ReturnScale":
        """The scale with one more batch."""
        count = self.count + 1
        step = jnp.maximum(1 / count, rate)
        return ReturnScale(
            count, self.mean + step * (returns.mean() - self.mean), self.square + step * ((returns**2).mean() - self.square)
        )

    def to_value(self, output: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        return self.mean + self.std * output

    def to_output(self, value: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        return (value - self.mean) / self.std

    def kept(self, last: Linear, new: "ReturnScale") -> Linear:
        """The critic's last layer for the new scale, such that no value changes (PopArt, arXiv 1602.07714 eq. 9)."""
        ratio = self.std / new.std
        return Linear(last.weight * ratio, (self.std * last.bias + self.mean - new.mean) / new.std)
