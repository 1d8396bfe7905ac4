"""Several answers to each of many questions, in one program: a language policy meets a token world."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from polyact.data.token_rollouts import TokenRollouts
from polyact.envs.language.base import FREE, OVER, TokenWorld
from polyact.policies.language.base import BEGIN, TokenPolicy, token_scores


def questions(world: TokenWorld, count: int, key: PRNGKeyArray) -> PyTree:
    """`count` random questions, with a leading axis on every leaf."""
    return jax.vmap(world.question)(jax.random.split(key, count))


def sample_groups(
    policy: TokenPolicy, world: TokenWorld, asked: PyTree, group: int, key: PRNGKeyArray, temperature: float = 1.0
) -> TokenRollouts:
    """`group` answers to each of Q questions (leading axis), B = Q * group, those of one question side by side.

    Log probabilities and entropies are those of the distribution sampled from, temperature included. Temperature 0: the greedy answer.
    """
    count = jax.tree.leaves(asked)[0].shape[0]
    repeated = jax.tree.map(lambda leaf: jnp.repeat(leaf, group, axis=0), asked)
    keys = jax.random.split(key, count * group)
    columns = jax.vmap(lambda question, k: _answer(policy, world, question, k, temperature))(repeated, keys)
    tokens, mask, logp, entropy, turn, reward = columns
    return TokenRollouts(tokens, mask, logp, entropy, jnp.repeat(jnp.arange(count), group), turn, reward)


def _answer(policy: TokenPolicy, world: TokenWorld, question: PyTree, key: PRNGKeyArray, temperature: float) -> tuple[Array, ...]:
    """tokens, mask, logp, entropy, turn [T] and the reward of one answer."""

    def position(carry: tuple[Array, Array, Any], now: tuple[Array, Array]) -> tuple[Any, tuple[Array, ...]]:
        tokens, last, memory = carry
        place, key = now
        logits, memory = policy.step(last, memory)
        chosen = jnp.argmax(logits) if temperature == 0 else jax.random.categorical(key, logits / temperature)
        logp, entropy = token_scores(logits / (temperature or 1.0), chosen)
        forced = world.forced(question, tokens, place)
        token = jnp.where(forced == FREE, chosen, jnp.where(forced == OVER, 0, forced)).astype(jnp.int32)
        free = (forced == FREE).astype(logp.dtype)
        return (tokens.at[place].set(token), token, memory), (free, free * logp, free * entropy)

    keys = jax.random.split(key, world.length + 1)
    start = (jnp.zeros(world.length, jnp.int32), jnp.asarray(BEGIN, jnp.int32), policy.start())
    (tokens, _, _), (mask, logp, entropy) = jax.lax.scan(position, start, (jnp.arange(world.length), keys[1:]))
    return tokens, mask, logp, entropy, turns(mask), world.reward(question, tokens, mask > 0, keys[0])


def turns(mask: Array) -> Array:
    """The number of the policy's turn at every position [T], from 0 at its first token; a new turn begins where it writes again."""
    begins = (mask > 0) & ~jnp.concatenate([jnp.zeros(1, bool), mask[:-1] > 0])
    return jnp.maximum(jnp.cumsum(begins) - 1, 0)
