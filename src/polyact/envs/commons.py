"""A common stock that several agents draw on at once, and that grows back from what they leave: the commons of GovSim (arXiv 2404.16698).

Or the inverse: a stock of trash that grows by a fixed amount, and of which everybody should take some away.
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from polyact.errors import PolyactError

Number = float | Float[Array, ""]


class Commons(eqx.Module):
    """capacity: the largest stock, and the first one. growth: factor from what is left to the next stock; with `inverse` the units that
    are added. minimum: with less than this left the stock is lost (inverse: with more than capacity - minimum left).

    unit_by_unit: scarce units go one by one to random agents who still want some; else in proportion to what they want. Stocks and
    wishes are whole numbers as floats.
    """

    capacity: Number = 100.0
    growth: Number = 2.0
    minimum: Number = 5.0
    inverse: bool = eqx.field(static=True, default=False)
    unit_by_unit: bool = eqx.field(static=True, default=True)

    def __check_init__(self):
        given = (self.capacity, self.growth, self.minimum)
        known = all(isinstance(number, int | float) for number in given)
        if known and (self.capacity < 1 or self.minimum < 0 or self.growth <= (0 if self.inverse else 1)):
            raise PolyactError(f"a commons needs capacity >= 1, minimum >= 0 and growth, got {given}")

    def threshold(self, stock: Number, agents: Number) -> Float[Array, ""]:
        """f: what each may take (inverse: must take) for the stock to come back: floor(floor(stock / 2) / n) for growth 2."""
        surplus = jnp.asarray(self.growth if self.inverse else stock - stock / self.growth)
        return jnp.floor(jnp.floor(surplus + 1e-4) / agents)

    def allocate(
        self, stock: Number, wishes: Float[Array, " n"], key: PRNGKeyArray, units: int | None = None
    ) -> Float[Array, " n"]:
        """Who gets what: wishes where there is enough. units: a bound on the stock, needed where the capacity is traced."""
        wishes = jnp.maximum(jnp.floor(wishes), 0.0)
        share = self._one_by_one if self.unit_by_unit else self._in_proportion
        scarce = share(jnp.asarray(stock, jnp.float32), wishes, key, units)
        return jnp.where(wishes.sum() <= stock, wishes, scarce)

    def lost(self, left: Float[Array, ""]) -> Bool[Array, ""]:
        """Whether the commons collapses with this much left after the harvest; judged before anything grows back."""
        return left > self.capacity - self.minimum if self.inverse else left < self.minimum

    def grown(self, left: Float[Array, ""]) -> Float[Array, ""]:
        """The next stock."""
        return jnp.minimum(self.capacity, left + self.growth if self.inverse else jnp.floor(self.growth * left + 1e-4))

    def _one_by_one(self, stock: Array, wishes: Array, key: PRNGKeyArray, units: int | None) -> Array:
        def unit(i: Array, taken: Array) -> Array:
            wanting = (taken < wishes) & (i < stock)
            lucky = jax.random.categorical(jax.random.fold_in(key, i), jnp.where(wanting, 0.0, -jnp.inf))
            return taken.at[lucky].add(wanting.any().astype(taken.dtype))

        most = math.ceil(float(self.capacity)) if units is None else units
        return jax.lax.fori_loop(0, most, unit, jnp.zeros_like(wishes))

    def _in_proportion(self, stock: Array, wishes: Array, key: PRNGKeyArray, units: int | None) -> Array:
        """Floors of the shares; what is left of them to random agents that were rounded down, by weight of their wishes."""
        exact = stock * wishes / jnp.maximum(wishes.sum(), 1.0)
        floors = jnp.floor(exact + 1e-4)
        draw = jnp.where(exact - floors > 1e-4, jnp.log(jnp.maximum(wishes, 1e-9)), -jnp.inf) + jax.random.gumbel(key, wishes.shape)
        place = (draw[None, :] > draw[:, None]).sum(1)
        return floors + (place < jnp.round(stock - floors.sum()))


class Trace(NamedTuple):
    """What happened in T rounds: the stock before each harvest, whether the round was played (the stock not lost before) and survived;
    wishes and takings of n agents; the threshold f."""

    stock: Float[Any, "*batch T"]
    alive: Bool[Any, "*batch T"]
    survived: Bool[Any, "*batch T"]
    wish: Float[Any, "*batch T n"]
    taken: Float[Any, "*batch T n"]
    threshold: Float[Any, "*batch T"]
