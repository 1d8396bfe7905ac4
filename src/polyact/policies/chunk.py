"""Policies that plan a chunk of actions from the last observations: by an MLP, or by a transformer with an optional latent style."""

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from polyact.data.sampling import Batch, Chunks, Sampling
from polyact.errors import PolyactError
from polyact.nets.layers import Linear
from polyact.nets.mlp import MLP, Network
from polyact.nets.transformer import Attention, Transformer
from polyact.nets.vae import kl_from_standard_normal
from polyact.policies.base import ChunkPolicy, Imitable, Memory, Observation
from polyact.policies.recurrent import masked_mean
from polyact.policies.spec import Body, Spec

if TYPE_CHECKING:
    from typing import ClassVar as AbstractVar  # a type checker would take an AbstractVar for an argument of every __init__
else:
    from equinox import AbstractVar


class Past(eqx.Module):
    """The features of the last K observations, oldest first; before there were K, the first one stands for the missing ones."""

    features: Float[Array, "K O"]
    started: Bool[Array, ""]

    @classmethod
    def empty(cls, history: int, width: int) -> "Past":
        return cls(jnp.zeros((history, width)), jnp.zeros((), bool))

    def push(self, features: Float[Array, " O"]) -> "Past":
        """With one more observation."""
        shifted = jnp.concatenate([self.features[1:], features[None]])
        return Past(jnp.where(self.started, shifted, jnp.broadcast_to(features, shifted.shape)), jnp.ones((), bool))


class PastChunkPolicy(ChunkPolicy, Imitable):
    """Plans from the features of the last `history` observations."""

    history: AbstractVar[int]

    def start(self, key: PRNGKeyArray) -> Memory:
        return Past.empty(self.history, self.body.observation_width)

    def observe(self, observation: Observation, memory: Memory) -> Memory:
        return memory.push(self.body.features(observation))

    @property
    def sampling(self) -> Sampling:
        return Chunks(self.horizon, self.history)


class ChunkRegression(PastChunkPolicy):
    """The features of the last `history` observations -> MLP -> `horizon` actions; cloned by mean squared error in unit coordinates."""

    body: Body
    network: MLP
    horizon: int = eqx.field(static=True)
    history: int = eqx.field(static=True)

    @classmethod
    def create(cls, spec: Spec, network: Network, key: PRNGKeyArray, *, horizon: int = 8, history: int = 1) -> "ChunkRegression":
        """Fresh weights for the one body of the spec."""
        body = spec.body
        Chunks(horizon, history)
        built = network.build(history * body.observation_width, horizon * body.continuous.width, key)
        return cls(body, built, horizon, history)

    def unit_chunk(self, past: Float[Array, "K O"]) -> Float[Array, "H A"]:
        """The planned actions in unit coordinates."""
        return self.body.continuous.squash(self.network(past.reshape(-1)).reshape(self.horizon, -1))

    def chunk(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Float[Array, "H ..."], Memory]:
        memory = self.observe(observation, memory)
        return jax.vmap(self.body.to_env)(self.unit_chunk(memory.features)), memory

    def imitation_loss(self, batch: Batch, key: PRNGKeyArray) -> Float[Array, ""]:
        past, unit = chunk_batch(self.body, self.history, batch)
        return masked_mean(jnp.square(jax.vmap(self.unit_chunk)(past) - unit).mean(-1), batch.mask)


class ChunkTransformer(PastChunkPolicy):
    """Action chunking with transformers (ACT, 2304.13705), for vector observations.

    A transformer reads one token per past observation, one for a latent style and one query per planned action. In training the style
    comes from an encoder that sees the actions; when acting it is `temperature` times a standard normal (the paper's 0: its mean).
    With latent 0 there is no style. Cloned by mean absolute error plus `kl_weight` (10) times the style's divergence from its prior.
    """

    body: Body
    observe_in: Linear
    style_in: Linear | None
    queries: Float[Array, "H W"]
    kinds: Float[Array, "2 W"]
    decoder: Attention
    out: Linear
    encoder: Attention | None
    action_in: Linear | None
    style_out: Linear | None
    horizon: int = eqx.field(static=True)
    history: int = eqx.field(static=True)
    latent: int = eqx.field(static=True)
    kl_weight: float = eqx.field(static=True)
    temperature: float = eqx.field(static=True)

    @classmethod
    def create(
        cls,
        spec: Spec,
        network: Network,
        key: PRNGKeyArray,
        *,
        horizon: int = 8,
        history: int = 1,
        heads: int = 4,
        latent: int = 0,
        kl_weight: float | None = None,
        temperature: float = 0.0,
    ) -> "ChunkTransformer":
        """Fresh weights; the width and depth of `network` are those of the transformers."""
        if eqx.tree_equal(network, Network(width=network.width, depth=network.depth)) is not True:
            raise PolyactError(f"of a network, a chunk transformer uses only width and depth, got {network}")
        if latent < 0 or (temperature and not latent):
            raise PolyactError(f"a temperature of {temperature} does nothing with latent {latent}")
        if kl_weight is not None and not latent:
            raise PolyactError(f"a kl_weight of {kl_weight} does nothing with latent {latent}")
        body = spec.body
        Chunks(horizon, history)
        keys = jax.random.split(key, 8)
        width, seen, acts = network.width, body.observation_width, body.continuous.width
        plan = Transformer(width=width, depth=network.depth, heads=heads)
        return cls(
            body,
            Linear.build(seen, width, keys[0]),
            Linear.build(latent, width, keys[1]) if latent else None,
            jax.random.normal(keys[2], (horizon, width)),
            jax.random.normal(keys[3], (2, width)),
            plan.build(keys[4]),
            Linear.build(width, acts, keys[5], scale=0.1),
            plan.build(keys[6]) if latent else None,
            Linear.build(acts, width, keys[7]) if latent else None,
            Linear(jnp.zeros((width, 2 * latent)), jnp.zeros(2 * latent)) if latent else None,
            horizon,
            history,
            latent,
            10.0 if kl_weight is None else kl_weight,
            temperature,
        )

    def unit_chunk(self, past: Float[Array, "K O"], style: Float[Array, " Z"]) -> Float[Array, "H A"]:
        """The planned actions in unit coordinates."""
        tokens = [self.observe_in(past), self.queries]
        if self.style_in is not None:
            tokens.append(self.style_in(style)[None] + self.kinds[:1])
        first = len(past)
        return self.body.continuous.squash(self.out(self.decoder.full(jnp.concatenate(tokens))[first : first + self.horizon]))

    def style(
        self, past: Float[Array, "K O"], unit: Float[Array, "H A"], real: Bool[Array, " H"]
    ) -> tuple[Float[Array, " Z"], Float[Array, " Z"]]:
        """Mean and log standard deviation of the style that the encoder sees in a recorded chunk. Needs a latent."""
        if self.encoder is None or self.action_in is None or self.style_out is None:
            raise PolyactError("a chunk transformer with latent 0 has no style")
        tokens = jnp.concatenate([self.kinds[1:], self.observe_in(past), self.action_in(unit)])
        seen = jnp.concatenate([jnp.ones(1 + len(past), bool), real])
        mean, log_std = jnp.split(self.style_out(self.encoder.full(tokens, seen)[0]), 2)
        return mean, jnp.clip(log_std, -10.0, 4.0)

    def chunk(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Float[Array, "H ..."], Memory]:
        memory = self.observe(observation, memory)
        style = self.temperature * jax.random.normal(key, (self.latent,))
        return jax.vmap(self.body.to_env)(self.unit_chunk(memory.features, style)), memory

    def imitation_loss(self, batch: Batch, key: PRNGKeyArray) -> Float[Array, ""]:
        past, unit = chunk_batch(self.body, self.history, batch)
        real = jnp.ones(unit.shape[:2], bool) if batch.mask is None else batch.mask.astype(bool)

        def one(past: Array, unit: Array, real: Array, key: PRNGKeyArray) -> tuple[Array, Array]:
            style, divergence = jnp.zeros(0), jnp.zeros(())
            if self.latent:
                mean, log_std = self.style(past, unit, real)
                style = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
                divergence = kl_from_standard_normal(mean, log_std)
            return jnp.abs(self.unit_chunk(past, style) - unit).mean(-1), divergence

        errors, divergence = jax.vmap(one)(past, unit, real, jax.random.split(key, len(past)))
        return masked_mean(errors, real) + self.kl_weight * divergence.mean()


def chunk_batch(body: Body, history: int, batch: Batch) -> tuple[Float[Array, "B K O"], Float[Array, "B H A"]]:
    """Past features and unit actions of a batch of chunks."""
    features: Any = body.features if history == 1 else jax.vmap(body.features)
    past = jax.vmap(features)(batch.observation)
    return past.reshape(len(past), history, -1), jax.vmap(jax.vmap(body.to_unit))(batch.action)
