"""The price of leaving the support, where the VAE is linear and Gaussian and the density known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.learning.support import SupportBound
from polyact.nets.mlp import Network
from polyact.policies.spec import Spec
from polyact.policies.vae_policy import VAEPolicy
from polyact.spaces import Box

KEY = jax.random.key(0)
SPEC = Spec.of(Box(-1, 1, (1,)), Box(-np.inf, np.inf, (1,)), 1, actions=np.array([[-1.0], [1.0]]))


def linear(gain: float, log_std: float) -> VAEPolicy:
    """z ~ N(gain u, std^2), u decoded as z; whatever the observation."""
    policy = VAEPolicy.create(SPEC, Network(depth=0), KEY, latent=1)
    encoder = policy.vae.encoder.last
    where = lambda p: (p.vae.encoder.last.weight, p.vae.encoder.last.bias, p.vae.decoder.last.weight)  # noqa: E731
    new = jnp.array([[gain, 0.0], [0.0, 0.0]]), jnp.array([0.0, log_std]), jnp.array([[1.0], [0.0]])
    assert encoder.weight.shape == new[0].shape
    return eqx.tree_at(where, policy, new)


@pytest.mark.parametrize("unit", [-2.0, 0.3, 1.5])
def test_the_price_is_error_plus_divergence_in_closed_form(unit):
    gain, log_std, weight = 0.8, -1.0, 0.5
    price = SupportBound.of(linear(gain, log_std), KEY, samples=5000, divergence=weight).price(jnp.zeros(1), jnp.array([unit]))
    variance = np.exp(2 * log_std)
    error = (gain * unit - unit) ** 2 + variance
    divergence = 0.5 * ((gain * unit) ** 2 + variance - 1 - 2 * log_std)
    assert float(price) == pytest.approx(error + weight * divergence, rel=0.02)


def test_far_actions_cost_more_and_the_gradient_reaches_the_action_only():
    bound = SupportBound.of(linear(0.8, -1.0), KEY)
    prices = [float(bound(jnp.zeros((1, 1)), jnp.array([[u]]), jnp.zeros((1, 1)))) for u in (0.0, 1.0, 2.0, 4.0)]
    assert prices == sorted(prices)
    assert float(jax.grad(lambda u: bound(jnp.zeros((1, 1)), u, u))(jnp.ones((1, 1)))[0, 0]) > 0
