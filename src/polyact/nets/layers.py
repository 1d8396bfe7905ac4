"""The layers everything else is made of. Weights are stored [in, out], so that a vmapped call is one `[B, in] @ [in, out]` product
without transposes: the fastest layout for forward and backward on a CPU (measured), and as good as any on a GPU.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.errors import PolyactError, unknown
from polyact.tree import Frozen

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "mish": jax.nn.mish,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "softplus": jax.nn.softplus,
    "tanh": jnp.tanh,
    "sin": jnp.sin,
    "identity": lambda x: x,
}
INITIALISERS = ("orthogonal", "he", "lecun", "glorot")
POWER_ITERATIONS = 10


def activation(name: str) -> Callable[[Array], Array]:
    """The elementwise function of that name; PolyactError with the nearest match when there is none."""
    if name not in ACTIVATIONS:
        raise unknown("activation", name, ACTIVATIONS)
    return ACTIVATIONS[name]


def initialise(name: str, shape: tuple[int, int], scale: float, key: PRNGKeyArray) -> Float[Array, "inputs outputs"]:
    """A weight matrix [in, out]; `scale` multiplies the standard deviation that the initialiser gives at gain one."""
    check_initialiser(name)
    if min(shape) < 1:
        raise PolyactError(f"a layer needs at least one input and one output, got {shape[0]} and {shape[1]}")
    initialisers = jax.nn.initializers
    match name:
        case "orthogonal":
            return _orthogonal(shape, scale, key)
        case "he":
            return scale * initialisers.he_normal()(key, shape, jnp.float32)
        case "glorot":
            return scale * initialisers.glorot_normal()(key, shape, jnp.float32)
    return scale * initialisers.lecun_normal()(key, shape, jnp.float32)


def check_initialiser(name: str) -> None:
    """PolyactError with the nearest match when there is no initialiser of that name."""
    if name not in INITIALISERS:
        raise unknown("initialiser", name, INITIALISERS)


def _orthogonal(shape: tuple[int, int], scale: float, key: PRNGKeyArray) -> Float[Array, "inputs outputs"]:
    """The Q of a normal matrix (Saxe et al. 2014). Drawn flat: under `vmap` XLA compiles that four times as fast as a matrix of normals."""
    normals = jax.random.normal(key, (shape[0] * shape[1],)).reshape(min(shape), max(shape))
    q = scale * orthonormal_rows(normals)
    return q if shape[0] <= shape[1] else q.T


def orthonormal_rows(matrix: Float[Array, "rows columns"]) -> Float[Array, "rows columns"]:
    """Rows made orthonormal one after the other (Gram-Schmidt, twice for precision), for rows <= columns.

    This is the Q of a QR decomposition whose R has a positive diagonal. Not by LAPACK: batches of its routines wait for threads of the
    pool they run in, and two at once on two cores wait for each other for ever (jaxlib 0.10).
    """

    def one(i: Array, q: Array) -> Array:
        row = matrix[i]
        for _ in range(2):
            row = row - (q @ row) @ q
        return q.at[i].set(row / jnp.linalg.norm(row))

    return jax.lax.fori_loop(0, matrix.shape[0], one, jnp.zeros_like(matrix))


class Linear(eqx.Module):
    """x [I] -> x W + b [O]; also maps over leading axes, [..., I] -> [..., O]."""

    weight: Float[Array, "inputs outputs"]
    bias: Float[Array, " outputs"]

    @classmethod
    def build(cls, inputs: int, outputs: int, key: PRNGKeyArray, *, init: str = "lecun", scale: float = 1.0) -> "Linear":
        return cls(initialise(init, (inputs, outputs), scale, key), jnp.zeros(outputs))

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        return x @ self.weight + self.bias


def spectrally_normalised(layer: Linear) -> Linear:
    """The layer with its weight divided by its largest singular value, found by power iteration (Miyato et al., 1802.05957).

    Stateless: ten rounds from the same start each time. The singular vectors are constants to the gradient.
    """
    weight = jax.lax.stop_gradient(layer.weight)

    def unit(vector: Array) -> Array:
        return vector / jnp.maximum(jnp.linalg.norm(vector), 1e-12)

    start = unit(jnp.cos(jnp.arange(weight.shape[1], dtype=weight.dtype)))
    right = jax.lax.fori_loop(0, POWER_ITERATIONS, lambda _, v: unit((weight @ v) @ weight), start)
    left = unit(weight @ right)
    sigma = left @ layer.weight @ right
    return Linear(layer.weight / jnp.maximum(sigma, 1e-12), layer.bias)


class LayerNorm(eqx.Module):
    """Zero mean and unit variance over the last axis, then a learned scale and shift."""

    scale: Float[Array, " width"]
    shift: Float[Array, " width"]
    epsilon: float = eqx.field(static=True, default=1e-5)

    @classmethod
    def build(cls, width: int) -> "LayerNorm":
        return cls(jnp.ones(width), jnp.zeros(width))

    def __call__(self, x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
        return standardised(x, self.epsilon) * self.scale + self.shift


def standardised(x: Float[Array, "*batch width"], epsilon: float = 1e-5) -> Float[Array, "*batch width"]:
    """Layer normalisation without parameters."""
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + epsilon)


class RandomFourier(Frozen):
    """x [I] -> (x, sin, cos of fixed random projections) [I + 2F] (Tancik et al., 2006.10739)."""

    frequencies: Float[Array, "inputs features"]

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        return fourier(x, self.frequencies)


class LearnedFourier(eqx.Module):
    """The same with frequencies that are trained (Li & Pathak, 2112.11577)."""

    frequencies: Float[Array, "inputs features"]

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        return fourier(x, self.frequencies)


def fourier(x: Float[Array, " inputs"], frequencies: Float[Array, "inputs features"]) -> Float[Array, " outputs"]:
    """x with the sines and cosines of 2 pi x F appended: [I] -> [I + 2F]."""
    angle = 2 * jnp.pi * x @ frequencies
    return jnp.concatenate([x, jnp.sin(angle), jnp.cos(angle)])


def sinusoidal(position: Float[Array, ""], width: int, longest: float = 10_000.0) -> Float[Array, " width"]:
    """Sines and cosines of a scalar (a diffusion time, a place in a sequence) at `width / 2` geometric frequencies."""
    if width < 2 or width % 2:
        raise PolyactError(f"a sinusoidal embedding needs an even width of at least 2, got {width}")
    half = width // 2
    angle = position * jnp.exp(-jnp.log(longest) * jnp.arange(half) / half)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)])
