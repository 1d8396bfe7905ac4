"""What a Hanabi player knows of its own hand: the exact posterior when both follow a known policy, updated move by move.

A belief is a probability for each of `guesses`, all hands one can hold. Source: Bayes' rule; the deck is a uniform shuffle, so given a
hand the next card is any of those left with equal chance.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from polyact.envs.games.hanabi import Hanabi, Table, unseen

Belief = Float[Array, " G"]
LogPolicy = Callable[[dict[str, Array]], Float[Array, " A"]]  # an observation -> log-probabilities of actions


def guesses(env: Hanabi) -> Int[np.ndarray, "G H"]:
    """All hands, "no card" (type T) included; hand g is number sum of g[i] (T + 1)^(H - 1 - i)."""
    grid = np.meshgrid(*[np.arange(env.types + 1)] * env.hand, indexing="ij")
    return np.stack(grid, -1).reshape(-1, env.hand).astype(np.int32)


def first_belief(env: Hanabi, table: Table, player: Int[Array, ""] | int) -> Belief:
    """Before anybody moved: hands in proportion to the number of ways to deal them from the cards the player does not see."""
    hands = table.hands.at[player].set(env.types)
    left, guess = unseen(env, table, hands), jnp.asarray(guesses(env))
    taken = (guess[:, :, None] == jnp.arange(env.types)).astype(jnp.int32)
    earlier = jnp.cumsum(taken, 1) - taken
    ways = jnp.where(taken > 0, jnp.maximum(left - earlier, 0), 1).prod((1, 2))
    return _normalised(jnp.where((guess < env.types).all(1), ways.astype(jnp.float32), 0.0))


def updated(
    env: Hanabi, policy: LogPolicy, table: Table, action: Int[Array, ""], beliefs: Float[Array, "2 G"]
) -> Float[Array, "2 G"]:
    """Both players' beliefs after the mover's action at `table`, chosen by `policy` from what the mover saw."""
    mover, guess = table.mover, jnp.asarray(guesses(env))
    other, slot = 1 - mover, action % env.hand
    own_card = action < 2 * env.hand
    following = jnp.append(table.deck, env.types)[jnp.minimum(table.drawn, len(env.cards))]
    supposed = jax.vmap(lambda hand: eqx.tree_at(lambda t: t.hands, table, table.hands.at[other].set(hand)))(guess)
    chosen = jnp.exp(jax.vmap(lambda t: policy(env.observe(t))[action])(supposed))
    pointed = jax.vmap(lambda hand: (env.touched(hand, action) == env.touched(table.hands[other], action)).all())(guess)
    seen = chosen * jnp.where(own_card, _next(env, table, supposed.hands, following), pointed)
    other_belief = _normalised(beliefs[other] * seen)
    before = guess.at[:, slot].set(table.hands[mover, slot])
    mine = jax.vmap(lambda hand: table.hands.at[mover].set(hand))(before)
    drawn = beliefs[mover][_number(env, before)] * _next(env, table, mine, guess[:, slot])
    mover_belief = jnp.where(own_card, _normalised(drawn), beliefs[mover])
    return beliefs.at[other].set(other_belief).at[mover].set(mover_belief)


def _next(env: Hanabi, table: Table, hands: Int[Array, "G 2 H"], card: Int[Array, "*G"]) -> Float[Array, " G"]:
    """Chance that the card drawn next is `card`, had the players these hands; no card comes when the deck is empty."""
    left = jnp.maximum(jax.vmap(lambda pair: unseen(env, table, pair))(hands), 0)
    count = len(env.cards) - table.drawn
    card = jnp.broadcast_to(card, left.shape[:1])
    share = jnp.append(left, jnp.zeros((len(left), 1), left.dtype), 1)[jnp.arange(len(left)), card] / jnp.maximum(count, 1)
    return jnp.where(count > 0, share, (card == env.types).astype(share.dtype))


def _number(env: Hanabi, hands: Int[Array, "G H"]) -> Int[Array, " G"]:
    return hands @ (env.types + 1) ** jnp.arange(env.hand - 1, -1, -1)


def _normalised(weights: Belief) -> Belief:
    """Weights of sum 1; all 0 (a move the policy never makes) become even."""
    total = weights.sum()
    return jnp.where(total > 0, weights / jnp.where(total > 0, total, 1), 1 / len(weights))
