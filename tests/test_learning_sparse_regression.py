"""Sparse regression recovers known polynomials, and its limits are ridge regression and single members."""

from itertools import pairwise

import jax.numpy as jnp
import numpy as np
import pytest

from polyact.errors import PolyactError
from polyact.learning.sparse_regression import Library, bagged, ridge, thresholded

STEP = 0.01


def lorenz(x: np.ndarray) -> np.ndarray:
    """Change in one Euler step."""
    a, b, c = x.T
    return STEP * np.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], 1)


def trajectory() -> np.ndarray:
    rows = [np.array([-8.0, 7.0, 27.0])]
    for _ in range(2000):
        rows.append(rows[-1] + lorenz(rows[-1][None])[0])
    return np.stack(rows)


SEEN = trajectory()
NOISE = np.random.default_rng(0)
LIBRARY = Library(3, 2)
FEATURES, TARGETS = LIBRARY(SEEN), lorenz(SEEN)
NOISY = TARGETS + 0.05 * NOISE.normal(size=TARGETS.shape)


def truth() -> np.ndarray:
    table = np.zeros((10, 3))
    names = LIBRARY.names(("x", "y", "z"))
    for target, terms in enumerate(({"x": -10, "y": 10}, {"x": 28, "y": -1, "x z": -1}, {"x y": 1, "z": -8 / 3})):
        for name, weight in terms.items():
            table[names.index(name), target] = STEP * weight
    return table


def test_a_library_by_hand():
    assert Library(2, 2).names(("x", "u")) == ("1", "x", "u", "x^2", "x u", "u^2")
    np.testing.assert_allclose(Library(2, 2)(np.array([2.0, 3.0])), [1, 2, 3, 4, 6, 9])
    np.testing.assert_allclose(Library(2, 3)(jnp.array([[2.0, 3.0]])), [[1, 2, 3, 4, 6, 9, 8, 12, 18, 27]])
    assert len(Library(4, 3).terms) == 35
    with pytest.raises(PolyactError, match="inputs >= 1"):
        Library(0, 2)


def test_lorenz_is_recovered_from_noiseless_data():
    found = thresholded(FEATURES, TARGETS, penalty=1e-10, threshold=0.01)
    np.testing.assert_array_equal(found != 0, truth() != 0)
    np.testing.assert_allclose(found, truth(), atol=1e-6)


def test_threshold_zero_is_ridge_regression():
    scale = np.sqrt((FEATURES**2).mean(0))
    scaled = FEATURES / scale
    closed = np.linalg.solve(scaled.T @ scaled + 3.0 * np.eye(10), scaled.T @ NOISY) / scale[:, None]
    np.testing.assert_allclose(ridge(FEATURES, NOISY, 3.0), closed, rtol=1e-8)
    np.testing.assert_array_equal(thresholded(FEATURES, NOISY, penalty=3.0, threshold=0.0), ridge(FEATURES, NOISY, 3.0))


def test_a_larger_threshold_never_keeps_more():
    kept = [(thresholded(FEATURES, NOISY, penalty=1e-5, threshold=t) != 0) for t in (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 10.0)]
    assert all(np.all(more >= fewer) for more, fewer in pairwise(kept))
    assert kept[0].all()
    assert not kept[-1].any()


def test_units_do_not_matter():
    unit = np.array([1.0, 1e3, 1e-3, 1e6, 1.0, 1e-6, 1.0, 1.0, 1.0, 1e2])
    found = thresholded(FEATURES * unit, NOISY, penalty=1e-5, threshold=0.02)
    np.testing.assert_allclose(found * unit[:, None], thresholded(FEATURES, NOISY, penalty=1e-5, threshold=0.02), rtol=1e-6)


def test_members_of_an_ensemble():
    settings = {"penalty": 1e-10, "threshold": 0.01, "seed": 0}
    alike = bagged(FEATURES, TARGETS, members=5, **settings)
    np.testing.assert_allclose(np.median(alike, 0), alike[0], atol=1e-6)
    apart = bagged(FEATURES, TARGETS, members=20, dropped=1, **settings)
    assert np.all((apart == 0).any(0)[truth() != 0].sum() > 0)
    np.testing.assert_allclose(np.median(apart, 0), truth(), atol=1e-3)
    with pytest.raises(PolyactError, match="leave a term"):
        bagged(FEATURES, TARGETS, members=5, dropped=10, **settings)
