"""Riemannian motion policies: reactive rules, each stated in its own space, combined into one acceleration (RMPflow, arXiv 1811.07049).

A rule says what it wants in a task space as a force f and a metric M (its importance, direction by direction); the acceleration it asks
for is M^-1 f. Spaces form a tree of smooth maps from the joint space. Positions and velocities are pushed forward along it, forces and
metrics pulled back. Every derivative comes from forward- or reverse-mode differentiation.
"""

from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Point = Float[Array, " n"]
TaskMap = Callable[[Array], Array]


class Form(eqx.Module):
    """A motion policy at one state in natural form."""

    force: Float[Array, " n"]
    metric: Float[Array, "n n"]

    def __add__(self, other: "Form") -> "Form":
        """Forms in one space add up."""
        return Form(self.force + other.force, self.metric + other.metric)


class Rule(eqx.Module):
    """What is wanted in a space, given where one is in it and how fast one moves."""

    @abstractmethod
    def form(self, x: Point, velocity: Point) -> Form:
        """The force and metric at a state."""

    @abstractmethod
    def balance(self, x: Point, velocity: Point) -> Float[Array, "2"]:
        """The energy stored at a state, and the power that is taken out of it."""


class Through(Rule):
    """A rule in the space that a smooth map leads to, as a rule in the space it starts from."""

    map: TaskMap
    rule: Rule

    def form(self, x: Point, velocity: Point) -> Form:
        return pullback(self.map, x, velocity, self.rule.form(*pushforward(self.map, x, velocity)))

    def balance(self, x: Point, velocity: Point) -> Float[Array, "2"]:
        return self.rule.balance(*pushforward(self.map, x, velocity))


class Together(Rule):
    """Several rules in one space."""

    rules: tuple[Rule, ...]

    def form(self, x: Point, velocity: Point) -> Form:
        first, *others = [rule.form(x, velocity) for rule in self.rules]
        return sum(others, start=first)

    def balance(self, x: Point, velocity: Point) -> Float[Array, "2"]:
        return sum((rule.balance(x, velocity) for rule in self.rules), start=jnp.zeros(2))


class Each(Rule):
    """A rule of one dimension for every coordinate apart, such as many distances."""

    rule: Rule

    def form(self, x: Point, velocity: Point) -> Form:
        forms = jax.vmap(self.rule.form)(x[:, None], velocity[:, None])
        return Form(forms.force[:, 0], jnp.diag(forms.metric[:, 0, 0]))

    def balance(self, x: Point, velocity: Point) -> Float[Array, "2"]:
        return jax.vmap(self.rule.balance)(x[:, None], velocity[:, None]).sum(0)


def pushforward(map: TaskMap, x: Point, velocity: Point) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
    """Position and velocity in the space that the map leads to: psi(x), J velocity."""
    return jax.jvp(map, (x,), (velocity,))


def bend(map: TaskMap, x: Point, velocity: Point) -> Float[Array, " m"]:
    """The acceleration there without any acceleration here: dJ/dt velocity."""
    return jax.jvp(lambda at: jax.jvp(map, (at,), (velocity,))[1], (x,), (velocity,))[1]


def pullback(map: TaskMap, x: Point, velocity: Point, form: Form) -> Form:
    """A form in the space that the map leads to, as one where it starts: J' (f - M dJ/dt velocity) and J' M J."""
    jacobian = jax.jacfwd(map)(x)
    force = form.force - form.metric @ bend(map, x, velocity)
    return Form(jacobian.T @ force, jacobian.T @ form.metric @ jacobian)


def resolve(form: Form) -> Float[Array, " n"]:
    """The acceleration M^+ f. Directions in which the metric is nothing, relative to the largest, get none."""
    return jnp.linalg.pinv(form.metric, rtol=1e-6) @ form.force


def acceleration(rule: Rule, x: Point, velocity: Point) -> Float[Array, " n"]:
    """What a tree of rules wants at its root."""
    return resolve(rule.form(x, velocity))
