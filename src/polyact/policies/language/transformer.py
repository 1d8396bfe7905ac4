"""A small transformer language model with a key-value cache."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from polyact.nets.layers import Linear
from polyact.nets.transformer import Attention, Cache, Transformer
from polyact.policies.language.base import BEGIN, TokenPolicy


class TransformerLM(TokenPolicy):
    """embedding -> causal attention -> logits. The embedding has a last row for what stands before the first token."""

    embedding: Float[Array, "rows W"]
    trunk: Attention
    out: Linear

    @classmethod
    def create(cls, vocabulary: int, plan: Transformer, key: PRNGKeyArray) -> "TransformerLM":
        """Fresh weights. The plan's context must be at least the longest sequence, or the first tokens are forgotten."""
        keys = jax.random.split(key, 3)
        embedding = jax.random.normal(keys[0], (vocabulary + 1, plan.width))
        return cls(embedding, plan.build(keys[1]), Linear.build(plan.width, vocabulary, keys[2], scale=0.1))

    @property
    def vocabulary(self) -> int:
        return self.out.weight.shape[-1]

    def start(self) -> Cache:
        return self.trunk.start()

    def step(self, token: Int[Array, ""], memory: Cache) -> tuple[Float[Array, " V"], Cache]:
        hidden, memory = self.trunk.step(self.embedding[token], memory)
        return self.out(hidden), memory

    def logits(self, tokens: Int[Array, " T"]) -> Float[Array, "T V"]:
        before = jnp.concatenate([jnp.full((1,), BEGIN, tokens.dtype), tokens[:-1]])
        return self.out(self.trunk.causal(self.embedding[before]))
