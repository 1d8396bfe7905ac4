"""Projections onto what an adversary may do, against a general solver."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from polyact.envs.uncertainty import Rows, SharedRows, ball


@pytest.mark.parametrize("shared", [False, True])
def test_projections_are_those_of_a_general_solver(shared: bool):
    nominal = jnp.asarray([[[0.5, 0.3, 0.2, 0.0], [0.1, 0.0, 0.2, 0.7]]] * 4)
    for seed, radius in ((0, 0.4), (1, 0.4), (2, 3.0), (3, 0.0)):
        far = np.asarray(nominal) + 0.4 * np.random.default_rng(seed).normal(size=(4, 2, 4))
        adversary = SharedRows(nominal, jnp.full(4, radius)) if shared else Rows(nominal, jnp.full((4, 2), radius))
        found = np.asarray(adversary.project(jnp.asarray(far, jnp.float32)))
        np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
        assert np.all(found[np.asarray(nominal) == 0] == 0)
        assert found.min() >= 0
        np.testing.assert_allclose(found[0], by_solver(far, np.asarray(nominal, np.float64), radius, shared), atol=2e-3)


def by_solver(far: np.ndarray, nominal: np.ndarray, radius: float, shared: bool) -> np.ndarray:
    """Least squares over what is added and what is taken away, so that the distance is linear."""
    support = nominal[0] > 0
    base, size = nominal[0], nominal[0].size

    def kernel(x: np.ndarray) -> np.ndarray:
        return base + (x[:size] - x[size:]).reshape(base.shape)

    def spent(x: np.ndarray) -> np.ndarray:
        rows = (x[:size] + x[size:]).reshape(base.shape).sum(1)
        return radius - (rows.sum() if shared else rows)

    rules = [
        {"type": "eq", "fun": lambda x: kernel(x).sum(1) - 1},
        {"type": "ineq", "fun": spent},
        {"type": "ineq", "fun": lambda x: kernel(x).ravel()},
    ]
    bounds = [(0, 1 if free else 0) for free in np.tile(support.ravel(), 2)]
    answer = minimize(lambda x: ((kernel(x) - far[0]) ** 2).sum(), np.zeros(2 * size), bounds=bounds, constraints=rules, tol=1e-12)
    return kernel(answer.x)


def test_the_l1_ball():
    centre = jnp.asarray([1.0, -1.0, 0.0])
    np.testing.assert_allclose(ball(centre + 0.1, centre, 1.0), centre + 0.1)
    np.testing.assert_allclose(ball(centre + jnp.asarray([3.0, 0.0, 0.0]), centre, 1.0), centre + jnp.asarray([1.0, 0.0, 0.0]))
    np.testing.assert_allclose(
        ball(centre + jnp.asarray([1.0, -1.0, 0.2]), centre, 1.0), centre + jnp.asarray([0.5, -0.5, 0.0]), atol=1e-6
    )
