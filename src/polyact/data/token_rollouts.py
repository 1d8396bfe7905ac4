"""What a language policy leaves behind when it answers prompts, possibly with a world that writes between its turns."""

import equinox as eqx
from jaxtyping import Array, Float, Int


class TokenRollouts(eqx.Module):
    """B answers of at most T tokens, padded at the end.

    tokens: prompt, what the policy wrote and what the world wrote between. action_mask: 1 where the policy wrote, 0 for prompts,
    observations and padding. logp_old, entropy (nats): of the distribution each token was drawn from; 0 where the policy did not write.
    group_id: answers to the same prompt share one. turn_id: how many times the world had spoken since the policy's first token.
    reward: of the whole answer. turn_reward: of turns, where there are such.
    """

    tokens: Int[Array, "B T"]
    action_mask: Float[Array, "B T"]
    logp_old: Float[Array, "B T"]
    entropy: Float[Array, "B T"]
    group_id: Int[Array, " B"]
    turn_id: Int[Array, "B T"]
    reward: Float[Array, " B"]
    turn_reward: Float[Array, "B U"] | None = None

    def written(self, token: int) -> Float[Array, " B"]:
        """How often the policy wrote a token, for instance to call a tool."""
        return ((self.tokens == token) * self.action_mask).sum(-1)

    @property
    def length(self) -> Float[Array, " B"]:
        """How many tokens the policy wrote."""
        return self.action_mask.sum(-1)
