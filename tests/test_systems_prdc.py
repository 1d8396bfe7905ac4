"""The dataset constraint in its limits: exact pairs, own states, neighbours; and the line world, whose best policy is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.data.episodes import Episodes
from polyact.data.source import Source
from polyact.errors import PolyactError
from polyact.learning.td3 import CloneActions
from polyact.policies.spec import Spec
from polyact.spaces import Box
from polyact.systems.offline.prdc import CELLS, Sizes, _line, dataset_constraint

GENERATOR = np.random.default_rng(0)
OBSERVATION, ACTION = GENERATOR.normal(size=(60, 2)), GENERATOR.uniform(-2, 2, (60, 1))
LENGTHS = np.array([25, 35])
ROWS = np.insert(OBSERVATION, [25, 60], 9.0, axis=0)
DATA = Source(Episodes(LENGTHS, ROWS, ACTION, np.zeros(60)), "data", Box(-9, 9, (2,)), Box(-2, 2, (1,)))
BODY = Spec.from_sources([DATA], 1).body
FEATURES = jax.vmap(BODY.features)(jnp.asarray(OBSERVATION, jnp.float32))
UNIT = jax.vmap(BODY.to_unit)(jnp.asarray(ACTION, jnp.float32))


def test_keys_are_scaled_features_and_raw_unit_actions():
    constraint = dataset_constraint(DATA, 2.0)
    np.testing.assert_allclose(constraint.keys, jnp.concatenate([2 * FEATURES, UNIT], 1), atol=1e-6)


def test_recorded_pairs_cost_nothing():
    assert float(dataset_constraint(DATA, 2.0)(FEATURES, UNIT, UNIT)) == 0


def test_large_beta_is_cloning_of_the_own_action():
    proposed = jnp.clip(UNIT + 0.7, -1, 1)
    constraint = dataset_constraint(DATA, 1e4)
    np.testing.assert_array_equal(constraint.targets(FEATURES, proposed), UNIT)
    assert float(constraint(FEATURES, proposed, UNIT)) == pytest.approx(float(CloneActions()(FEATURES, proposed, UNIT)))


def test_small_beta_is_the_nearest_action_whatever_the_state():
    proposed = jnp.linspace(-1, 1, 60)[:, None]
    targets = dataset_constraint(DATA, 1e-4).targets(FEATURES, proposed)
    nearest = np.abs(np.asarray(UNIT)[None, :, 0] - np.asarray(proposed)).min(1)
    np.testing.assert_allclose(np.abs(targets - proposed)[:, 0], nearest, atol=1e-4)


def test_no_gradient_passes_through_the_search():
    constraint = dataset_constraint(DATA, 2.0)
    proposed = UNIT + 0.1
    found = jax.grad(lambda unit: constraint(FEATURES, unit, UNIT))(proposed)
    np.testing.assert_allclose(found, 2 * (proposed - constraint.targets(FEATURES, proposed)) / 60, atol=1e-6)


def test_beta_must_be_positive():
    with pytest.raises(PolyactError, match="beta must be positive, got 0"):
        dataset_constraint(DATA, 0)


def test_on_the_line_good_actions_were_recorded_in_even_cells_only_and_are_borrowed():
    """Cloning in an odd cell is told to go back; a policy that goes forward is told to go on as in the cells beside."""
    task = _line(jax.random.key(0), Sizes(2000, 1, 1))
    position = np.asarray(task.data.episodes.observation)[::2, 0]
    odd = np.floor(position * CELLS) % 2 == 1
    np.testing.assert_array_equal(np.sign(task.data.episodes.action[:, 0]), np.where(odd, -1, 1))
    body = Spec.from_sources([task.data], 1).body
    middles = jnp.asarray([[(cell + 0.5) / CELLS] for cell in range(CELLS)], jnp.float32)
    forward = jnp.full((CELLS, 1), 0.3)
    features = jax.vmap(body.features)(middles)
    targets = dataset_constraint(task.data, 2.0).targets(features, forward)
    assert float(jnp.abs(targets - 0.3).max()) < 0.11
    own = dataset_constraint(task.data, 100.0).targets(features, forward)
    assert np.sign(own[:, 0]).tolist() == [1, -1] * (CELLS // 2)
    assert (task.expert_return > 0.9, task.random_return < 0.2) == (True, True)
