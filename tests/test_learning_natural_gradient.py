"""Natural-gradient steps against dense linear algebra and closed-form divergences."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.errors import PolyactError
from polyact.learning.natural_gradient import TrustRegion, conjugate_gradient, fisher_product, natural_direction
from polyact.learning.value_regression import ValueRegression
from polyact.nets.mlp import Network
from polyact.policies.categorical import Categorical
from polyact.policies.deterministic import Deterministic
from polyact.policies.divergence import categorical_kl, kl, normal_kl
from polyact.policies.gaussian import Gaussian
from polyact.policies.spec import Spec
from polyact.spaces import Box, Discrete

LOGITS = np.random.default_rng(0).normal(size=(5, 4))
GAIN = np.random.default_rng(1).normal(size=(5, 4))


def divergence(new: Any) -> Any:
    """Mean KL from the softmax policy of LOGITS (20 parameters)."""
    old = jax.nn.log_softmax(jnp.asarray(LOGITS))
    return (jnp.exp(old) * (old - jax.nn.log_softmax(new.reshape(5, 4)))).sum(1).mean()


def surrogate(new: Any) -> Any:
    return (jax.nn.softmax(new.reshape(5, 4)) * jnp.asarray(GAIN)).sum(1).mean()


def dense_fisher() -> np.ndarray:
    blocks = [np.diag(p) - np.outer(p, p) for p in np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)]
    fisher = np.zeros((20, 20))
    for s, block in enumerate(blocks):
        fisher[4 * s : 4 * s + 4, 4 * s : 4 * s + 4] = block / 5
    return fisher


def test_conjugate_gradients_solve_what_dense_algebra_solves():
    with jax.enable_x64():
        old = jnp.asarray(LOGITS.ravel())
        fisher = fisher_product(divergence, old)
        np.testing.assert_allclose(jax.vmap(fisher)(jnp.eye(20)), dense_fisher(), atol=1e-12)
        gradient = jax.grad(surrogate)(old)
        found = conjugate_gradient(lambda v: fisher(v) + 0.1 * v, gradient, 40)
        np.testing.assert_allclose(found, np.linalg.solve(dense_fisher() + 0.1 * np.eye(20), np.asarray(gradient)), atol=1e-6)
        direction, length = natural_direction(surrogate, divergence, old, 0.1, 40, 1e-10)
        np.testing.assert_allclose(direction, found, atol=1e-10)
        assert float(length) == pytest.approx(float(gradient @ found), rel=1e-8)


def test_the_tolerance_is_relative():
    matrix = jnp.diag(jnp.arange(1.0, 9.0))
    target = jnp.linspace(-1, 1, 8)
    rough = [conjugate_gradient(lambda v: matrix @ v, factor * target, 50, 0.05) / factor for factor in (1.0, 2.0**-20, 2.0**20)]
    np.testing.assert_array_equal(rough[0], rough[1])
    np.testing.assert_array_equal(rough[0], rough[2])
    assert 1e-4 < float(jnp.abs(matrix @ rough[0] - target).max()) < 0.1
    np.testing.assert_array_equal(conjugate_gradient(lambda v: matrix @ v, jnp.zeros(8), 5), 0)


def test_a_step_keeps_within_the_radius_and_improves():
    for radius in (1e-3, 0.1, 3.0):
        moved = TrustRegion(radius=radius, damping=0.0).move(
            surrogate, divergence, divergence, jnp.asarray(LOGITS.ravel(), jnp.float32)
        )
        assert 0 < float(moved.kl) <= radius
        assert float(moved.improvement) > 0
    small = TrustRegion(radius=1e-3, damping=0.0).move(surrogate, divergence, divergence, jnp.asarray(LOGITS.ravel(), jnp.float32))
    assert float(small.kl) == pytest.approx(1e-3, rel=0.1)
    assert float(small.share) == 1


def test_the_line_search_measures_and_does_not_trust():
    """Where the measured divergence is forbidding, nothing moves; where it is ten times the model's, the step is shorter."""
    old = jnp.asarray(LOGITS.ravel(), jnp.float32)
    wall = TrustRegion().move(surrogate, lambda new: jnp.where(jnp.all(new == old), 0.0, 1.0), divergence, old)
    np.testing.assert_array_equal(wall.parameters, old)
    assert float(wall.share) == 0
    steep = TrustRegion(damping=0.0).move(surrogate, lambda new: 10 * divergence(new), divergence, old)
    assert float(steep.share) == 0.25
    assert float(steep.kl) <= 0.01
    flat = TrustRegion().move(lambda new: 0.0 * new.sum(), divergence, divergence, old)
    np.testing.assert_array_equal(flat.parameters, old)


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(PolyactError, match="shrink"):
        TrustRegion(shrink=1.0)
    with pytest.raises(PolyactError, match="iterations"):
        TrustRegion(iterations=0)


def test_divergences_are_the_means_of_log_ratios():
    key = jax.random.key(0)
    continuous = Spec.of(Box(-1, 1, (3,)), Box(-2, 2, (2,)), 1)
    discrete = Spec.of(Box(-1, 1, (3,)), Discrete(4), 1)
    seen, small = jnp.asarray([0.3, -0.2, 0.9]), Network(width=8)
    for kind, spec in ((Gaussian, continuous), (Categorical, discrete)):
        one, other = (kind.create(spec, small, k) for k in jax.random.split(key))
        actions, log_probs = jax.vmap(lambda k, p=one: p.sample_and_log_prob(seen, k))(jax.random.split(key, 20_000))
        ratio = log_probs - jax.vmap(lambda a, p=other: p.log_prob(seen, a))(actions)
        assert float(kl(one, other, seen)) == pytest.approx(float(ratio.mean()), abs=4 * float(ratio.std()) / 140)
        assert float(kl(one, one, seen)) == pytest.approx(0.0, abs=1e-6)
        assert float(kl(one, other, seen)) > 0
    with pytest.raises(PolyactError, match="no closed form"):
        kl(Deterministic.create(continuous, small, key), Gaussian.create(continuous, small, key), seen)


def test_divergences_by_hand():
    one, two = jnp.zeros(1), jnp.ones(1)
    assert float(normal_kl(one, one, two, one)) == pytest.approx(0.5)
    assert float(normal_kl(one, one, one, two)) == pytest.approx(1 + 0.5 * (np.exp(-2) - 1))
    never = jnp.log(jnp.asarray([0.5, 0.5, 0.0]))
    assert float(categorical_kl(never, jnp.log(jnp.asarray([0.25, 0.5, 0.25])))) == pytest.approx(0.5 * np.log(2), rel=1e-5)


def test_regressed_values_fit_and_scale_exactly():
    x = jax.random.normal(jax.random.key(1), (300, 2))
    targets = jnp.sin(2 * x[:, 0]) + x[:, 1]
    blank = ValueRegression.build(2, 64, jax.random.key(2))
    np.testing.assert_array_equal(jax.vmap(blank)(x), 0)
    fitted = jax.vmap(blank.fitted(x, targets))(x)
    assert float(jnp.var(fitted - targets) / jnp.var(targets)) < 0.05
    np.testing.assert_array_equal(jax.vmap(blank.fitted(x, 64 * targets))(x), 64 * fitted)
