"""The five kinds of data and their measures, in a world where values are exact."""

import jax
import numpy as np
import pytest

from polyact.data.measures import Grid, coverage_ratio, trajectory_quality, unique_pairs
from polyact.envs import exact
from polyact.systems.offline.saco_tq import _worlds, five_kinds, online_q

WORLD = _worlds()["maze"]
KINDS = five_kinds(WORLD, 4000, 2000, jax.random.key(0))
DATA, LOW, HIGH = KINDS.sets, exact.finite_return(WORLD, KINDS.random), exact.finite_return(WORLD, KINDS.best)


def test_all_kinds_have_the_same_number_of_steps():
    assert {name: episodes.steps for name, episodes in DATA.items()} == dict.fromkeys(DATA, 2000)
    assert set(DATA) == {"random", "mixed", "replay", "noisy", "expert"}


def test_quality_is_zero_for_random_and_one_for_expert_data():
    assert trajectory_quality(DATA["random"], LOW, HIGH) == pytest.approx(0, abs=0.05)
    assert trajectory_quality(DATA["expert"], LOW, HIGH) == pytest.approx(1, abs=1e-3)
    assert pytest.approx(exact.solve_finite(WORLD, WORLD.horizon)[0][0] @ np.asarray(WORLD.initial)) == HIGH


def test_coverage_of_what_was_seen_is_one_and_the_expert_sees_least():
    found = {name: coverage_ratio(episodes, KINDS.seen) for name, episodes in DATA.items()}
    assert coverage_ratio(KINDS.seen, KINDS.seen) == 1
    assert 0.5 < found["replay"] < 1
    assert min(found, key=found.__getitem__) == "expert"
    rows = np.arange(2000) + np.repeat(np.arange(DATA["noisy"].count), DATA["noisy"].lengths)
    pairs = set(zip(DATA["noisy"].observation[rows].tolist(), DATA["noisy"].action.tolist(), strict=True))
    assert unique_pairs(DATA["noisy"], Grid.of(KINDS.seen)) == len(pairs)


def test_recorded_steps_follow_the_world():
    """Every recorded step of the online learner is one that the tables allow, with its reward and its end."""
    values, seen = online_q(WORLD, 500, 0.95, np.random.default_rng(0))
    rows = np.arange(500) + np.repeat(np.arange(seen.count), seen.lengths)
    state, after = seen.observation[rows], seen.observation[rows + 1]
    np.testing.assert_array_equal(np.asarray(WORLD.transition)[state, seen.action, after], 1)
    np.testing.assert_allclose(seen.reward, np.asarray(WORLD.reward)[state, seen.action, after], atol=1e-6)
    np.testing.assert_array_equal(seen.terminated, np.asarray(WORLD.terminal)[after])
    assert values.shape == (WORLD.states, WORLD.actions)
