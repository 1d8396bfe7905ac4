"""Games as trees against closed forms, published values, and brute force over all pure policies."""

from itertools import product

import numpy as np
import pytest

from polyact.envs.games.classics import kuhn, leduc, matrix_game, private_cards
from polyact.envs.games.solve import action_values, best_response, exploitability, nash_conv, reach, state_weights, values
from polyact.envs.games.tree import Chance, Choice, Tree, build
from polyact.errors import PolyactError

KUHN, LEDUC = kuhn(), leduc()


def random_policy(tree: Tree, seed: int) -> np.ndarray:
    weights = np.random.default_rng(seed).exponential(size=tree.legal.shape) * tree.legal
    return weights / weights.sum(1, keepdims=True)


def kuhn_equilibrium(share: float) -> np.ndarray:
    """The family of equilibria with one parameter, 0 .. 1/3 (Kuhn 1950)."""
    bet = {
        (0, (0, "")): share,
        (0, (1, "")): 0,
        (0, (2, "")): 3 * share,
        (0, (0, "pb")): 0,
        (0, (1, "pb")): share + 1 / 3,
        (0, (2, "pb")): 1,
        (1, (0, "p")): 1 / 3,
        (1, (1, "p")): 0,
        (1, (2, "p")): 1,
        (1, (0, "b")): 0,
        (1, (1, "b")): 1 / 3,
        (1, (2, "b")): 1,
    }
    rows = [bet[owner, name] for owner, name in zip(KUHN.owner.tolist(), KUHN.names, strict=True)]
    return np.stack([1 - np.array(rows, float), np.array(rows, float)], 1)


@pytest.mark.parametrize("share", [0.0, 0.2, 1 / 3])
def test_kuhns_equilibria_have_no_gap_and_the_known_value(share: float):
    policy = kuhn_equilibrium(share)
    assert values(KUHN, policy)[0, 0] == pytest.approx(-1 / 18, abs=1e-12)
    assert nash_conv(KUHN, policy) == pytest.approx(0, abs=1e-12)


def test_sizes_and_gaps_of_uniform_play_are_the_published_ones():
    assert (len(KUHN.owner), len(LEDUC.owner)) == (12, 288)
    assert exploitability(KUHN, KUHN.uniform()) == pytest.approx(11 / 24, abs=1e-12)
    assert nash_conv(LEDUC, LEDUC.uniform()) == pytest.approx(4.747222, abs=1e-6)


@pytest.mark.parametrize("tree", [KUHN, LEDUC], ids=["kuhn", "leduc"])
def test_zero_sum_games_are_zero_sum_and_reach_is_a_probability(tree: Tree):
    policy = random_policy(tree, 0)
    np.testing.assert_allclose(values(tree, policy).sum(1), 0, atol=1e-12)
    ends = tree.player == -2
    chances = reach(tree, policy).prod(1)[ends]
    assert chances.sum() == pytest.approx(1, abs=1e-12)
    assert chances @ tree.payoff[ends, 0] == pytest.approx(values(tree, policy)[0, 0], abs=1e-12)


def test_a_best_response_is_the_best_of_all_pure_policies():
    policy = random_policy(KUHN, 1)
    for player in (0, 1):
        mine = np.flatnonzero(KUHN.owner == player)
        best = -np.inf
        for choice in product((0, 1), repeat=len(mine)):
            pure = policy.copy()
            pure[mine] = np.eye(2)[list(choice)]
            best = max(best, values(KUHN, pure)[0, player])
        response, value = best_response(KUHN, policy, player)
        assert value == pytest.approx(best, abs=1e-12)
        assert values(KUHN, response)[0, player] == pytest.approx(best, abs=1e-12)


def test_action_values_average_to_the_value_of_the_state():
    """In a game with one decision for each player, sum over states of P(h) <policy, q> is the game's value."""
    payoff = np.random.default_rng(2).normal(size=(2, 3, 2, 2))
    tree = private_cards(payoff)
    policy = random_policy(tree, 3)
    gains = action_values(tree, policy)
    first = tree.owner == 0
    cards = np.array(list(tree.names), int)
    mean = np.einsum("cdab,ca,db->ca", payoff, np.ones((2, 2)), policy[~first][np.argsort(cards[~first])]) / 3
    np.testing.assert_allclose(gains[first][np.argsort(cards[first])], mean, atol=1e-12)
    assert (policy * gains)[first].sum(1).mean() == pytest.approx(values(tree, policy)[0, 0], abs=1e-12)


def test_the_posterior_is_bayes_rule_by_enumeration():
    """Second player of Kuhn with card 1 after a bet: the first has 0 or 2, weighted by how often each bets."""
    policy = random_policy(KUHN, 4)
    numbers = {pair: i for i, pair in enumerate(zip(KUHN.owner.tolist(), KUHN.names, strict=True))}
    bets = np.array([policy[numbers[0, (card, "")], 1] for card in (0, 2)])
    nodes = np.flatnonzero(KUHN.state == numbers[1, (1, "b")])
    np.testing.assert_allclose(np.sort(state_weights(KUHN, policy)[nodes]), np.sort(bets / bets.sum()), atol=1e-12)


def test_a_matrix_game_by_hand():
    rows = np.array([[0.0, -1, 2], [1, 0, -1], [-2, 1, 0]])
    tree = matrix_game(rows)
    policy = np.array([[0.2, 0.3, 0.5], [0.1, 0.6, 0.3]])
    assert values(tree, policy)[0, 0] == pytest.approx(policy[0] @ rows @ policy[1])
    assert nash_conv(tree, policy) == pytest.approx((rows @ policy[1]).max() - (policy[0] @ rows).min())
    np.testing.assert_allclose(action_values(tree, policy), [rows @ policy[1], -policy[0] @ rows])
    assert nash_conv(tree, np.tile([0.25, 0.5, 0.25], (2, 1))) == pytest.approx(0, abs=1e-12)


def test_games_and_policies_that_make_no_sense_are_refused():
    forgetful = Choice(0, "a", (0, 1), lambda k: Choice(0, "b", (0, 1), lambda j: (k * j,)))
    with pytest.raises(PolyactError, match="perfect recall"):
        nash_conv(build(forgetful, 1, 2), np.full((2, 2), 0.5))
    with pytest.raises(PolyactError, match="different depths"):
        build(Choice(0, "a", (0,), lambda k: Choice(0, "a", (0,), lambda j: (0,))), 1, 1)
    with pytest.raises(PolyactError, match="different legal actions"):
        build(Chance([0.5, 0.5], lambda k: Choice(0, "a", (0, 1)[: k + 1], lambda j: (0,))), 1, 2)
    with pytest.raises(PolyactError, match="legal actions"):
        values(LEDUC, np.full(LEDUC.legal.shape, 1 / 3))
    with pytest.raises(PolyactError, match=r"shape \(12, 2\), got \(2, 12\)"):
        values(KUHN, np.ones((2, 12)))
