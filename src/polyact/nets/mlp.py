"""The multilayer perceptron. Its architecture is data (`Network`), so that a learner's field says what its networks look like and
`build` makes one wherever the widths become known.
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.errors import PolyactError
from polyact.nets.layers import (
    LayerNorm,
    LearnedFourier,
    Linear,
    RandomFourier,
    activation,
    check_initialiser,
    initialise,
    spectrally_normalised,
)

Modulation = Callable[[int, Array], Array]


class Network(eqx.Module):
    """The architecture of an MLP: `depth` hidden layers of `width`.

    activation: a name from `nets.layers.ACTIVATIONS`. layer_norm: normalise before each activation. residual: hidden layers after
    the first add to their input. spectral_norm: hidden weights have largest singular value one. fourier: this many sine-cosine
    pairs of projections of the input (standard deviation `fourier_scale`) are appended to it; `fourier_learned` trains them.
    init: orthogonal (gain sqrt 2 in the hidden layers), he, lecun or glorot; final_scale multiplies the last layer's weights.
    """

    width: int = eqx.field(static=True, default=256)
    depth: int = eqx.field(static=True, default=2)
    activation: str = eqx.field(static=True, default="relu")
    layer_norm: bool = eqx.field(static=True, default=False)
    residual: bool = eqx.field(static=True, default=False)
    spectral_norm: bool = eqx.field(static=True, default=False)
    fourier: int = eqx.field(static=True, default=0)
    fourier_scale: float = eqx.field(static=True, default=1.0)
    fourier_learned: bool = eqx.field(static=True, default=False)
    init: str = eqx.field(static=True, default="orthogonal")
    final_scale: float = eqx.field(static=True, default=1.0)

    def __check_init__(self):
        if self.width < 1 or self.depth < 0 or self.fourier < 0:
            raise PolyactError(
                f"a network needs width >= 1, depth >= 0, fourier >= 0, got {self.width}, {self.depth}, {self.fourier}"
            )
        if self.residual and self.depth < 2:
            raise PolyactError(f"residual=True does nothing with depth {self.depth}; it needs at least 2 hidden layers")
        for name, unset in (("fourier_learned", False), ("fourier_scale", 1.0)):
            if not self.fourier and getattr(self, name) != unset:
                raise PolyactError(f"{name}={getattr(self, name)} does nothing with fourier=0")
        activation(self.activation)
        check_initialiser(self.init)

    def build(self, inputs: int, outputs: int, key: PRNGKeyArray) -> "MLP":
        """An MLP from [inputs] to [outputs] with fresh parameters."""
        first, *keys = jax.random.split(key, self.depth + 2)
        expand = None
        if self.fourier:
            frequencies = self.fourier_scale * jax.random.normal(first, (inputs, self.fourier))
            expand = (LearnedFourier if self.fourier_learned else RandomFourier)(frequencies)
            inputs += 2 * self.fourier
        widths = [inputs] + [self.width] * self.depth
        gain = math.sqrt(2) if self.init == "orthogonal" else 1.0
        hidden = tuple(
            Linear.build(i, o, k, init=self.init, scale=gain) for i, o, k in zip(widths, widths[1:], keys[:-1], strict=False)
        )
        norms = tuple(LayerNorm.build(self.width) for _ in hidden) if self.layer_norm else ()
        last = Linear(initialise(self.init, (widths[-1], outputs), self.final_scale, keys[-1]), jnp.zeros(outputs))
        return MLP(expand, hidden, norms, last, self.activation, self.residual, self.spectral_norm)


class MLP(eqx.Module):
    """x [I] -> [O]. One vector in, one out; a batch is a `vmap`, which compiles to plain matrix products."""

    expand: RandomFourier | LearnedFourier | None
    hidden: tuple[Linear, ...]
    norms: tuple[LayerNorm, ...]
    last: Linear
    activation: str = eqx.field(static=True)
    residual: bool = eqx.field(static=True)
    spectral_norm: bool = eqx.field(static=True)

    def __call__(self, x: Float[Array, " inputs"], modulate: Modulation | None = None) -> Float[Array, " outputs"]:
        """`modulate(layer, hidden)`, when given, changes each hidden layer before its activation (see `nets.film`)."""
        return self.last(self.features(x, modulate))

    def features(self, x: Float[Array, " inputs"], modulate: Modulation | None = None) -> Float[Array, " width"]:
        """What the last layer sees."""
        nonlinear = activation(self.activation)
        if self.expand is not None:
            x = self.expand(x)
        for index, layer in enumerate(self.hidden):
            step = (spectrally_normalised(layer) if self.spectral_norm else layer)(x)
            step = self.norms[index](step) if self.norms else step
            step = nonlinear(step if modulate is None else modulate(index, step))
            x = x + step if self.residual and index else step
        return x
