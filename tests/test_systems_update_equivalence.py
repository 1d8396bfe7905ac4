"""Mirror-descent search against formulas, limits and enumeration; what one soft update must never do."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.envs.games.classics import kuhn, leduc, matrix_game, private_cards
from polyact.envs.games.hanabi import Hanabi
from polyact.envs.games.hanabi_belief import first_belief, guesses
from polyact.envs.games.hanabi_rollouts import rollout_values
from polyact.envs.games.solve import action_values, exploitability, nash_conv, values
from polyact.errors import PolyactError
from polyact.systems.society.update_equivalence import RING, greedy, improved, played_out, sampled_action_values, search

KUHN, LEDUC = kuhn(), leduc()
RNG = np.random.default_rng(0)


def random_policy(tree, seed: int) -> np.ndarray:
    weights = np.random.default_rng(seed).exponential(size=tree.legal.shape) * tree.legal
    return weights / weights.sum(1, keepdims=True)


def test_search_with_exact_values_is_the_mirror_step():
    payoff = RNG.normal(size=(3, 3, 3, 3))
    tree = private_cards(payoff)
    policy = random_policy(tree, 1)
    order = [int(np.flatnonzero((tree.owner == 0) & (np.array(list(tree.names)) == card))[0]) for card in range(3)]
    other = [int(np.flatnonzero((tree.owner == 1) & (np.array(list(tree.names)) == card))[0]) for card in range(3)]
    gain = np.einsum("cdab,db->ca", payoff, policy[other]) / 3
    weights = policy[order] * np.exp(2.0 * gain)
    np.testing.assert_allclose(search(tree, policy, 2.0)[order], weights / weights.sum(1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("tree", [KUHN, LEDUC], ids=["kuhn", "leduc"])
def test_limits(tree):
    policy, gain = random_policy(tree, 2), action_values(tree, random_policy(tree, 2))
    np.testing.assert_allclose(search(tree, policy, 0.0, 0.3), policy, atol=1e-6)
    np.testing.assert_allclose(search(tree, policy, 0.7, 0.0), search(tree, policy, 0.7), atol=1e-12)
    np.testing.assert_allclose(improved(tree, policy, gain + 5.0, 0.7, 0.1), improved(tree, policy, gain, 0.7, 0.1), atol=1e-6)
    np.testing.assert_allclose(search(tree, policy, 1e6), greedy(tree, policy), atol=1e-5)
    assert np.all(search(tree, policy, 0.7, 0.2)[~tree.legal] == 0)


def test_sampled_values_tend_to_the_exact_ones():
    policy, generator = random_policy(LEDUC, 3), np.random.default_rng(4)
    exact = action_values(LEDUC, policy)
    for state in (0, 40, 200):
        sampled = sampled_action_values(LEDUC, policy, state, 40_000, generator)
        np.testing.assert_allclose(sampled, exact[state], atol=4 * 13 / np.sqrt(40_000))


def test_an_action_the_blueprint_never_plays_stays_unplayed():
    policy = random_policy(KUHN, 5)
    policy[0] = [1, 0]
    np.testing.assert_allclose(search(KUHN, policy, 3.0)[0], [1, 0])


def test_a_small_simultaneous_update_never_lowers_a_common_payoff():
    for _ in range(20):
        tree = private_cards(RNG.uniform(size=(3, 3, 3, 3)))
        policy = random_policy(tree, int(RNG.integers(1000)))
        assert values(tree, search(tree, policy, 0.05))[0, 0] > values(tree, policy)[0, 0]


def test_one_player_alone_may_be_greedy():
    tree = private_cards(RNG.uniform(size=(3, 3, 3, 3)))
    policy = random_policy(tree, 6)
    alone = greedy(tree, policy, (0,))
    np.testing.assert_array_equal(alone[tree.owner == 1], policy[tree.owner == 1])
    assert values(tree, alone)[0, 0] > values(tree, policy)[0, 0]


def test_one_magnetic_update_lowers_the_exploitability_of_uniform_leduc():
    uniform = LEDUC.uniform()
    assert exploitability(LEDUC, search(LEDUC, uniform, 0.2, 0.2)) < exploitability(LEDUC, uniform) - 0.5


def test_the_magnet_turns_a_cycle_into_convergence():
    ring = matrix_game(RING)
    start = np.array([[0.4, 0.3, 0.3], [0.3, 0.3, 0.4]])
    gaps = [nash_conv(ring, played_out(ring, start, 0.2, pull, 300)) for pull in (0.2, 0.0)]
    assert gaps[0] < 0.2 < 1.0 < gaps[1]


def test_negative_strengths_are_refused():
    with pytest.raises(PolyactError, match="must not be negative"):
        search(KUHN, KUHN.uniform(), -1.0)


def test_in_hanabis_last_turn_playing_is_worth_the_chance_that_the_card_fits():
    """Nothing lies on the table, so slot 0 fits if it is of rank 0; a wrong card takes the only life and a score of 0."""
    env = Hanabi(colours=1, ranks=3, hand=2, most_hints=2)
    table = eqx.tree_at(lambda t: t.left, env.reset(jax.random.key(1))[0], jnp.int32(1))
    belief = first_belief(env, table, 0)
    even = jnp.full(env.actions, -jnp.log(float(env.actions)))
    values_of = eqx.filter_jit(lambda key: rollout_values(env, lambda observation: even, table, belief, 3000, key))
    gain = np.asarray(values_of(jax.random.key(2)))
    fits = (guesses(env)[:, :2] == 0).T @ np.asarray(belief)
    np.testing.assert_allclose(gain[2:4], fits, atol=4 * 0.5 / np.sqrt(3000))
    assert gain[4:].max() == 0
