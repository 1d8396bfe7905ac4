"""The frozen lake against Gymnasium's own tables, and its known optimum."""

import gymnasium
import numpy as np
import pytest

from polyact.envs import exact
from polyact.envs.tabular_builders import frozen_lake
from polyact.errors import PolyactError


@pytest.mark.parametrize("slippery", [True, False])
def test_tables_are_those_of_gymnasium(slippery):
    world = frozen_lake(slip=2 / 3 if slippery else 0.0)
    known = gymnasium.make("FrozenLake-v1", is_slippery=slippery).unwrapped.P
    transition, reward = np.zeros((16, 4, 16)), np.zeros((16, 4))
    for state in range(16):
        for action in range(4):
            for probability, after, gained, _ in known[state][action]:
                transition[state, action, after] += probability
                reward[state, action] += probability * gained
    alive = ~np.asarray(world.terminal)
    np.testing.assert_allclose(np.asarray(world.transition)[alive], transition[alive], atol=1e-6)
    np.testing.assert_allclose(exact.model(world).reward[alive], reward[alive], atol=1e-6)
    assert np.flatnonzero(world.terminal).tolist() == [5, 7, 11, 12, 15]


def test_without_a_time_limit_the_best_policy_arrives_14_times_in_17():
    assert exact.value_iteration(frozen_lake(), 1.0).values[0] == pytest.approx(14 / 17, abs=1e-6)


def test_a_lake_without_a_goal_is_refused():
    with pytest.raises(PolyactError, match="with an S and a G"):
        frozen_lake("SFF\nFHF")
