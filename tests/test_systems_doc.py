"""Dichotomy of control where everything can be computed: a bandit, a world without luck, and information from counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.data.episodes import Episodes
from polyact.data.trajectory_counts import Trajectories
from polyact.errors import DataError, PolyactError
from polyact.systems.offline.doc import (
    DoC,
    cloned,
    conditioned_on_return,
    dichotomy,
    information_bound,
    leaked_information,
)

KEY = jax.random.key(0)
BANDIT = DoC(energy_weight=3.0, steps=800)


def pulls(action, reward) -> Episodes:
    """One-step episodes from state 0 to state 1 (nothing won) or 2."""
    action, reward = np.asarray(action), np.asarray(reward, float)
    rows = np.zeros(2 * len(action), int)
    rows[1::2] = 1 + (reward > 0)
    return Episodes(np.ones(len(action), int), rows, action, reward, np.ones(len(action), bool))


def bandit(p: float, thousand: int = 1000) -> Trajectories:
    """Arm 1 is pulled with probability p and pays with 1 - p, arm 0 the other way round, in exactly these shares."""
    counts = {(1, 1): p * (1 - p), (1, 0): p * p, (0, 1): (1 - p) * p, (0, 0): (1 - p) ** 2}
    rows = [pair for pair, share in counts.items() for _ in range(round(share * thousand))]
    return Trajectories.of(pulls(*zip(*rows, strict=True)), 3, 2)


@pytest.mark.parametrize("p", [0.1, 0.2, 0.3])
def test_conditioning_on_reward_is_a_coin_toss_and_the_latent_is_not(p):
    data = bandit(p)
    np.testing.assert_allclose(conditioned_on_return(data, 1.0)[0], [0.5, 0.5], atol=1e-5)
    found = dichotomy(BANDIT, data, KEY)
    chosen = found.choose(0, KEY)
    earned = float(found.policy[chosen, 0] @ jnp.array([p, 1 - p]))
    assert earned >= 0.9 * (1 - p)
    assert float(found.value[0, chosen]) == pytest.approx(earned, abs=0.05)
    assert leaked_information(found.posterior, data) < 1e-2


def test_without_the_constraint_the_latent_remembers_luck():
    data = bandit(0.2)
    found = dichotomy(DoC(energy_weight=0.0, steps=800), data, KEY)
    assert found.value[0, found.choose(0, KEY)] == pytest.approx(1, abs=0.01)
    assert leaked_information(found.posterior, data) > 0.2


def test_without_luck_both_find_the_best_and_agree():
    """Two steps; the return is the number of ones, which only the actions decide."""
    first, second = np.array([0, 0, 1, 1] * 20), np.array([0, 1, 0, 1] * 20)
    count = len(first)
    rows = np.stack([np.zeros(count), 1 + first, 3 + first + second], 1).astype(int).reshape(-1)
    action = np.stack([first, second], 1).reshape(-1)
    ended = np.tile([False, True], count)
    data = Trajectories.of(Episodes(np.full(count, 2), rows, action, action.astype(float), ended), 6, 2)
    found = dichotomy(DoC(steps=800), data, KEY)
    chosen = found.choose(0, KEY)
    assert found.value[0, chosen] == pytest.approx(2, abs=0.1)
    for policy in (found.policy[chosen], conditioned_on_return(data, 2.0)):
        np.testing.assert_allclose(policy[jnp.array([0, 2]), 1], 1, atol=0.05)


def test_information_from_counts_by_hand():
    """Rewards of a fair coin: a latent that is the reward knows log 2 nats, one that is the action nothing, half of it less."""
    data = Trajectories.of(pulls([0, 0, 1, 1], [0, 1, 0, 1]), 3, 2)
    hot = jnp.eye(2)
    of_reward, of_action = hot[jnp.array([0, 1, 0, 1])], hot[jnp.array([0, 0, 1, 1])]
    assert leaked_information(of_reward, data) == pytest.approx(np.log(2), rel=1e-5)
    assert leaked_information(of_action, data) == pytest.approx(0, abs=1e-6)
    mixed = 0.75 * of_reward + 0.25 * (1 - of_reward)
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert leaked_information(mixed, data) == pytest.approx(np.log(2) - entropy, rel=1e-5)


def test_the_bound_is_tight_at_the_log_ratio_and_below_it_elsewhere():
    data = bandit(0.3)
    q = jax.nn.softmax(2.0 * data.outcome @ jax.random.normal(KEY, (2, 3)), axis=1)
    joint = jnp.zeros((6, data.results, 3)).at[data.pair, data.result].add(data.reached.T @ q) / 1000
    marginal = joint.sum((0, 2))
    best = jnp.log(
        jnp.maximum(joint / jnp.maximum(joint.sum(1, keepdims=True), 1e-9), 1e-12) / jnp.maximum(marginal, 1e-9)[:, None]
    )
    exact = jnp.where(joint > 0, joint * best, 0).sum()
    together = joint.sum(2)
    apart = joint.sum((1, 2))[:, None] * marginal
    of_pair = jnp.where(together > 0, together * jnp.log(together / jnp.where(apart > 0, apart, 1)), 0).sum()
    assert information_bound(best, q, data) == pytest.approx(float(exact), abs=1e-5)
    assert float(exact - of_pair) == pytest.approx(float(leaked_information(q, data)), abs=1e-5)
    worse = best + 0.3 * jax.random.normal(KEY, best.shape)
    assert information_bound(worse, q, data) < exact


def test_cloning_counts_actions_of_the_trajectories_asked_for():
    data = Trajectories.of(pulls([0, 0, 0, 1], [0, 0, 1, 1]), 3, 2)
    np.testing.assert_allclose(cloned(data)[0], [0.75, 0.25], atol=1e-6)
    np.testing.assert_allclose(cloned(data, 0.5)[0], [0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(cloned(data)[1], [0.5, 0.5], atol=1e-6)


def test_latents_that_data_of_a_start_never_produce_are_not_chosen():
    found = dichotomy(BANDIT, bandit(0.2), KEY)
    tempting = jnp.argmin(found.prior[0])
    rigged = found.__class__(
        found.posterior, found.policy, found.value.at[0, tempting].set(9.0), found.prior.at[0, tempting].set(1e-9)
    )
    assert rigged.choose(0, KEY) != tempting


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match="need rewards"):
        Trajectories.of(pulls([0], [1]).without("reward"), 3, 2)
    with pytest.raises(PolyactError, match="at least 1, got 0 and 5"):
        DoC(energy_steps=0, steps=5)
