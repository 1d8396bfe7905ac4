"""Recurrent cells: what a policy can remember in a vector."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from polyact.errors import unknown
from polyact.nets.layers import Linear, initialise


class Cell(eqx.Module):
    """x [I], state -> output [W], state. What a step takes from x alone is `inner`, which a whole sequence may pass at once."""

    inner: Linear
    recurrent: Linear

    @abstractmethod
    def start(self) -> PyTree:
        """The state before anything was seen."""

    @abstractmethod
    def advance(self, entering: Float[Array, " gates"], state: PyTree) -> tuple[Float[Array, " width"], PyTree]:
        """One step from `inner(x)`."""

    def __call__(self, x: Float[Array, " inputs"], state: PyTree) -> tuple[Float[Array, " width"], PyTree]:
        """One step from x."""
        return self.advance(self.inner(x), state)


class GRU(Cell):
    """Gated recurrent unit (Cho et al., 1406.1078), with the reset gate applied after the recurrent product. State [W]."""

    @classmethod
    def build(cls, inputs: int, width: int, key: PRNGKeyArray) -> "GRU":
        return cls(*_maps(inputs, width, 3, key))

    def start(self) -> PyTree:
        return jnp.zeros(self.recurrent.weight.shape[-2])

    def advance(self, entering: Float[Array, " gates"], state: PyTree) -> tuple[Float[Array, " width"], PyTree]:
        reset_x, update_x, new_x = jnp.split(entering, 3)
        reset_h, update_h, new_h = jnp.split(self.recurrent(state), 3)
        update = jax.nn.sigmoid(update_x + update_h)
        new = jnp.tanh(new_x + jax.nn.sigmoid(reset_x + reset_h) * new_h)
        state = update * state + (1 - update) * new
        return state, state


class LSTM(Cell):
    """Long short-term memory (Hochreiter & Schmidhuber, 1997) with a forget gate biased to remember. State ([W], [W])."""

    @classmethod
    def build(cls, inputs: int, width: int, key: PRNGKeyArray) -> "LSTM":
        inner, recurrent = _maps(inputs, width, 4, key)
        return cls(eqx.tree_at(lambda m: m.bias, inner, inner.bias.at[width : 2 * width].set(1.0)), recurrent)

    def start(self) -> PyTree:
        zeros = jnp.zeros(self.recurrent.weight.shape[-2])
        return zeros, zeros

    def advance(self, entering: Float[Array, " gates"], state: PyTree) -> tuple[Float[Array, " width"], PyTree]:
        hidden, memory = state
        enter, forget, new, leave = jnp.split(entering + self.recurrent(hidden), 4)
        memory = jax.nn.sigmoid(forget) * memory + jax.nn.sigmoid(enter) * jnp.tanh(new)
        hidden = jax.nn.sigmoid(leave) * jnp.tanh(memory)
        return hidden, (hidden, memory)


CELLS = {"gru": GRU, "lstm": LSTM}


def build_cell(name: str, inputs: int, width: int, key: PRNGKeyArray) -> Cell:
    """A cell by name; PolyactError with the nearest match when there is none."""
    if name not in CELLS:
        raise unknown("recurrent cell", name, CELLS)
    return CELLS[name].build(inputs, width, key)


def _maps(inputs: int, width: int, gates: int, key: PRNGKeyArray) -> tuple[Linear, Linear]:
    first, second = jax.random.split(key)
    recurrent = jnp.concatenate([initialise("orthogonal", (width, width), 1.0, k) for k in jax.random.split(second, gates)], 1)
    return Linear.build(inputs, gates * width, first), Linear(recurrent, jnp.zeros(gates * width))
