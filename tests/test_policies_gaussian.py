"""Densities against quadrature and closed forms."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_examples import KEY, NET, filled
from scipy import stats

from polyact import spaces, tree
from polyact.data.sampling import Batch
from polyact.errors import PolyactError
from polyact.policies.base import greedy
from polyact.policies.deterministic import Deterministic
from polyact.policies.gaussian import Gaussian, TanhGaussian
from polyact.policies.heads import tanh_log_slope
from polyact.policies.mixture import GaussianMixture
from polyact.policies.spec import Spec

SEEN = spaces.Box(-1, 1, (3,))
DONE = spaces.Box(np.array([-2.0, 0.0]), np.array([4.0, 0.5]))
ONE = spaces.Box(-2, 4, (1,))
OBSERVATION = jnp.array([0.3, -0.2, 0.9])


MAKERS = [
    partial(filled, Gaussian.create),
    partial(filled, Gaussian.create, log_std=None),
    partial(filled, TanhGaussian.create),
    partial(filled, GaussianMixture.create, components=3),
]
LOG_PROBS = eqx.filter_jit(lambda policy, actions: jax.vmap(policy.log_prob, (None, 0))(OBSERVATION, actions))
UNIT_LOG_PROBS = eqx.filter_jit(lambda policy, units: jax.vmap(policy.unit_log_prob, (None, 0))(OBSERVATION, units))


def spec(action=DONE):
    return Spec.of(SEEN, action, 10, observations=np.random.default_rng(0).normal(3, 2, (50, 3)))


@pytest.mark.parametrize("make", [MAKERS[0], MAKERS[1], MAKERS[3]])
def test_log_prob_integrates_to_one_in_environment_units(make):
    actions = np.linspace(-60, 60, 40_001)
    density = np.exp(LOG_PROBS(make(spec(ONE)), jnp.asarray(actions, jnp.float32)[:, None]))
    assert np.trapezoid(np.asarray(density, np.float64), actions) == pytest.approx(1, abs=2e-3)


def test_tanh_gaussian_integrates_to_the_mass_of_its_normal():
    policy = filled(TanhGaussian.create, spec(ONE))
    mean, log_std = policy.distribution(OBSERVATION)
    raw = np.linspace(-4, 4, 20_001)
    actions = 1 + 3 * np.tanh(raw)
    density = np.exp(LOG_PROBS(policy, jnp.asarray(actions, jnp.float32)[:, None]))
    expected = np.diff(stats.norm.cdf([-4, 4], mean, np.exp(log_std)))[0]
    assert np.trapezoid(np.asarray(density, np.float64), actions) == pytest.approx(expected, abs=2e-3)


def test_gaussian_log_prob_is_scipys():
    policy = filled(Gaussian.create, spec(), log_std=None)
    mean, log_std = policy.distribution(OBSERVATION)
    action = jnp.array([1.0, 0.3])
    scale = np.array([3.0, 0.25])
    expected = stats.norm.logpdf(action, np.array([1.0, 0.25]) + mean * scale, np.exp(log_std) * scale).sum()
    assert policy.log_prob(OBSERVATION, action) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("make", MAKERS)
def test_sample_and_log_prob_agree_with_log_prob(make):
    policy = make(spec())
    action, log_prob = eqx.filter_jit(lambda p: p.sample_and_log_prob(OBSERVATION, jax.random.key(3)))(policy)
    assert float(LOG_PROBS(policy, action[None])[0]) == pytest.approx(float(log_prob), abs=1e-3)


def test_tanh_gaussian_is_the_change_of_variables():
    policy = filled(TanhGaussian.create, spec(ONE))
    mean, log_std = (np.asarray(x, np.float64)[0] for x in policy.distribution(OBSERVATION))
    unit = np.linspace(-0.999, 0.999, 101)
    expected = stats.norm.logpdf(np.arctanh(unit), mean, np.exp(log_std)) - np.log1p(-(unit**2))
    got = UNIT_LOG_PROBS(policy, jnp.asarray(unit, jnp.float32)[:, None])
    np.testing.assert_allclose(got, expected, atol=2e-3, rtol=1e-4)


def test_tanh_slope_is_finite_far_out():
    raw = jnp.array([-40.0, 0.0, 40.0])
    got = jax.vmap(lambda x: tanh_log_slope(x[None]))(raw)
    np.testing.assert_allclose(got, [2 * np.log(2) - 80, 0, 2 * np.log(2) - 80], atol=1e-4)


@pytest.mark.parametrize("make", MAKERS)
def test_actions_on_their_bounds_have_finite_loss_and_gradient(make):
    policy = make(spec())
    batch = Batch(observation=jnp.ones((2, 3)), action=jnp.array([[-2.0, 0.0], [4.0, 0.5]]))
    loss, grads = eqx.filter_jit(eqx.filter_value_and_grad(lambda p: p.imitation_loss(batch, KEY)))(policy)
    assert np.isfinite(loss)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


@pytest.mark.parametrize("make", [*MAKERS, partial(filled, Deterministic.create)])
def test_actions_stay_inside_the_box_and_modes_are_stable(make):
    policy = make(spec())
    actions = eqx.filter_jit(jax.vmap(lambda k: policy.act(OBSERVATION, None, k)[0]))(jax.random.split(KEY, 200))
    assert np.all(actions >= DONE.low - 1e-6)
    assert np.all(actions <= DONE.high + 1e-6)
    act = eqx.filter_jit(lambda p, key: p.act(OBSERVATION, None, key)[0])
    first, second = (act(greedy(policy), jax.random.key(k)) for k in range(2))
    np.testing.assert_array_equal(first, second)


def test_gaussian_entropy_is_the_mean_negative_log_density():
    policy = filled(Gaussian.create, spec(), log_std=None)
    _, log_prob = jax.jit(jax.vmap(lambda key: policy.unit_sample(OBSERVATION, key)))(jax.random.split(KEY, 4000))
    assert policy.entropy(OBSERVATION) == pytest.approx(float(-log_prob.mean()), abs=0.06)


def test_log_std_is_clipped():
    policy = Gaussian.create(spec(), NET, KEY, log_std=-40.0, log_std_range=(-3.0, 1.0))
    assert policy.distribution(OBSERVATION)[1].tolist() == [-3, -3]


def test_tanh_gaussian_refuses_unbounded_actions():
    wide = spaces.Box(-np.inf, np.inf, (2,))
    with pytest.raises(PolyactError, match="needs finite action bounds"):
        TanhGaussian.create(Spec.of(SEEN, wide, 1, actions=np.random.default_rng(0).normal(size=(9, 2))), NET, KEY)


def test_deterministic_loss_falls_under_gradient_descent_and_leaves_statistics_alone():
    policy = filled(Deterministic.create, spec())
    batch = Batch(observation=jax.random.normal(KEY, (16, 3)), action=jnp.tile(jnp.array([1.0, 0.1]), (16, 1)))
    parameters, rest = tree.trainable(policy)

    @jax.jit
    def step(parameters):
        loss, grads = jax.value_and_grad(lambda p: tree.combine(p, rest).imitation_loss(batch, KEY))(parameters)
        return jax.tree.map(lambda p, g: p - 0.1 * g, parameters, grads), loss

    losses = []
    for _ in range(30):
        parameters, loss = step(parameters)
        losses.append(float(loss))
    assert losses[-1] < 0.2 * losses[0]
    assert tree.combine(parameters, rest).body is not None
    assert not jax.tree.leaves(parameters.body)


def test_mixture_log_prob_is_scipys():
    policy = filled(GaussianMixture.create, spec(), components=3)
    log_weights, means, log_stds = policy.head.distribution(policy.outputs(OBSERVATION), policy.body)
    unit = jnp.array([0.2, -0.4])
    parts = stats.norm.pdf(unit, means, np.exp(log_stds)).prod(1)
    assert float(UNIT_LOG_PROBS(policy, unit[None])[0]) == pytest.approx(np.log((np.exp(log_weights) * parts).sum()), abs=1e-5)


def test_mixture_samples_have_the_mixtures_moments_and_its_mode_is_the_densest_mean():
    policy = filled(GaussianMixture.create, spec(), components=3)
    log_weights, means, _ = policy.head.distribution(policy.outputs(OBSERVATION), policy.body)
    units, _ = jax.jit(jax.vmap(lambda key: policy.unit_sample(OBSERVATION, key)))(jax.random.split(KEY, 4000))
    expected = (jnp.exp(log_weights)[:, None] * means).sum(0)
    spread = np.asarray(units).std(0) / np.sqrt(4000)
    assert np.all(np.abs(units.mean(0) - expected) < 5 * spread)
    densities = UNIT_LOG_PROBS(policy, means)
    np.testing.assert_array_equal(policy.unit_mode(OBSERVATION), means[int(np.argmax(densities))])
