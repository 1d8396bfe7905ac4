"""Hanabi for two players, of any size: everybody sees only the other's cards and talks only by hints.

As an environment it is self-play: the observation is that of the player whose turn it is, the reward is common, and one policy acts for
both. The deck is shuffled at the reset; nothing else is random. Rules: Bard et al. 2020 (arXiv 1902.00506), by default their small
game (2 colours, hands of 2, 3 hints, 1 life) with 3 ranks.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from polyact import spaces
from polyact.envs.base import Env, Step
from polyact.errors import PolyactError
from polyact.spaces import Space


class Table(eqx.Module):
    """What there is: T card types (colour * ranks + rank), hands of H; type T is "no card".

    deck [D] in the order in which it is drawn; drawn: how many are gone. hands [2, H]. possible [2, H, T]: what hints leave open.
    fireworks [C]: height. discards [T]. left: turns after the deck is empty (-1 before).
    """

    deck: Int[Array, " D"]
    drawn: Int[Array, ""]
    hands: Int[Array, "2 H"]
    possible: Bool[Array, "2 H T"]
    fireworks: Int[Array, " C"]
    discards: Int[Array, " T"]
    hints: Int[Array, ""]
    lives: Int[Array, ""]
    mover: Int[Array, ""]
    left: Int[Array, ""]
    over: Bool[Array, ""]


class Hanabi(Env):
    """Actions: discard slot 0 .., play slot 0 .., hint a colour 0 .., hint a rank 0 .. to the other.

    Observation: {"features", "action_mask"}. The reward is the change of the score, which falls to 0 when the last life is lost; an
    action that the rules forbid (a hint without tokens or about no card, a discard with all tokens there) loses the last life at
    once. A card keeps its slot.
    """

    colours: int = eqx.field(static=True, default=2)
    ranks: int = eqx.field(static=True, default=3)
    hand: int = eqx.field(static=True, default=2)
    most_hints: int = eqx.field(static=True, default=3)
    most_lives: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        if min(self.colours, self.ranks, self.hand, self.most_hints, self.most_lives) < 1 or self.ranks < 2:
            raise PolyactError("Hanabi needs at least one colour, two ranks, one card a hand, one hint and one life")
        if len(self.cards) <= 2 * self.hand:
            raise PolyactError(f"hands of {self.hand} leave no deck of {len(self.cards)} cards")

    @property
    def types(self) -> int:
        return self.colours * self.ranks

    @property
    def copies(self) -> np.ndarray:
        """Cards of each type: three of rank 0, one of the highest, two of the others."""
        return np.tile([3, *[2] * (self.ranks - 2), 1], self.colours)

    @property
    def cards(self) -> np.ndarray:
        """The types of all cards, sorted."""
        return np.repeat(np.arange(self.types), self.copies)

    @property
    def actions(self) -> int:
        return 2 * self.hand + self.colours + self.ranks

    @property
    def horizon(self) -> int:
        """No game takes more turns: every hint needs a token, every other turn but the last two takes a card from the deck."""
        draws = len(self.cards) - 2 * self.hand
        return self.most_hints + draws + self.colours + draws + 2

    @property
    def observation_space(self) -> Space:
        width = self.hand * (self.types + 1) + 2 * self.hand * self.types + self.colours * (self.ranks + 1)
        width += self.types + self.most_hints + self.most_lives + 3
        return spaces.Dict(
            {
                "features": spaces.Box(0, 1, (width,)),
                "action_mask": spaces.MultiBinary(self.actions),
            }
        )

    @property
    def action_space(self) -> Space:
        return spaces.Discrete(self.actions)

    def reset(self, key: PRNGKeyArray) -> tuple[Table, dict[str, Array]]:
        deck = jax.random.permutation(key, jnp.asarray(self.cards, jnp.int32))
        hands = deck[: 2 * self.hand].reshape(2, self.hand)
        table = Table(
            deck,
            jnp.int32(2 * self.hand),
            hands,
            jnp.ones((2, self.hand, self.types), bool),
            jnp.zeros(self.colours, jnp.int32),
            jnp.zeros(self.types, jnp.int32),
            jnp.int32(self.most_hints),
            jnp.int32(self.most_lives),
            jnp.int32(0),
            jnp.int32(-1),
            jnp.asarray(False),
        )
        return table, self.observe(table)

    def step(self, state: Table, action: Int[Array, ""], key: PRNGKeyArray) -> tuple[Table, Step]:
        new = jax.tree.map(lambda a, b: jnp.where(self.legal(state)[action], a, b), self._moved(state, action), self._lost(state))
        new = jax.tree.map(lambda a, b: jnp.where(state.over, b, a), new, state)
        reward = (self.score(new) - self.score(state)).astype(jnp.float32)
        return new, Step(self.observe(new), reward, new.over, jnp.asarray(False), {})

    def score(self, table: Table) -> Int[Array, ""]:
        """Cards on the table; 0 without a life."""
        return jnp.where(table.lives > 0, table.fireworks.sum(), 0)

    def legal(self, table: Table) -> Bool[Array, " A"]:
        own, other = table.hands[table.mover], table.hands[1 - table.mover]
        held = own < self.types
        present = (other[:, None] == jnp.arange(self.types)).any(0).reshape(self.colours, self.ranks)
        hints = jnp.concatenate([present.any(1), present.any(0)]) & (table.hints > 0)
        return jnp.concatenate([held & (table.hints < self.most_hints), held, hints])

    def observe(self, table: Table) -> dict[str, Array]:
        """The view of the player whose turn it is: the other's cards, what hints say to both, and what lies open."""
        other = table.hands[1 - table.mover]
        parts = [
            jax.nn.one_hot(other, self.types + 1).ravel(),
            table.possible[table.mover].ravel(),
            table.possible[1 - table.mover].ravel(),
            jax.nn.one_hot(table.fireworks, self.ranks + 1).ravel(),
            table.discards / self.copies,
            jnp.arange(self.most_hints) < table.hints,
            jnp.arange(self.most_lives) < table.lives,
            jnp.stack([table.drawn / len(self.cards), table.left == 2, table.left == 1]),
        ]
        features = jnp.concatenate([part.astype(jnp.float32) for part in parts])
        return {"features": features, "action_mask": self.legal(table).astype(jnp.int8)}

    def touched(self, hand: Int[Array, " H"], action: Int[Array, ""]) -> Bool[Array, " H"]:
        """Which cards a hint points at."""
        about = action - 2 * self.hand
        return jnp.where(about < self.colours, hand // self.ranks == about, hand % self.ranks == about - self.colours) & (
            hand < self.types
        )

    def _moved(self, table: Table, action: Int[Array, ""]) -> Table:
        own = action < 2 * self.hand
        new = jax.tree.map(lambda a, b: jnp.where(own, a, b), self._carded(table, action), self._hinted(table, action))
        empty = new.drawn >= len(self.cards)
        left = jnp.where(table.left > 0, table.left - 1, jnp.where(empty & (table.left < 0), 2, table.left))
        done = (new.lives == 0) | (left == 0) | (new.fireworks.sum() == self.types)
        return eqx.tree_at(lambda t: (t.mover, t.left, t.over), new, (1 - table.mover, left, done))

    def _carded(self, table: Table, action: Int[Array, ""]) -> Table:
        """A card of one's own is played or discarded, and another drawn."""
        slot, playing = action % self.hand, action >= self.hand
        card = table.hands[table.mover, slot]
        colour, rank = card // self.ranks, card % self.ranks
        fits = playing & (table.fireworks[colour] == rank)
        height = table.fireworks.at[colour].add(fits.astype(int))
        complete = fits & (rank == self.ranks - 1)
        tokens = jnp.minimum(table.hints + (~playing | complete), self.most_hints)
        following = jnp.append(table.deck, self.types)[jnp.minimum(table.drawn, len(self.cards))]
        return eqx.tree_at(
            lambda t: (t.drawn, t.hands, t.possible, t.fireworks, t.discards, t.hints, t.lives),
            table,
            (
                jnp.minimum(table.drawn + 1, len(self.cards)),
                table.hands.at[table.mover, slot].set(following),
                table.possible.at[table.mover, slot].set(True),
                height,
                table.discards.at[card].add((~fits).astype(int)),
                tokens,
                table.lives - (playing & ~fits),
            ),
        )

    def _hinted(self, table: Table, action: Int[Array, ""]) -> Table:
        about = action - 2 * self.hand
        kinds = jnp.arange(self.types)
        named = jnp.where(about < self.colours, kinds // self.ranks == about, kinds % self.ranks == about - self.colours)
        other = 1 - table.mover
        says = jnp.where(self.touched(table.hands[other], action)[:, None], named, ~named)
        return eqx.tree_at(
            lambda t: (t.possible, t.hints), table, (table.possible.at[other].set(table.possible[other] & says), table.hints - 1)
        )

    def _lost(self, table: Table) -> Table:
        return eqx.tree_at(lambda t: (t.lives, t.over), table, (jnp.zeros_like(table.lives), jnp.asarray(True)))


def shuffled(env: Hanabi, table: Table, player: Any, hand: Int[Array, " H"], key: PRNGKeyArray) -> Table:
    """The table as it would be had `player` this hand: the cards nobody holds in a random order in the rest of the deck."""
    hands = table.hands.at[player].set(hand)
    left = unseen(env, table, hands)
    number = jnp.asarray(np.concatenate([np.arange(count) for count in env.copies]))
    inside = number < left[env.cards]
    order = jnp.argsort(jnp.where(inside, jax.random.uniform(key, inside.shape), 2.0))
    place = jnp.arange(len(env.cards)) - table.drawn
    deck = jnp.where(place >= 0, jnp.asarray(env.cards)[order][jnp.maximum(place, 0)], table.deck)
    return eqx.tree_at(lambda t: (t.hands, t.deck), table, (hands, deck))


def unseen(env: Hanabi, table: Table, hands: Int[Array, "2 H"]) -> Int[Array, " T"]:
    """How many cards of each type are left for the deck when these are the hands (negative: impossible hands)."""
    played = (jnp.arange(env.ranks) < table.fireworks[:, None]).ravel()
    held = (hands[..., None] == jnp.arange(env.types)).sum((0, 1))
    return jnp.asarray(env.copies) - table.discards - played - held
