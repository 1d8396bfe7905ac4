"""A language model as a table: logits looked up by prompt and position. Probabilities, entropies and gradients are exact."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from polyact.policies.language.base import TokenPolicy


class TableLM(TokenPolicy):
    """table [Q, L, V]: the first token of a sequence names the prompt, the i-th after it is drawn from softmax(table[prompt, i - 1])."""

    table: Float[Array, "Q L V"]

    @property
    def vocabulary(self) -> int:
        return self.table.shape[-1]

    @property
    def probabilities(self) -> Float[Array, "Q L V"]:
        return jax.nn.softmax(self.table)

    def start(self) -> tuple[Int[Array, ""], Int[Array, ""]]:
        """Position and prompt."""
        return jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)

    def step(self, token: Int[Array, ""], memory: tuple[Array, Array]) -> tuple[Float[Array, " V"], tuple[Array, Array]]:
        position, prompt = memory
        prompt = jnp.where(position == 1, token, prompt)
        row = self.table[prompt, jnp.maximum(position - 1, 0)]
        return jnp.where(position > 0, row, 0.0), (position + 1, prompt)

    def logits(self, tokens: Int[Array, " T"]) -> Float[Array, "T V"]:
        length = len(tokens) - 1
        return jnp.concatenate([jnp.zeros((1, self.vocabulary)), self.table[tokens[0], :length]])


def entropy(table: TableLM) -> Float[Array, ""]:
    """Mean entropy (nats) over prompts and positions."""
    log_p = jax.nn.log_softmax(table.table)
    return -(jnp.exp(log_p) * log_p).sum(-1).mean()
