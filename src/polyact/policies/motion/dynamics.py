"""Rules that are geometric dynamical systems, so that everything made of them is stable (RMPflow, arXiv 1811.07049, section 5).

M dv/dt + xi = -grad potential - B v, with a metric G(x, v) that may depend on the velocity: M = G + Xi, Xi = 1/2 sum_i v_i dg_i/dv,
xi = (d/dt of G along x) v - 1/2 grad_x (v' G v). The energy 1/2 v' G v + potential then falls at the rate v' B v, also when many of
them are pulled back into one space.
"""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from polyact.envs.physics import Parameter, norm
from polyact.policies.motion.tree import Form, Point, Rule

NODES, WEIGHTS = (np.asarray(part) / 2 for part in np.polynomial.legendre.leggauss(16))


class Dynamics(Rule):
    """A rule given by its metric G, its potential and its damping B."""

    @abstractmethod
    def metric(self, x: Point, velocity: Point) -> Float[Array, "n n"]:
        """G, symmetric and not negative."""

    @abstractmethod
    def potential(self, x: Point) -> Float[Array, ""]:
        """What pulls, as an energy."""

    @abstractmethod
    def damping(self, x: Point, velocity: Point) -> Float[Array, "n n"]:
        """B, not negative."""

    def form(self, x: Point, velocity: Point) -> Form:
        def momentum(at: Point, moving: Point) -> Float[Array, " n"]:
            return self.metric(at, moving) @ velocity

        curved = jax.jacfwd(momentum, 1)(x, velocity) / 2
        along = jax.jvp(lambda at: momentum(at, velocity), (x,), (velocity,))[1]
        across = jax.grad(lambda at: velocity @ momentum(at, velocity) / 2)(x)
        force = -jax.grad(self.potential)(x) - self.damping(x, velocity) @ velocity - (along - across)
        return Form(force, self.metric(x, velocity) + curved)

    def balance(self, x: Point, velocity: Point) -> Float[Array, "2"]:
        energy = velocity @ self.metric(x, velocity) @ velocity / 2 + self.potential(x)
        return jnp.stack([energy, velocity @ self.damping(x, velocity) @ velocity])


class Attractor(Dynamics):
    """Be at the origin. The metric rises from `far` to `near` within about `width`; beyond 1 / `sharpness` the pull is even.

    grad potential = gain w tanh(sharpness r) x / r, B = damper w I, G = w I.
    """

    gain: Parameter = 1.0
    damper: Parameter = 2.0
    near: Parameter = 10.0
    far: Parameter = 1.0
    width: Parameter = 1.0
    sharpness: Parameter = 1.0

    def weight(self, distance: Array) -> Array:
        """w at a distance from the origin."""
        return (self.near - self.far) * jnp.exp(-(distance**2) / (2 * self.width**2)) + self.far

    def metric(self, x: Point, velocity: Point) -> Float[Array, "n n"]:
        return self.weight(norm(x)) * jnp.eye(len(x))

    def potential(self, x: Point) -> Float[Array, ""]:
        # The integral of the pull over the distance, by Gauss and Legendre's rule.
        distance = norm(x)
        nodes, weights = (jnp.asarray(part, distance.dtype) for part in (NODES, WEIGHTS))
        on_the_way = distance * (nodes + 0.5)
        return self.gain * distance * (weights * self.weight(on_the_way) * jnp.tanh(self.sharpness * on_the_way)).sum()

    def damping(self, x: Point, velocity: Point) -> Float[Array, "n n"]:
        return self.damper * self.metric(x, velocity)


class Barrier(Dynamics):
    """Keep one distance positive. The metric is large where it is small and shrinks; moving away or along, it hardly counts.

    w = 1 / z^4, u = rest + min(0, v) v, G = w u, potential alpha w^2 / 2, B = damper G. Below `closest` the distance counts as that,
    so that inside an obstacle nothing is divided by zero.
    """

    rest: Parameter = 0.2
    alpha: Parameter = 1e-5
    damper: Parameter = 0.0
    closest: Parameter = 0.1

    def weight(self, x: Point) -> Float[Array, ""]:
        """w at a distance [1]."""
        return jnp.maximum(x[0], self.closest) ** -4.0

    def metric(self, x: Point, velocity: Point) -> Float[Array, "n n"]:
        approach = jnp.minimum(velocity[0], 0.0)
        return (self.weight(x) * (self.rest + approach**2)).reshape(1, 1)

    def potential(self, x: Point) -> Float[Array, ""]:
        return self.alpha * self.weight(x) ** 2 / 2

    def damping(self, x: Point, velocity: Point) -> Float[Array, "n n"]:
        return self.damper * self.metric(x, velocity)


class Damper(Dynamics):
    """Slow down. A positive `weight` also says what happens in directions that no other rule cares about: nothing."""

    weight: Parameter = 0.1
    damper: Parameter = 1.0

    def metric(self, x: Point, velocity: Point) -> Float[Array, "n n"]:
        return self.weight * jnp.eye(len(x))

    def potential(self, x: Point) -> Float[Array, ""]:
        return jnp.zeros(())

    def damping(self, x: Point, velocity: Point) -> Float[Array, "n n"]:
        return self.damper * self.metric(x, velocity)


class Offset(eqx.Module):
    """x -> x - target."""

    target: Float[Array, " n"]

    def __call__(self, x: Point) -> Float[Array, " n"]:
        return x - self.target


class Distances(eqx.Module):
    """A point [D] -> its distances from balls as shares of their radii, |x - centre| / radius - 1 [K]."""

    centres: Float[Array, "K D"]
    radii: Float[Array, " K"]

    def __call__(self, x: Point) -> Float[Array, " K"]:
        return norm(x - self.centres) / self.radii - 1


class Limits(eqx.Module):
    """x -> how far it is from its lower and upper bounds, as shares of half the range [2 n]."""

    low: Float[Array, " n"]
    high: Float[Array, " n"]

    def __call__(self, x: Point) -> Float[Array, " m"]:
        half = (self.high - self.low) / 2
        return jnp.concatenate([(x - self.low) / half, (self.high - x) / half])


class Apart(eqx.Module):
    """The positions of several robots, one after the other [R * D] -> the gap of every pair as a share of the distance kept."""

    keep: Parameter
    robots: int = eqx.field(static=True)

    def __call__(self, x: Point) -> Float[Array, " pairs"]:
        first, second = np.triu_indices(self.robots, 1)
        places = x.reshape(self.robots, -1)
        return norm(places[first] - places[second]) / self.keep - 1
