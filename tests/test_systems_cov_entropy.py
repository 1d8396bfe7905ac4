"""Clip-Cov and KL-Cov: the entropy formulas against a small step, losses without their idea, which tokens are chosen, the law."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from token_examples import random_terms

from polyact.learning.language.surrogates import clipped, is_clipped, token_mean, unclipped
from polyact.systems.language import cov_entropy
from polyact.systems.language.cov_entropy import Between, Quantiles, clip_cov, entropy_change, fit_law, kl_cov


def spread(logits):
    log_p = jax.nn.log_softmax(logits)
    return -(jnp.exp(log_p) * log_p).sum()


@pytest.mark.parametrize("natural", [False, True])
def test_the_covariance_is_the_change_of_entropy_to_second_order(natural):
    with jax.enable_x64():
        first, second = jax.random.split(jax.random.key(0))
        logits, reward = jax.random.normal(first, (6,)), jax.random.normal(second, (6,))
        gradient = jax.grad(lambda x: jax.nn.softmax(x) @ reward)(logits)
        advantage = reward - jax.nn.softmax(logits) @ reward
        direction = advantage if natural else gradient
        errors = [
            float(spread(logits + step * direction) - spread(logits) - entropy_change(logits, reward, step, natural=natural))
            for step in (1e-3, 1e-4)
        ]
        assert abs(entropy_change(logits, reward, 1e-4, natural=natural)) > 100 * abs(errors[1])
        np.testing.assert_allclose(errors[0] / errors[1], 100, rtol=0.1)


def test_without_a_share_only_the_base_losses_are_left():
    terms = random_terms()
    assert kl_cov(terms, share=0.0, weight=9.0) == token_mean(unclipped(terms), terms.mask)
    assert clip_cov(terms, share=0.0, clip=0.3) == token_mean(clipped(terms, 0.3, 0.3), terms.mask)


def test_covariances_are_centred_over_the_policy_s_tokens_and_padding_has_none():
    terms = random_terms()
    real = terms.mask > 0
    advantage, logp = terms.advantage[real], terms.logp[real]
    found = cov_entropy.covariance(terms)
    np.testing.assert_allclose(found[real], (advantage - advantage.mean()) * (logp - logp.mean()))
    assert np.isneginf(found[~real]).all()


def gradient(loss, terms):
    terms = type(terms)(*(jnp.asarray(column, jnp.float32) for column in terms))
    return np.asarray(jax.jit(jax.grad(lambda logp: loss(terms._replace(logp=logp))))(terms.logp))


def test_kl_cov_penalises_the_top_share_alone():
    terms = random_terms(answers=20)
    extra = gradient(partial(kl_cov, share=0.2, weight=1.0), terms) - gradient(partial(kl_cov, share=0.0), terms)
    count = int(np.ceil(0.2 * terms.mask.sum()))
    top = np.argsort(-cov_entropy.covariance(terms).ravel())[:count]
    expected = np.zeros(terms.mask.size)
    expected[top] = (np.sign(terms.logp - terms.logp_old) / terms.mask.sum()).ravel()[top]
    np.testing.assert_allclose(extra.ravel(), expected, atol=1e-6)


def test_clip_cov_drops_random_tokens_of_the_band_that_are_not_clipped_already():
    terms, band = random_terms(answers=30), Quantiles(0.4, 0.9)
    dropped = (gradient(partial(clip_cov, share=0.1, band=band, clip=0.3), terms) == 0) & (terms.mask > 0)
    dropped &= ~is_clipped(terms, 0.3, 0.3)
    covariance = cov_entropy.covariance(terms)
    low, high = np.quantile(covariance[terms.mask > 0], [0.4, 0.9])
    assert dropped.sum() == np.ceil(0.1 * terms.mask.sum())
    assert ((covariance[dropped] >= low - 0.05) & (covariance[dropped] <= high + 0.05)).all()
    again = gradient(partial(clip_cov, share=0.1, band=band, clip=0.3), terms._replace(noise=1 - terms.noise))
    assert ((again == 0) & (terms.mask > 0) & ~is_clipped(terms, 0.3, 0.3) != dropped).any()


def test_at_least_one_token_is_dropped_and_none_outside_the_band():
    terms = random_terms()
    base = gradient(partial(clip_cov, share=0.0), terms)
    np.testing.assert_array_equal(gradient(partial(clip_cov, share=1e-6, band=Between(1e6, 2e6)), terms), base)
    one = gradient(partial(clip_cov, share=1e-6, band=Between(-1e6, 1e6)), terms)
    assert ((one == 0) & (base != 0)).sum() == 1


def test_the_law_is_found_again():
    entropies = jnp.linspace(1.5, 0.1, 12)
    law = fit_law(entropies, 0.9 - 0.2 * jnp.exp(entropies))
    np.testing.assert_allclose([law.a, law.b, law.ceiling, law.r2], [0.2, 0.9, 0.7, 1.0], rtol=1e-4)
