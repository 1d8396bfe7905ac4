"""Networks that look at a noisy chunk of actions: (noisy [H, A], time [], condition [K, C]) -> [H, A].

The condition is what an encoder made of K observations, once per chain; the denoiser is called at every noise level.
"""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.errors import PolyactError, unknown
from polyact.nets.layers import LayerNorm, Linear, sinusoidal
from polyact.nets.mlp import MLP, Network
from polyact.nets.transformer import Attention, Transformer

KINDS = ("residual", "mlp", "sieve", "transformer")
TIME_WIDTH = 32
TIME_SCALE = 1000.0  # time runs from 0 to 1; the sinusoids were made for a thousand levels


class Denoiser(eqx.Module):
    """One noisy chunk, the time of its noise in [0, 1] and a condition -> an output for every entry of the chunk."""

    @abstractmethod
    def __call__(
        self, noisy: Float[Array, "H A"], time: Float[Array, ""], condition: Float[Array, "K C"]
    ) -> Float[Array, "H A"]: ...


class TimeEmbedding(eqx.Module):
    """Sinusoids of the time through two layers: [] -> [W]."""

    first: Linear
    second: Linear

    @classmethod
    def build(cls, width: int, key: PRNGKeyArray) -> "TimeEmbedding":
        one, two = jax.random.split(key)
        return cls(Linear.build(TIME_WIDTH, width, one), Linear.build(width, width, two))

    def __call__(self, time: Float[Array, ""]) -> Float[Array, " width"]:
        return self.second(jax.nn.mish(self.first(sinusoidal(TIME_SCALE * time, TIME_WIDTH))))


class MLPDenoiser(Denoiser):
    """Everything side by side into one MLP."""

    time: TimeEmbedding
    network: MLP

    def __call__(self, noisy: Float[Array, "H A"], time: Float[Array, ""], condition: Float[Array, "K C"]) -> Float[Array, "H A"]:
        joined = jnp.concatenate([noisy.reshape(-1), self.time(time), condition.reshape(-1)])
        return self.network(joined).reshape(noisy.shape)


class ResidualBlock(eqx.Module):
    """x + narrow(activation(widen(norm(x))))."""

    norm: LayerNorm
    widen: Linear
    narrow: Linear

    def __call__(self, x: Float[Array, " width"]) -> Float[Array, " width"]:
        return x + self.narrow(jax.nn.mish(self.widen(self.norm(x))))


class ResidualDenoiser(Denoiser):
    """The layer-normalised residual MLP of IDQL (2304.10573), without dropout."""

    time: TimeEmbedding
    enter: Linear
    blocks: tuple[ResidualBlock, ...]
    leave: Linear

    def __call__(self, noisy: Float[Array, "H A"], time: Float[Array, ""], condition: Float[Array, "K C"]) -> Float[Array, "H A"]:
        x = self.enter(jnp.concatenate([noisy.reshape(-1), self.time(time), condition.reshape(-1)]))
        for block in self.blocks:
            x = block(x)
        return self.leave(jax.nn.mish(x)).reshape(noisy.shape)


class SieveDenoiser(Denoiser):
    """An MLP that is shown the noisy chunk, the time and the condition again at every layer (MLP-sieve, 2301.10677).

    Layers are normalised over their width, where the paper's code normalises over the batch.
    """

    time: TimeEmbedding
    enter: Linear
    hidden: tuple[Linear, ...]
    norms: tuple[LayerNorm, ...]
    leave: Linear

    def __call__(self, noisy: Float[Array, "H A"], time: Float[Array, ""], condition: Float[Array, "K C"]) -> Float[Array, "H A"]:
        shown = jnp.concatenate([noisy.reshape(-1), self.time(time), condition.reshape(-1)])
        x = jax.nn.gelu(self.norms[0](self.enter(shown)))
        for layer, norm in zip(self.hidden, self.norms[1:], strict=True):
            x = x / 1.414 + jax.nn.gelu(norm(layer(jnp.concatenate([x / 1.414, shown]))))
        return self.leave(jnp.concatenate([x, shown])).reshape(noisy.shape)


class TransformerDenoiser(Denoiser):
    """One token for the time, one per observation and one per action of the chunk, attending to each other."""

    time: TimeEmbedding
    observed: Linear
    planned: Linear
    places: Float[Array, "H W"]
    blocks: Attention
    leave: Linear

    def __call__(self, noisy: Float[Array, "H A"], time: Float[Array, ""], condition: Float[Array, "K C"]) -> Float[Array, "H A"]:
        tokens = jnp.concatenate([self.time(time)[None], self.observed(condition), self.planned(noisy) + self.places])
        return self.leave(self.blocks.full(tokens)[-len(noisy) :])


def build_denoiser(
    kind: str, network: Network, horizon: int, actions: int, condition: tuple[int, int], key: PRNGKeyArray
) -> Denoiser:
    """A denoiser of that kind, with the width and depth of `network`, for chunks [H, A] and conditions [K, C].

    Raises PolyactError for an unknown kind, and when `network` asks for something only the kind "mlp" has.
    """
    if kind not in KINDS:
        raise unknown("kind of denoiser", kind, KINDS)
    if kind != "mlp" and eqx.tree_equal(network, Network(width=network.width, depth=network.depth)) is not True:
        raise PolyactError(f"of a network, a denoiser of kind '{kind}' uses only width and depth, got {network}")
    if kind != "mlp" and network.depth < 1:
        raise PolyactError(f"a denoiser of kind '{kind}' needs a depth of at least 1, got {network.depth}")
    keys = jax.random.split(key, network.depth + 4)
    width, flat = network.width, horizon * actions
    time_width = width if kind == "transformer" else TIME_WIDTH
    time = TimeEmbedding.build(time_width, keys[0])
    shown = flat + time_width + condition[0] * condition[1]
    match kind:
        case "mlp":
            return MLPDenoiser(time, network.build(shown, flat, keys[1]))
        case "residual":
            blocks = tuple(_residual_block(width, k) for k in keys[3:-1])
            return ResidualDenoiser(time, Linear.build(shown, width, keys[1]), blocks, Linear.build(width, flat, keys[2]))
        case "sieve":
            hidden = tuple(Linear.build(width + shown, width, k) for k in keys[4:])
            norms = tuple(LayerNorm.build(width) for _ in range(network.depth + 1))
            leave = Linear.build(width + shown, flat, keys[2])
            return SieveDenoiser(time, Linear.build(shown, width, keys[1]), hidden, norms, leave)
    places = jax.random.normal(keys[3], (horizon, width))
    plan = Transformer(width=width, depth=network.depth, heads=max(1, width // 32))
    observed, planned = Linear.build(condition[1], width, keys[1]), Linear.build(actions, width, keys[2])
    return TransformerDenoiser(time, observed, planned, places, plan.build(keys[-1]), Linear.build(width, actions, keys[-2]))


def _residual_block(width: int, key: PRNGKeyArray) -> ResidualBlock:
    widen, narrow = jax.random.split(key)
    return ResidualBlock(LayerNorm.build(width), Linear.build(width, 4 * width, widen), Linear.build(4 * width, width, narrow))
