"""Trajectory weighting: the behaviour that data seem to come from, in a world where that is known."""

import jax
import numpy as np
import pytest

from polyact.acting.rollout import rollout
from polyact.data.episodes import concatenate
from polyact.data.trajectory_weights import trajectory_weights, weighted_behaviour
from polyact.envs import exact
from polyact.envs.tabular import Tabular
from polyact.errors import PolyactError
from polyact.policies.tabular import tabular_policy
from polyact.systems.offline.trajectory_weighting import mixture


def fork() -> Tabular:
    """Deterministic, one start: from 0 to 1 or 2, from each of them to the end, with four different returns."""
    transition, reward = np.zeros((4, 2, 4)), np.zeros((4, 2))
    transition[0, 0, 1] = transition[0, 1, 2] = 1
    transition[1:, :, 3] = 1
    reward[1], reward[2] = [1.0, 3.0], [0.0, 10.0]
    return Tabular(transition, reward, np.eye(4)[0], np.eye(4)[3] > 0, horizon=10)


WORLD = fork()
PLAYED = rollout(tabular_policy(WORLD, np.full((4, 2), 0.5)), WORLD, episodes=60, key=jax.random.key(0))


@pytest.mark.parametrize("alpha", [0.05, 0.3, 1e6])
def test_the_seeming_behaviour_earns_the_weighted_mean_return(alpha):
    """Every state is reached by one path, so its counts are those of whole trajectories and the returns mix in the same shares."""
    weights = trajectory_weights(PLAYED.returns, alpha)
    policy = weighted_behaviour(PLAYED, weights, 4, 2)
    expected = weights @ PLAYED.returns / weights.sum()
    assert exact.expected_return(WORLD, policy, 1.0) == pytest.approx(expected, rel=1e-6)


def test_small_alpha_is_the_best_trajectory():
    policy = weighted_behaviour(PLAYED, trajectory_weights(PLAYED.returns, 1e-3), 4, 2)
    np.testing.assert_allclose(policy[[0, 2]], [[0, 1], [0, 1]], atol=1e-12)


def test_states_nobody_saw_are_uniform_and_weights_must_fit():
    only = PLAYED.select([int(np.argmax(PLAYED.returns))])
    np.testing.assert_array_equal(weighted_behaviour(only, np.ones(1), 4, 2)[1], [0.5, 0.5])
    with pytest.raises(PolyactError, match="60 episodes need as many weights, got 1"):
        weighted_behaviour(PLAYED, np.ones(1), 4, 2)


def test_a_mixture_has_the_share_and_the_steps_asked_for():
    found = mixture(PLAYED, concatenate([PLAYED, PLAYED]), 0.25, 80)
    assert found.count == 40
    assert found.steps == 80
    assert mixture(PLAYED, PLAYED, 0.0, 80).count == 40
    with pytest.raises(PolyactError, match="too few for 1000 steps"):
        mixture(PLAYED, PLAYED, 0.5, 1000)
