"""A branch that stays one when many programs run as one: its costly side is computed only when somebody needs it.

Under `jax.vmap` `lax.cond` computes both sides for everybody. That makes a policy that plans once in eight steps plan at every step as soon
as several episodes are played at once, although they mostly plan at the same time.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jaxtyping import Array, Bool, PyTree

Side = Callable[..., PyTree]


def when_any(wanted: Bool[Array, ""], costly: Side, cheap: Side, *operands: PyTree) -> PyTree:
    """`costly(*operands)` where wanted, else `cheap(*operands)`, two trees alike; under vmap `costly` is left out when nobody wants it.

    All arrays must come in through the operands, none by closure. Has no derivative.
    """
    arrays, rest = eqx.partition(operands, eqx.is_array)

    def side(function: Side) -> Side:
        return lambda arrays: function(*eqx.combine(arrays, rest))

    return _choose(wanted, side(costly), side(cheap), arrays)


def _choose(wanted: Array, costly: Side, cheap: Side, arrays: PyTree) -> PyTree:
    @custom_vmap
    def choose(wanted: Array, arrays: PyTree) -> PyTree:
        return jax.lax.cond(wanted, costly, cheap, arrays)

    @choose.def_vmap
    def _(size: int, batched: Any, wanted: Array, arrays: PyTree) -> tuple[PyTree, PyTree]:
        axes = jax.tree.map(lambda own: 0 if own else None, batched)

        def each(wanted: Array, arrays: PyTree) -> PyTree:
            return jax.tree.map(lambda one, other: jnp.where(wanted, one, other), costly(arrays), cheap(arrays))

        def all_of(function: Side) -> Side:
            return lambda given: jax.vmap(function, axes, axis_size=size)(*given)

        given = (wanted, arrays)
        chosen = _choose(jnp.any(wanted), all_of(each), all_of(lambda _, arrays: cheap(arrays)), given)
        return chosen, jax.tree.map(lambda _: True, chosen)

    return choose(wanted, arrays)
