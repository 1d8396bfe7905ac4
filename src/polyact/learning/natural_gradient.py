"""Steps measured by how far a policy's distribution moves: natural gradients and trust regions (arXiv 1502.05477, appendix C).

A `StepRule` moves parameters uphill on a surrogate. It is told two divergences from the old policy as functions of the parameters, both
zero at the old ones: one to measure with, and one, perhaps on fewer states, whose Hessian is the Fisher matrix.
"""

from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from polyact.errors import PolyactError

Vector = Float[Array, " n"]
Product = Callable[[Vector], Vector]
Scalar = Callable[[PyTree], Array]


class Moved(eqx.Module):
    """Parameters after a step; kl: how far the policy moved; improvement: of the surrogate; share: of the full step that was taken."""

    parameters: PyTree
    kl: Float[Array, ""]
    improvement: Float[Array, ""]
    share: Float[Array, ""]


class StepRule(eqx.Module):
    """How to go uphill."""

    @abstractmethod
    def move(self, surrogate: Scalar, distance: Scalar, curved: Scalar, parameters: PyTree) -> Moved:
        """One step from the old parameters. distance: what is measured; curved: what the Fisher matrix is taken of."""


class TrustRegion(StepRule):
    """The natural-gradient step of length `radius` (mean KL, nats), halved until the surrogate improves and the measured KL is within it.

    damping: added to the Fisher matrix's diagonal. iterations, tolerance (relative): of conjugate gradients. shrink, tries: of the line
    search; when no try is good, nothing moves.
    """

    radius: float = 0.01
    damping: float = 0.1
    iterations: int = eqx.field(static=True, default=10)
    tolerance: float = 1e-10
    shrink: float = 0.5
    tries: int = eqx.field(static=True, default=10)

    def __check_init__(self):
        if self.iterations < 1 or self.tries < 1:
            raise PolyactError(f"iterations and tries must be positive, got {self.iterations} and {self.tries}")
        if not self.radius > 0 or not 0 < self.shrink < 1:
            raise PolyactError(f"radius must be positive and shrink lie between 0 and 1, got {self.radius} and {self.shrink}")

    def move(self, surrogate: Scalar, distance: Scalar, curved: Scalar, parameters: PyTree) -> Moved:
        old, rebuild = ravel_pytree(parameters)
        direction, length = natural_direction(surrogate, curved, parameters, self.damping, self.iterations, self.tolerance)
        full = jnp.sqrt(2 * self.radius / jnp.maximum(length, jnp.finfo(old.dtype).tiny)) * direction
        before = surrogate(parameters)

        def measured(count: Array) -> Moved:
            share = self.shrink ** count.astype(old.dtype)
            new = rebuild(old + share * full)
            return Moved(new, distance(new), surrogate(new) - before, share)

        def accepted(moved: Moved) -> Array:
            return (moved.improvement > 0) & (moved.kl <= self.radius)

        def go_on(carry: tuple[Array, Moved]) -> Array:
            return ~accepted(carry[1]) & (carry[0] < self.tries)

        first = jnp.zeros((), jnp.int32)
        _, found = jax.lax.while_loop(go_on, lambda carry: (carry[0] + 1, measured(carry[0])), (first + 1, measured(first)))
        none = jnp.zeros_like(found.kl)
        return jax.tree.map(lambda new, stay: jnp.where(accepted(found), new, stay), found, Moved(parameters, none, none, none))


def natural_direction(
    surrogate: Scalar, curved: Scalar, parameters: PyTree, damping: float | Array, iterations: int, tolerance: float | Array
) -> tuple[Vector, Float[Array, ""]]:
    """x with (F + damping) x = gradient of the surrogate, and x . (F + damping) x, both on flattened parameters."""
    flat, rebuild = ravel_pytree(parameters)
    gradient = jax.grad(lambda x: surrogate(rebuild(x)))(flat)
    fisher = fisher_product(lambda x: curved(rebuild(x)), flat)
    direction = conjugate_gradient(lambda v: fisher(v) + damping * v, gradient, iterations, tolerance)
    return direction, direction @ (fisher(direction) + damping * direction)


def fisher_product(divergence: Callable[[Vector], Array], old: Vector) -> Product:
    """v -> F v, where F is the Hessian at `old` of a divergence from the old policy: forward over reverse, never F itself."""
    return lambda vector: jax.jvp(jax.grad(divergence), (old,), (vector,))[1]


def conjugate_gradient(product: Product, target: Vector, iterations: int, tolerance: float | Array = 1e-10) -> Vector:
    """x with product(x) = target for a positive definite product, from x = 0.

    Ends after `iterations`, or when the residual is at most `tolerance` times the target: relative, so that x scales as the target does.
    """
    enough = tolerance**2 * (target @ target)

    def go_on(carry: tuple[Array, Vector, Vector, Vector, Array]) -> Array:
        return (carry[0] < iterations) & (carry[4] > enough)

    def step(carry: tuple[Array, Vector, Vector, Vector, Array]) -> tuple[Array, Vector, Vector, Vector, Array]:
        count, x, residual, direction, size = carry
        image = product(direction)
        rate = size / (direction @ image)
        residual = residual - rate * image
        new = residual @ residual
        return count + 1, x + rate * direction, residual, residual + new / size * direction, new

    start = (jnp.zeros((), jnp.int32), jnp.zeros_like(target), target, target, target @ target)
    return jax.lax.while_loop(go_on, step, start)[1]
