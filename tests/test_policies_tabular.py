"""A table of probabilities acts with exactly these."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.acting.rollout import rollout
from polyact.envs import exact
from polyact.envs.tabular_builders import combination_lock
from polyact.errors import PolyactError
from polyact.policies.tabular import tabular_policy


def test_probabilities_are_those_of_the_table():
    world = combination_lock(3, 2)
    table = np.array([[0.25, 0.75], [1.0, 0.0], [0.5, 0.5], [0.1, 0.9]])
    policy = tabular_policy(world, table)
    found = [[float(jnp.exp(policy.log_prob(jnp.asarray(s), jnp.asarray(a)))) for a in range(2)] for s in range(4)]
    np.testing.assert_allclose(found, table, atol=1e-6)


def test_the_optimal_table_opens_the_lock():
    world = combination_lock(5, 3, seed=2)
    best = exact.value_iteration(world, 0.9).policy
    played = rollout(tabular_policy(world, best), world, episodes=4, key=jax.random.key(0))
    assert played.lengths.tolist() == [5] * 4
    assert played.returns.tolist() == [1] * 4
    with pytest.raises(PolyactError, match=r"has shape \(6, 3\), got \(5, 3\)"):
        tabular_policy(world, best[:5])
