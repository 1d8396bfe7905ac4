"""Supervised fine-tuning: make the tokens of demonstrations likely. The warm start of everything that learns from rewards."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from polyact.learning.language.surrogates import token_mean
from polyact.learning.optimiser import Optimiser, descend
from polyact.policies.language.base import TokenPolicy, log_probs

DEFAULT = Optimiser(learning_rate=3e-3, clip_norm=1.0)


def imitation_loss(policy: TokenPolicy, tokens: Int[Array, "B T"], mask: Float[Array, "B T"]) -> Float[Array, ""]:
    """Mean cross-entropy (nats) of the tokens where the mask is 1."""
    return token_mean(-log_probs(policy, tokens)[0], mask)


def imitate(
    policy: TokenPolicy,
    tokens: Int[Array, "N T"],
    mask: Float[Array, "N T"],
    *,
    steps: int,
    batch: int,
    key: PRNGKeyArray,
    optimiser: Optimiser = DEFAULT,
) -> tuple[Any, Float[Array, " steps"]]:
    """`steps` steps on batches drawn with replacement from N demonstrations. Returns the policy and the losses. One compiled loop."""
    arrays, static = eqx.partition((policy, optimiser.init(policy, steps)), eqx.is_array)

    def step(arrays: PyTree, key: PRNGKeyArray) -> tuple[PyTree, Array]:
        policy, state = eqx.combine(arrays, static)
        rows = jax.random.randint(key, (batch,), 0, len(tokens))

        def loss(policy: Any) -> tuple[Array, Array]:
            value = imitation_loss(policy, tokens[rows], mask[rows])
            return value, value

        policy, state, value = descend(loss, policy, optimiser, state)
        return eqx.filter((policy, state), eqx.is_array), value

    arrays, losses = jax.lax.scan(step, arrays, jax.random.split(key, steps))
    return eqx.combine(arrays, static)[0], losses
