"""What writes tokens: a distribution over the next one, given all before it, with a memory that makes going on cheap."""

from abc import abstractmethod
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

if TYPE_CHECKING:
    from typing import ClassVar as AbstractVar  # a type checker would take an AbstractVar for an argument of every __init__
else:
    from equinox import AbstractVar

BEGIN = -1  # what stands before the first token


class TokenPolicy(eqx.Module):
    """A language model over tokens 0 .. V-1. `step` over a sequence, begun with `BEGIN`, gives exactly `logits`."""

    vocabulary: AbstractVar[int]

    @abstractmethod
    def start(self) -> PyTree:
        """What is remembered before the first token."""

    @abstractmethod
    def step(self, token: Int[Array, ""], memory: PyTree) -> tuple[Float[Array, " V"], PyTree]:
        """Logits of the token that follows `token`, and the new memory."""

    @abstractmethod
    def logits(self, tokens: Int[Array, " T"]) -> Float[Array, "T V"]:
        """Logits of every token of a sequence given those before it."""


def log_probs(policy: TokenPolicy, tokens: Int[Array, "B T"]) -> tuple[Float[Array, "B T"], Float[Array, "B T"]]:
    """The log probability of every token given those before it, and the entropy (nats) of the distribution it was drawn from."""
    return token_scores(jax.vmap(policy.logits)(tokens), tokens)


def token_scores(
    logits: Float[Array, "*batch V"], token: Int[Array, "*batch"]
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
    """log softmax(logits) at `token`, and the entropy of the softmax (nats). A token beyond the vocabulary counts as its last."""
    log_p = jax.nn.log_softmax(logits)
    chosen = jnp.take_along_axis(log_p, token[..., None], -1, mode="clip")[..., 0]
    return chosen, -(jnp.exp(log_p) * log_p).sum(-1)
