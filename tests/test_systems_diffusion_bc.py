"""Diffusion-BC: the limits in which its two fixes do nothing, what they do to a Gaussian, and that the experiment's truth is true."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_examples import KEY, filled

from polyact import spaces
from polyact.acting.demonstrations import demonstrations
from polyact.envs.point_navigation import left_or_right, pass_left, pass_right
from polyact.errors import PolyactError
from polyact.policies.generative.chain import Sampler, denoise
from polyact.policies.generative.diffusion import Diffusion
from polyact.policies.generative.exact import ExactMixture, toy_gmm
from polyact.policies.generative.guidance import classifier_free
from polyact.policies.generative.paths import cosine, linear
from polyact.policies.generative.steppers import DDIM
from polyact.policies.spec import Spec
from polyact.systems.generative.diffusion_bc import RARE, Densest, ExtraSteps, claw, densest, polished, went_left

SPEC = Spec.of(spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (2,)), 10)


def plan(policy):
    return eqx.filter_jit(lambda p: p.chunk(jnp.ones(2), p.start(KEY), KEY)[0])(policy)


def test_no_extra_step_and_one_candidate_are_the_plain_policy():
    policy = filled(Diffusion.create, SPEC, horizon=3, levels=8, sampler="ddpm", denoiser="sieve")
    np.testing.assert_array_equal(plan(ExtraSteps(policy, 0)), plan(policy))
    np.testing.assert_array_equal(plan(Densest(policy, 1)), plan(policy))
    assert not np.array_equal(plan(ExtraSteps(policy, 3)), plan(policy))


def test_an_extra_step_is_the_last_step_of_ddpm_without_noise():
    policy = filled(Diffusion.create, SPEC, horizon=1, levels=8, schedule="linear", clip=False)
    condition, chunk = jnp.ones((1, 8)), jnp.array([[0.3, -0.2]])
    beta = 1e-4  # of the lowest level
    eps = policy.denoised(condition, chunk, jnp.asarray(1 / 8)).noise
    expected = (chunk - beta / np.sqrt(beta) * eps) / np.sqrt(1 - beta)
    eight = replace(policy, sampler=Sampler(DDIM(1.0), 8))
    np.testing.assert_allclose(polished(eight, condition, chunk, 1), jnp.clip(expected, -1, 1), atol=1e-4)


class Known(eqx.Module):
    """A denoiser that is exact for round Gaussian actions of spread `std` around zero, in the form that predicts noise."""

    std: float

    def __call__(self, noisy, time, condition):
        path = cosine(50)
        alpha, sigma = path.alpha(time), path.sigma(time)
        return sigma * noisy / (alpha**2 * self.std**2 + sigma**2)


def test_extra_steps_contract_a_gaussian_to_its_mean_by_the_known_factor():
    policy = filled(Diffusion.create, SPEC, horizon=1, levels=50, sampler="ddpm")
    policy = eqx.tree_at(lambda p: p.denoiser, policy, Known(0.2))
    samples = 0.2 * jax.random.normal(KEY, (200, 1, 2))
    path, lowest = cosine(50), jnp.asarray(1 / 50)
    factor = float(path.alpha(lowest) * 0.04 / (path.alpha(lowest) ** 2 * 0.04 + path.sigma(lowest) ** 2))
    assert 0.9 < factor < 1
    spread = {m: float(jax.vmap(lambda x, m=m: polished(policy, jnp.ones((1, 8)), x, m))(samples).std()) for m in (0, 1, 4, 16)}
    assert sorted(spread.values(), reverse=True) == list(spread.values())
    for extra, std in spread.items():
        assert std == pytest.approx(spread[0] * factor**extra, rel=1e-3)


def test_the_densest_point_is_the_one_by_brute_force():
    points = np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32)
    densities = [sum(np.exp(-0.5 * np.sum((p - q) ** 2) / 0.3**2) for q in points) for p in points]
    assert int(densest(jnp.asarray(points), 0.3)) == int(np.argmax(densities))


def test_exact_scores_reproduce_the_weights_of_the_toy_mixture():
    mixture, path = toy_gmm(4, weights=[1, 2, 3, 4]), linear(50, 1e-3, 0.3)
    run = lambda x, k: denoise(Sampler(DDIM(1.0), 50), path, mixture.field(path), x, k)  # noqa: E731
    drawn = jax.jit(jax.vmap(run))(jax.random.normal(KEY, (2000, 2)), jax.random.split(jax.random.key(1), 2000))
    np.testing.assert_allclose(mixture.mode_histogram(drawn), [0.1, 0.2, 0.3, 0.4], atol=0.04)


def test_guidance_adds_the_difference_of_what_is_told_and_untold():
    policy = filled(Diffusion.create, SPEC, horizon=1, drop=0.1)
    noisy, time, condition = jnp.array([[0.2, 0.1]]), jnp.asarray(0.5), jnp.ones((1, 8))
    told, untold = policy.denoised(condition, noisy, time), policy.denoised(policy.untold(), noisy, time)
    guided = classifier_free(policy, 4.0)(noisy, time, told)
    np.testing.assert_allclose(guided.noise, 5 * told.noise - 4 * untold.noise, rtol=1e-4)
    np.testing.assert_allclose(classifier_free(policy, 0.0)(noisy, time, told).noise, told.noise)


def test_the_claws_regions_are_what_they_are_called():
    ring, bars, diagonal, pair, alone = claw()
    assert all(isinstance(truth, ExactMixture) for truth in claw())
    draw = lambda truth: np.asarray(truth.sample(KEY, 2000))  # noqa: E731
    assert np.abs(np.linalg.norm(draw(ring), axis=1) - 0.6).mean() < 0.05
    assert np.abs(np.abs(draw(bars)[:, 1]) - 0.5).mean() < 0.05
    assert np.corrcoef(draw(diagonal).T)[0, 1] > 0.98
    assert np.mean(draw(pair)[:, 0] < 0) == pytest.approx(RARE, abs=0.02)
    np.testing.assert_allclose(draw(alone).mean(0), pair.means[1], atol=0.01)
    assert max(np.abs(draw(truth)).max() for truth in (ring, bars, pair)) < 1


def test_sides_are_told_apart():
    sides = went_left(demonstrations(left_or_right(), [pass_left, pass_right], 2, KEY))
    assert sides.tolist() == [True, True, False, False]


def test_senseless_settings_are_refused():
    policy = filled(Diffusion.create, SPEC)
    with pytest.raises(PolyactError, match="not be negative"):
        ExtraSteps(policy, -1)
    with pytest.raises(PolyactError, match="at least 1"):
        Densest(policy, 0)
