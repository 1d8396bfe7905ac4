"""Robust solutions against linear programming, enumeration and the limit without an adversary."""

from itertools import product

import numpy as np
import pytest
from scipy.optimize import linprog

from polyact.envs import exact
from polyact.envs.exact_robust import nominal, robust_value_iteration, robust_values, values_under, worst_rows
from polyact.envs.tabular import Tabular
from polyact.envs.tabular_builders import garnet, windy_grid
from polyact.errors import PolyactError

WORLD = garnet(4, 2, 3, 1)
RADIUS = np.random.default_rng(0).uniform(0.1, 0.6, (4, 2))


def by_program(row: np.ndarray, radius: float, gain: np.ndarray) -> float:
    """The smallest expected gain in the ball, by linear programming over (p, |p - row|)."""
    count = len(row)
    eye = np.eye(count)
    limits = np.concatenate([np.block([[eye, -eye], [-eye, -eye]]), np.concatenate([np.zeros(count), np.ones(count)])[None]])
    bounds = [(0, 1 if mass > 0 else 0) for mass in row] + [(0, None)] * count
    total = np.concatenate([np.ones(count), np.zeros(count)])[None]
    found = linprog(np.concatenate([gain, 0 * gain]), limits, np.concatenate([row, -row, [radius]]), total, [1.0], bounds)
    return found.fun


def test_worst_rows_are_those_of_linear_programming():
    base, gain = nominal(WORLD), np.random.default_rng(1).normal(size=(4, 2, 4))
    for radius in (RADIUS, 4 * RADIUS):
        found = worst_rows(base, radius, gain)
        np.testing.assert_allclose(found.sum(-1), 1)
        assert found.min() >= 0
        assert np.all(found[base == 0] == 0)
        for s, a in product(range(4), range(2)):
            assert found[s, a] @ gain[s, a] == pytest.approx(by_program(base[s, a], radius[s, a], gain[s, a]), abs=1e-9)


def test_without_an_adversary_it_is_value_iteration():
    plain = exact.policy_iteration(WORLD, 0.9)
    robust = robust_value_iteration(WORLD, np.zeros((4, 2)), 0.9)
    np.testing.assert_allclose(robust.values, plain.values, atol=1e-8)
    np.testing.assert_array_equal(robust.policy, plain.policy)


def test_the_best_robust_policy_is_the_best_of_all_deterministic_ones():
    best = robust_value_iteration(WORLD, RADIUS, 0.9)
    each = [robust_values(WORLD, np.eye(2)[list(choice)], RADIUS, 0.9).values for choice in product(range(2), repeat=4)]
    np.testing.assert_allclose(best.values, np.max(each, axis=0), atol=1e-8)
    np.testing.assert_allclose(best.values, robust_values(WORLD, best.policy, RADIUS, 0.9).values, atol=1e-8)


def test_robust_values_are_those_under_a_kernel_than_which_none_is_worse():
    policy = np.random.default_rng(2).dirichlet(np.ones(2), 4)
    found = robust_values(WORLD, policy, RADIUS, 0.9)
    np.testing.assert_allclose(values_under(WORLD, found.kernel, policy, 0.9), found.values, atol=1e-10)
    generator = np.random.default_rng(3)
    for _ in range(50):
        other = worst_rows(nominal(WORLD), RADIUS, generator.normal(size=(4, 2, 4)))
        assert np.all(values_under(WORLD, other, policy, 0.9) >= found.values - 1e-9)


def test_rewards_of_the_next_state_count():
    table = np.random.default_rng(4).normal(size=(4, 2, 4))
    world = Tabular(WORLD.transition, table, WORLD.initial, WORLD.terminal)
    policy = np.full((4, 2), 0.5)
    np.testing.assert_allclose(
        values_under(world, nominal(world), policy, 0.9), exact.evaluate_policy(world, policy, 0.9), atol=1e-6
    )


def test_what_does_not_fit_is_refused():
    with pytest.raises(PolyactError, match="never end"):
        nominal(windy_grid())
    with pytest.raises(PolyactError, match=r"shape \(4, 2\)"):
        robust_value_iteration(WORLD, np.zeros((3, 2)), 0.9)
    with pytest.raises(PolyactError, match="must not be negative"):
        robust_value_iteration(WORLD, -RADIUS, 0.9)
    with pytest.raises(PolyactError, match="discount"):
        robust_value_iteration(WORLD, RADIUS, 1.0)
