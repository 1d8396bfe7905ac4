"""Hanabi's rules by hand and by invariants; beliefs against Bayes' rule by enumerating every deck."""

from itertools import permutations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact import spaces
from polyact.envs.games.hanabi import Hanabi, Table, shuffled, unseen
from polyact.envs.games.hanabi_belief import first_belief, guesses, updated
from polyact.errors import PolyactError

GAME = Hanabi(most_lives=3)
TINY = Hanabi(colours=1, ranks=3, hand=2, most_hints=2, most_lives=2)
step = eqx.filter_jit(lambda env, table, action: env.step(table, action, jax.random.key(0)))
update = eqx.filter_jit(updated)
legal = eqx.filter_jit(lambda env, table: env.legal(table))
left_over = eqx.filter_jit(unseen)


def dealt(env: Hanabi, deck: list) -> Table:
    table = env.reset(jax.random.key(0))[0]
    cards = jnp.asarray(deck, jnp.int32)
    hands = cards[: 2 * env.hand].reshape(2, env.hand)
    return eqx.tree_at(lambda t: (t.deck, t.hands), table, (cards, hands))


def test_a_game_by_hand():
    """Cards 0-2 are colour 0 by rank, 3-5 colour 1."""
    table = dealt(GAME, [0, 3, 1, 4, 2, 5, 0, 0, 1, 3, 3, 4])
    assert not GAME.legal(table)[:2].any()  # all hints are there: no discards
    table, first = step(GAME, table, jnp.asarray(2))
    assert (float(first.reward), table.fireworks.tolist(), table.hands[0].tolist()) == (1.0, [1, 0], [2, 3])
    table, _ = step(GAME, table, jnp.asarray(6))  # the second player hints rank 0: card 3 in slot 1
    assert table.possible[0].tolist() == [[False, True, True] * 2, [True, False, False] * 2]
    assert int(table.hints) == 2
    table, _ = step(GAME, table, jnp.asarray(8 - 2))  # nobody of the second player's cards has rank 0: forbidden, the game is lost
    assert (bool(table.over), int(GAME.score(table))) == (True, 0)


def test_a_wrong_card_costs_a_life_and_the_score_with_the_last():
    table = dealt(TINY, [0, 2, 1, 0, 0, 1])
    table, _ = step(TINY, table, jnp.asarray(2))
    table, wrong = step(TINY, table, jnp.asarray(3))
    assert (float(wrong.reward), int(table.lives), table.discards.tolist()) == (0.0, 1, [1, 0, 0])
    table, last = step(TINY, table, jnp.asarray(3))
    assert (float(last.reward), bool(table.over)) == (-1.0, True)


def random_game(env: Hanabi, seed: int) -> list:
    rng, table, tables = np.random.default_rng(seed), env.reset(jax.random.key(seed))[0], []
    while not table.over:
        tables.append(table)
        action = rng.choice(np.flatnonzero(legal(env, table)))
        table, _ = step(env, table, jnp.asarray(int(action)))
    return [*tables, table]


@pytest.mark.parametrize("seed", range(4))
def test_no_card_is_lost_and_every_game_ends_in_time(seed: int):
    tables = random_game(GAME, seed)
    assert len(tables) <= GAME.horizon + 1
    for table in tables:
        left = left_over(GAME, table, table.hands)
        np.testing.assert_array_equal(left, np.bincount(np.asarray(table.deck[table.drawn :]), minlength=6))
        for player in (0, 1):
            for card, possible in zip(table.hands[player].tolist(), np.asarray(table.possible[player]), strict=True):
                assert card == GAME.types or possible[card]


def test_observations_are_in_their_space_and_do_not_show_the_own_hand():
    table = random_game(GAME, 1)[1]
    seen = GAME.observe(table)
    shapes = {name: space.shape for name, space in GAME.observation_space.spaces.items()}
    assert {name: part.shape for name, part in seen.items()} == shapes
    other = eqx.tree_at(lambda t: t.hands, table, table.hands.at[table.mover].set(jnp.array([5, 0])))
    np.testing.assert_array_equal(seen["features"], GAME.observe(other)["features"])


def test_beliefs_are_bayes_rule_over_all_decks():
    """One colour, six cards: all 60 decks, weighted by how likely the policy made the moves, less those that a player saw were not so."""
    table = dealt(TINY, [0, 1, 0, 2, 1, 0])
    weights = 0.3 * jax.random.normal(jax.random.key(3), (TINY.observe(table)["features"].shape[0], TINY.actions))

    def policy(observation):
        return jax.nn.log_softmax(jnp.where(observation["action_mask"] > 0, observation["features"] @ weights, -1e9))

    chance = eqx.filter_jit(lambda world, action: jnp.exp(policy(TINY.observe(world))[action]))
    decks = sorted(set(permutations([0, 0, 0, 1, 1, 2])))
    seen_by = [
        [(world, 1.0) for world in (dealt(TINY, list(d)) for d in decks) if alike(player, world, table)] for player in (0, 1)
    ]
    beliefs = jnp.stack([first_belief(TINY, table, player) for player in (0, 1)])
    for action in (2, 6, 0, 2):  # plays the lowest, hints rank 1, discards, plays
        act = jnp.asarray(action)
        assert legal(TINY, table)[action]
        beliefs = update(TINY, policy, table, act, beliefs)
        table = step(TINY, table, act)[0]
        for player in (0, 1):
            moved = [(step(TINY, world, act)[0], p * float(chance(world, act))) for world, p in seen_by[player]]
            seen_by[player] = [(world, p) for world, p in moved if alike(player, world, table)]
            expected = np.zeros(len(guesses(TINY)))
            for world, p in seen_by[player]:
                expected[(guesses(TINY) == np.asarray(world.hands[player])).all(1)] += p
            np.testing.assert_allclose(beliefs[player], expected / expected.sum(), atol=1e-5)


def alike(player: int, world: Table, table: Table) -> bool:
    """Whether a world looks like the table to a player: the other's hand, all hints, and what lies open."""
    open_to_all = ("possible", "fireworks", "discards", "lives", "hints", "drawn")
    same = [bool((getattr(world, name) == getattr(table, name)).all()) for name in open_to_all]
    return all(same) and bool((world.hands[1 - player] == table.hands[1 - player]).all())


def test_a_shuffle_keeps_hands_that_fit_and_all_cards():
    table = random_game(GAME, 2)[2]
    hand = jnp.asarray(guesses(GAME)[int(jnp.argmax(eqx.filter_jit(first_belief)(GAME, table, 0)))])
    other = eqx.filter_jit(shuffled)(GAME, table, 0, hand, jax.random.key(5))
    assert other.hands[0].tolist() == hand.tolist()
    np.testing.assert_array_equal(
        np.bincount(np.asarray(other.deck[other.drawn :]), minlength=6), left_over(GAME, other, other.hands)
    )


def test_games_that_cannot_be_dealt_are_refused():
    with pytest.raises(PolyactError, match="leave no deck"):
        Hanabi(colours=1, hand=3)
    with pytest.raises(PolyactError, match="two ranks"):
        Hanabi(ranks=1)
    assert isinstance(GAME.action_space, spaces.Discrete)
