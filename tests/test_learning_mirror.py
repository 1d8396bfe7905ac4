"""Mirror steps against their variational definition, limits and invariances."""

import numpy as np
import pytest
from scipy.optimize import minimize

from polyact.learning.mirror import floored, magnetic_step, mirror_step

POLICY, GAIN, MAGNET = np.array([0.2, 0.5, 0.3]), np.array([1.0, -0.4, 0.3]), np.array([0.6, 0.1, 0.3])


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q)).sum())


@pytest.mark.parametrize("pull", [0.0, 0.7])
def test_the_step_is_the_maximiser_it_is_said_to_be(pull: float):
    rate = 0.8

    def loss(logits: np.ndarray) -> float:
        p = np.exp(logits) / np.exp(logits).sum()
        return -(GAIN @ p - pull * kl(p, MAGNET) - kl(p, POLICY) / rate)

    logits = minimize(loss, np.zeros(3), tol=1e-12).x
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(magnetic_step(POLICY, GAIN, rate, pull, MAGNET), expected, atol=1e-5)


def test_by_hand_and_limits():
    weights = POLICY * np.exp(0.5 * GAIN)
    np.testing.assert_allclose(mirror_step(POLICY, GAIN, 0.5), weights / weights.sum(), atol=1e-6)
    np.testing.assert_allclose(mirror_step(POLICY, GAIN, 0.0), POLICY, atol=1e-6)
    np.testing.assert_allclose(mirror_step(POLICY, GAIN + 3, 0.5), mirror_step(POLICY, GAIN, 0.5), atol=1e-6)
    np.testing.assert_allclose(magnetic_step(POLICY, GAIN, 0.5, 0.0, MAGNET), mirror_step(POLICY, GAIN, 0.5), atol=1e-6)
    soft = MAGNET * np.exp(GAIN / 4)
    np.testing.assert_allclose(magnetic_step(POLICY, GAIN, 1e6, 4.0, MAGNET), soft / soft.sum(), atol=1e-4)


def test_what_is_forbidden_or_impossible_stays_so():
    mask = np.array([True, False, True])
    found = np.asarray(mirror_step(POLICY, GAIN, 0.5, mask))
    assert found[1] == 0
    assert found.sum() == pytest.approx(1, abs=1e-6)
    one = np.array([0.0, 1.0, 0.0])
    np.testing.assert_allclose(mirror_step(one, 100 * GAIN, 0.5), one)
    np.testing.assert_allclose(magnetic_step(one, GAIN, 0.5, 0.0, one), one)
    np.testing.assert_allclose(floored(one, 0.1, mask | (one > 0)), [0.1, 0.8, 0.1], atol=1e-6)
    np.testing.assert_allclose(floored(np.array([0.0, 0.0, 1.0]), 0.1, mask), [0.1, 0.0, 0.9], atol=1e-6)
