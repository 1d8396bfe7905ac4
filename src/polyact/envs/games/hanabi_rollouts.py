"""What Hanabi's actions are worth to a player who knows the policy of both: rollouts from its exact belief."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.envs.games.hanabi import Hanabi, Table, shuffled
from polyact.envs.games.hanabi_belief import Belief, LogPolicy, guesses


def rollout_values(
    env: Hanabi, blueprint: LogPolicy, table: Table, belief: Belief, rollouts: int, key: PRNGKeyArray
) -> Float[Array, " A"]:
    """q of every action for the player whose turn it is: further score, from `rollouts` hands of its belief and shuffles of the rest.

    Every action is played from the same tables and with the same random numbers.
    """
    which, cards, play = jax.random.split(key, 3)
    hands = jnp.asarray(guesses(env))[jax.random.categorical(which, jnp.log(belief), shape=(rollouts,))]
    tables = jax.vmap(lambda hand, k: shuffled(env, table, table.mover, hand, k))(hands, jax.random.split(cards, rollouts))
    keys = jax.random.split(play, rollouts)

    def one(action: Array, start: Table, stream: PRNGKeyArray) -> Array:
        after, first = env.step(start, action, stream)
        return first.reward + played_on(env, blueprint, after, stream)

    every = jax.vmap(jax.vmap(one, in_axes=(None, 0, 0)), in_axes=(0, None, None))
    return every(jnp.arange(env.actions), tables, keys).mean(1)


def played_on(env: Hanabi, blueprint: LogPolicy, table: Table, key: PRNGKeyArray) -> Float[Array, ""]:
    """The further score when both follow the blueprint to the end."""

    def turn(carry: tuple[Array, Table]) -> tuple[Array, Table]:
        time, now = carry
        action = jax.random.categorical(jax.random.fold_in(key, time), blueprint(env.observe(now)))
        return time + 1, env.step(now, action, key)[0]

    _, end = jax.lax.while_loop(lambda carry: ~carry[1].over, turn, (jnp.int32(0), table))
    return (env.score(end) - env.score(table)).astype(jnp.float32)
