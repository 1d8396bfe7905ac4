"""Volumes of behaviour and evolution strategies against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.learning.diversity import duplicates, log_volume, mean_distance, squared_exponential, volume
from polyact.learning.evolution import antithetic, slope, standardised

SPREAD = jax.random.normal(jax.random.key(0), (4, 6))


def span(rows: jnp.ndarray, width: float = 1.0) -> float:
    return float(volume(squared_exponential(rows, width)))


def test_coinciding_members_span_nothing_and_distant_ones_everything():
    assert span(jnp.stack([SPREAD[0]] * 3)) == pytest.approx(0.0, abs=1e-6)
    assert span(SPREAD.at[1].set(SPREAD[0])) == pytest.approx(0.0, abs=1e-6)
    assert span(100 * SPREAD) == pytest.approx(1.0)
    assert 0 < span(SPREAD) < 1


def test_no_more_than_the_product_of_the_diagonal():
    for seed in range(5):
        factor = jax.random.normal(jax.random.key(seed), (4, 4))
        kernel = factor @ factor.T
        assert float(volume(kernel)) <= float(jnp.prod(jnp.diag(kernel))) * (1 + 1e-4)


def test_the_slope_of_the_log_volume_is_the_inverse():
    kernel = squared_exponential(SPREAD)
    np.testing.assert_allclose(jax.grad(lambda k: log_volume(k, 0.0))(kernel), np.linalg.inv(np.asarray(kernel)), rtol=1e-3)
    assert float(log_volume(kernel, 0.0)) == pytest.approx(np.log(span(SPREAD)), rel=1e-4)
    assert np.isfinite(float(log_volume(jnp.ones((5, 5)))))


def test_two_tight_clusters_beat_an_even_spread_in_distance_only():
    clusters, even = jnp.asarray([[0.0], [0.0], [1.0], [1.0]]), jnp.linspace(0, 1, 4)[:, None]
    assert float(mean_distance(clusters)) > float(mean_distance(even))
    assert span(clusters, 0.3) == pytest.approx(0.0, abs=1e-6)
    assert span(even, 0.3) > 0.01


def test_distances_and_duplicates_by_hand():
    rows = jnp.asarray([[0.0, 0.0], [0.0, 2.0], [0.0, 2.1]])
    root = np.sqrt(2)
    assert float(mean_distance(rows)) == pytest.approx((2 / root + 2.1 / root + 0.1 / root) / 3, rel=1e-5)
    assert float(duplicates(rows, 0.1)) == pytest.approx(2 / 3)
    assert np.all(np.isfinite(jax.grad(mean_distance)(jnp.zeros((3, 2)))))


def test_the_slope_of_a_linear_objective_is_its_gradient_on_average():
    target, centre = jnp.asarray([1.0, -2.0, 0.5]), jnp.asarray([[0.3, 0.1, -0.2]])
    noise = jax.random.normal(jax.random.key(1), (20_000, 1, 3))
    scores = antithetic(noise, centre, 0.1) @ target
    np.testing.assert_allclose(slope(noise, scores, 0.1)[0], target, atol=0.06)
    np.testing.assert_allclose(antithetic(noise, centre, 0.1).mean(0), jnp.broadcast_to(centre, noise.shape), atol=1e-6)


def test_standardised_scores():
    found = standardised(jax.random.normal(jax.random.key(2), (2, 50, 3)) * 7 + 5)
    np.testing.assert_allclose(found.mean((0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(found.std((0, 1)), 1, rtol=1e-4)
    np.testing.assert_array_equal(standardised(jnp.ones((2, 4, 3))), 0)
