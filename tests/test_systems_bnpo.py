"""BNPO: its special cases, the minimum of its variance formula, several rewards, and batches that fit no Beta density."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from scipy.optimize import minimize

from polyact.learning.language.advantages import centred, group_relative
from polyact.systems.language import bnpo
from polyact.systems.language.bnpo import Shape

LOG_VARIANCE = jax.jit(bnpo.log_variance)
GROUP = np.repeat(np.arange(6), 4)
REWARD = np.array([1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 0], np.float64)


def test_a_flat_density_is_reinforce_with_the_mean_as_baseline():
    flat = bnpo.beta_normalised(REWARD, GROUP, Shape(1.0, 1.0))
    np.testing.assert_allclose(flat, centred(REWARD, GROUP), rtol=1e-12)


def test_three_halves_is_grpo_up_to_a_constant():
    shape = bnpo.optimal(jnp.array(1.5), jnp.array(1.5))
    np.testing.assert_allclose(shape, (1.5, 1.5))
    p = np.array([0.1, 0.5, 0.8])
    np.testing.assert_allclose(bnpo.beta_weight(p, Shape(1.5, 1.5)), np.pi / 8 / np.sqrt(p * (1 - p)), rtol=1e-10)
    ours = bnpo.beta_normalised(REWARD, GROUP, Shape(1.5, 1.5))
    np.testing.assert_allclose(ours, np.pi / 8 * group_relative(REWARD, GROUP), rtol=1e-5)


def test_weights_are_one_over_the_density():
    p = np.linspace(0.05, 0.95, 7)
    np.testing.assert_allclose(bnpo.beta_weight(p, Shape(2.5, 1.2)), 1 / scipy.stats.beta.pdf(p, 2.5, 1.2), rtol=1e-10)
    np.testing.assert_allclose(bnpo.beta_weight(np.array([0.0, 1.0]), Shape(8.0, 8.0)), bnpo.HEAVIEST)


@pytest.mark.parametrize(("a", "b"), [(0.3, 0.4), (1.5, 1.5), (2.0, 7.0), (9.0, 0.5)])
def test_no_density_has_less_variance_than_the_paper_s(a, b):
    a, b = jnp.array(a), jnp.array(b)

    def objective(logs):
        return float(LOG_VARIANCE(a, b, Shape(*np.exp(logs))))

    found = minimize(objective, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-3, "fatol": 1e-7})
    np.testing.assert_allclose(np.exp(found.x), bnpo.optimal(a, b), rtol=0.02)
    assert bnpo.log_variance(a, b, bnpo.optimal(a, b)) <= found.fun + 1e-5


def test_moments_are_those_of_the_success_rates_of_the_prompts():
    p = REWARD.reshape(6, 4).mean(1)
    k = p.mean() * (1 - p.mean()) / p.var(ddof=1) - 1
    assert k > 0
    np.testing.assert_allclose(bnpo.fitted(REWARD, GROUP), (1 + k * p.mean() / 3, 1 + k * (1 - p.mean()) / 3))


@pytest.mark.parametrize(
    ("reward", "group"),
    [
        ([1.0, 0.0, 1.0], [0, 0, 0]),  # one prompt
        ([1.0, 1.0, 1.0, 1.0], [0, 0, 1, 1]),  # all solved
        ([1.0, 1.0, 0.0, 0.0], [0, 0, 1, 1]),  # wider than any Beta density
    ],
)
def test_batches_without_a_density_are_reinforce(reward, group):
    reward, group = np.array(reward), np.array(group)
    assert bnpo.fitted(reward, group) == (1, 1)
    np.testing.assert_array_equal(bnpo.beta_normalised(reward, group), centred(reward, group))


def test_prompts_that_are_solved_equally_often_stay_finite():
    reward, group = np.tile([1.0, 0.0], 5), np.repeat(np.arange(5), 2)
    assert bnpo.fitted(reward, group) == pytest.approx((1 + bnpo.SHARPEST / 6,) * 2)
    advantage = bnpo.beta_normalised(jnp.asarray(reward, jnp.float32), jnp.asarray(group))
    assert np.isfinite(advantage).all()
    assert (np.sign(advantage) == np.where(reward > 0, 1, -1)).all()


def test_each_of_several_rewards_has_a_density_of_its_own():
    second = REWARD[::-1]
    parts = [bnpo.beta_normalised(reward, GROUP) for reward in (REWARD, second)]
    np.testing.assert_allclose(bnpo.decomposed(np.stack([REWARD, second], 1), GROUP), np.mean(parts, 0))


def test_the_measured_variance_of_reinforce_is_its_formula():
    rates = np.random.default_rng(0).beta(*np.asarray(bnpo.CHECKED).T[:, :, None], (len(bnpo.CHECKED), 20_000))
    rates = jnp.asarray(rates, jnp.float32)
    found = bnpo.measure_variance(jax.random.key(0), bnpo.REINFORCE, {"pairs": 8}, rates)
    assert found["monte_carlo"] < 0.1
    assert found["excess"] >= 0
