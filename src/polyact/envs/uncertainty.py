"""What an adversary may do to the transitions of a tabular world, as sets onto which parameters are projected.

Rows within L1 balls around the nominal ones, for each state and action (`Rows`) or shared by the actions of a state (`SharedRows`), and a
few parameters that tilt the nominal rows (`Tilt`), as in Policy Gradient in Robust MDPs with Global Convergence Guarantee (arXiv
2212.10439). `exact_robust` solves worlds under the first kind exactly.
"""

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from polyact.envs.base import AbstractVar

Kernel = Float[Array, "S A S"]


class Adversary(eqx.Module):
    """What may be done to the transitions: parameters, the kernel that they stand for, and the nearest allowed ones."""

    @abstractmethod
    def begin(self) -> PyTree:
        """Parameters of no attack, or the centre of what is allowed."""

    @abstractmethod
    def kernel(self, parameters: PyTree) -> Kernel:
        """The transitions."""

    @abstractmethod
    def project(self, parameters: PyTree) -> PyTree:
        """The nearest allowed parameters (Euclidean)."""


class Table(Adversary):
    """The parameters are the transitions themselves."""

    nominal: AbstractVar[Kernel]

    def begin(self) -> Kernel:
        return self.nominal

    def kernel(self, parameters: Kernel) -> Kernel:
        return parameters


class Rows(Table):
    """Each row within L1 distance radius[s, a] of the nominal one and on its support."""

    nominal: Kernel
    radius: Float[Array, "S A"]

    def project(self, parameters: Kernel) -> Kernel:
        """The nearest distribution; where that is too far, mass radius / 2 moves up and as much down, each by a level of its own."""
        room = jnp.where(self.nominal > 0, 1.0, 0.0)
        inside = levelled(parameters, room, jnp.ones(self.radius.shape))
        half = self.radius / 2
        up = levelled(parameters - self.nominal, room * half[..., None], half)
        down = levelled(self.nominal - parameters, self.nominal, half)
        near = jnp.abs(inside - self.nominal).sum(-1) <= self.radius
        return jnp.where(near[..., None], inside, self.nominal + up - down)


class SharedRows(Table):
    """The L1 distances of a state's rows sum to at most radius[s] (s-rectangular)."""

    nominal: Kernel
    radius: Float[Array, " S"]

    def project(self, parameters: Kernel) -> Kernel:
        """Rows are shrunk towards the nominal ones by one threshold for each state, found by bisection."""
        room = jnp.where(self.nominal > 0, 1.0, 0.0)
        offset = jnp.where(self.nominal > 0, parameters - self.nominal, 0.0)

        def shrunk(threshold: Float[Array, " S"]) -> Kernel:
            return _shrunk(offset, self.nominal, room, threshold[:, None])

        def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = ends
            middle = (low + high) / 2
            far = jnp.abs(shrunk(middle) - self.nominal).sum((1, 2)) > self.radius
            return jnp.where(far, middle, low), jnp.where(far, high, middle)

        none = jnp.zeros(self.radius.shape)
        _, high = jax.lax.fori_loop(0, 40, halve, (none, none + 2 * jnp.abs(offset).max() + 1e-6))
        free = jnp.abs(shrunk(none) - self.nominal).sum((1, 2)) <= self.radius
        return shrunk(jnp.where(free, 0.0, high))


class Tilt(Adversary):
    """p(s' | s, a) in proportion to nominal * exp(theta . eta(s') / (lambda . zeta(s, a))).

    Parameters (theta, lambda) within L1 distance `radius` of their centres; lambda at least `least`. features: eta [S, M], zeta [S, A, N].
    """

    nominal: Kernel
    eta: Float[Array, "S M"]
    zeta: Float[Array, "S A N"]
    centre: tuple[Float[Array, " M"], Float[Array, " N"]]
    radius: float = 1.0
    least: float = 0.05

    def begin(self) -> tuple[Array, Array]:
        return self.centre

    def kernel(self, parameters: tuple[Array, Array]) -> Kernel:
        theta, lambda_ = parameters
        logits = (self.eta @ theta) / (self.zeta @ lambda_)[..., None]
        return jax.nn.softmax(jnp.where(self.nominal > 0, jnp.log(jnp.maximum(self.nominal, 1e-30)) + logits, -jnp.inf), -1)

    def project(self, parameters: tuple[Array, Array]) -> tuple[Array, Array]:
        theta, lambda_ = (ball(value, centre, self.radius) for value, centre in zip(parameters, self.centre, strict=True))
        return theta, jnp.maximum(lambda_, self.least)


def levelled(offset: Float[Array, "*rows n"], cap: Float[Array, "*rows n"], mass: Float[Array, "*rows"]) -> Float[Array, "*rows n"]:
    """clip(offset + level, 0, cap) with the level at which a row sums to `mass`: a Euclidean projection.

    The sum is piecewise linear in the level, so that it is exact between two of its 2n corners.
    """
    corners = jnp.concatenate([-offset, cap - offset], -1)

    def total(level: Float[Array, "*rows m"]) -> Float[Array, "*rows m"]:
        return jnp.clip(offset[..., None, :] + level[..., None], 0.0, cap[..., None, :]).sum(-1)

    sums, wanted = total(corners), mass[..., None]
    below = jnp.where(sums <= wanted, corners, -jnp.inf).max(-1)
    above = jnp.where(sums >= wanted, corners, jnp.inf).min(-1)
    below, above = jnp.where(jnp.isfinite(below), below, above), jnp.where(jnp.isfinite(above), above, below)
    low, high = total(below[..., None])[..., 0], total(above[..., None])[..., 0]
    share = jnp.where(high > low, (mass - low) / jnp.where(high > low, high - low, 1.0), 0.0)
    level = below + jnp.clip(share, 0.0, 1.0) * (above - below)
    return jnp.clip(offset + level[..., None], 0.0, cap)


def _shrunk(offset: Kernel, nominal: Kernel, room: Kernel, threshold: Float[Array, "S 1"]) -> Kernel:
    """The rows max(0, nominal + soft(offset - level, threshold)) with the level at which each sums to one, by bisection."""

    def at(level: Float[Array, "S A"]) -> Kernel:
        moved = offset - level[..., None]
        soft = jnp.sign(moved) * jnp.maximum(jnp.abs(moved) - threshold[..., None], 0.0)
        return room * jnp.maximum(nominal + soft, 0.0)

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        heavy = at(middle).sum(-1) > 1
        return jnp.where(heavy, middle, low), jnp.where(heavy, high, middle)

    reach = jnp.abs(offset).max() + threshold + 1.0
    low, high = jax.lax.fori_loop(0, 40, halve, (-reach + 0 * offset[..., 0], reach + 0 * offset[..., 0]))
    return at((low + high) / 2)


def ball(value: Float[Array, " n"], centre: Float[Array, " n"], radius: float) -> Float[Array, " n"]:
    """The nearest point within L1 distance `radius` of the centre."""
    offset = value - centre
    size = levelled(jnp.abs(offset), jnp.full(offset.shape, radius), jnp.asarray(radius))
    return jnp.where(jnp.abs(offset).sum() <= radius, value, centre + jnp.sign(offset) * size)
