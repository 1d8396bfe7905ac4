"""Plain gradient descent, for where the size of a gradient is what is studied: Adam would divide it out parameter by parameter."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import PyTree

from polyact import tree
from polyact.errors import PolyactError


class GradientDescent(eqx.Module):
    """module - learning_rate * gradient. Used like `Optimiser`; it remembers nothing."""

    learning_rate: float

    def __check_init__(self):
        if isinstance(self.learning_rate, int | float) and not self.learning_rate >= 0:
            raise PolyactError(f"learning_rate must not be negative, got {self.learning_rate}")

    def init(self, module: PyTree, total: int) -> None:
        """Nothing to remember; `total` plays no part."""

    def step(self, gradients: PyTree, state: None, module: PyTree) -> tuple[Any, None]:
        """The module after one step against `gradients` (same structure as its trainable part)."""
        parameters, fixed = tree.trainable(module)
        moved = jax.tree.map(lambda p, g: (p - self.learning_rate * g).astype(p.dtype), parameters, gradients)
        return tree.combine(moved, fixed), None
