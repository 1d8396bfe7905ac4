"""Real-time chunking's guidance: against its formula, in its limits, and for what it is there."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.policies.base import NoisePolicy
from polyact.policies.generative.chain import Sampler, changed, denoise
from polyact.policies.generative.denoised import from_clean
from polyact.policies.generative.guidance import continuing, continuing_weights
from polyact.policies.generative.paths import Path, Straight, cosine
from polyact.policies.spec import Body, Spec
from polyact.spaces import Box

H, A = 6, 1
STEPS = np.arange(H)
COVARIANCE = jnp.asarray(np.exp(-0.3 * np.abs(STEPS[:, None] - STEPS)), jnp.float32)
CONDITION = jnp.zeros((1, 1))
NOISY = jax.random.normal(jax.random.key(1), (H, A))
BEFORE = jnp.linspace(1.0, 2.0, H)[:, None]


class Smooth(NoisePolicy):
    """Knows the exact clean estimate of chunks that are drawn from a Gaussian with correlated steps: linear in the noisy chunk."""

    path: Path
    body: Body = Spec.of(Box(-9, 9, (1,)), Box(-9, 9, (A,)), 1).body
    horizon: int = eqx.field(static=True, default=H)

    def start(self, key):
        return None

    def observe(self, observation, memory):
        return memory

    def condition(self, memory):
        return CONDITION

    def act(self, observation, memory, key):
        return self.chunk(observation, memory, key)[0][0], memory

    def chunk(self, observation, memory, key):
        return self.generate(CONDITION, key), memory

    def generate(self, condition, key, *, start=None, skip=0, change=None):
        field = changed(lambda noisy, time: self.denoised(condition, noisy, time), change)
        return denoise(Sampler(steps=20), self.path, field, jax.random.normal(key, (H, A)), key)

    def gain(self, time):
        alpha, sigma = self.path.alpha(time), self.path.sigma(time)
        return alpha * COVARIANCE @ jnp.linalg.inv(alpha**2 * COVARIANCE + sigma**2 * jnp.eye(H))

    def denoised(self, condition, noisy, time):
        return from_clean(self.path, noisy, time, self.gain(time) @ noisy)


@pytest.mark.parametrize("time", [0.9, 0.5, 0.1])
def test_on_the_straight_path_it_is_the_velocity_of_the_paper(time):
    policy, at = Smooth(Straight()), jnp.asarray(time)
    weights = continuing_weights(H, jnp.asarray(2), jnp.asarray(4))
    known = policy.denoised(CONDITION, NOISY, at)
    found = continuing(policy, CONDITION, BEFORE, weights)(NOISY, at, known)
    tau = 1 - time
    spread = (1 - tau) ** 2 / (tau**2 + (1 - tau) ** 2)
    slope = policy.gain(at).T @ (weights[:, None] * (BEFORE - known.clean))
    expected = -known.velocity + min(5.0, (1 - tau) / (tau * spread)) * slope  # the paper's time runs from noise to data
    np.testing.assert_allclose(-found.velocity, expected, rtol=1e-4, atol=1e-5)


def test_no_weights_and_no_strength_change_nothing():
    policy, at = Smooth(Straight()), jnp.asarray(0.4)
    known = policy.denoised(CONDITION, NOISY, at)
    for change in (
        continuing(policy, CONDITION, BEFORE, jnp.zeros(H)),
        continuing(policy, CONDITION, BEFORE, jnp.ones(H), most=0.0),
    ):
        found = change(NOISY, at, known)
        np.testing.assert_allclose(found.clean, known.clean, atol=1e-6)
        np.testing.assert_allclose(found.noise, known.noise, atol=1e-6)


@pytest.mark.parametrize("path", [Straight(), cosine(50)], ids=["flow", "diffusion"])
def test_a_chunk_begins_as_the_previous_one_goes_on(path):
    policy = Smooth(path)
    weights = continuing_weights(H, jnp.asarray(3), jnp.asarray(4))
    change = continuing(policy, CONDITION, BEFORE, weights)
    keys = jax.random.split(jax.random.key(2), 200)
    free = jax.vmap(lambda key: policy.generate(CONDITION, key))(keys)
    guided = jax.vmap(lambda key: policy.generate(CONDITION, key, change=change))(keys)
    far = lambda chunks: float(jnp.abs(chunks[:, :3] - BEFORE[:3]).mean())  # noqa: E731
    assert far(guided) < 0.25 * far(free)
    assert float(guided[:, 4].mean()) > 0.5  # what follows stays correlated with what was held


def test_the_weights_are_the_papers():
    weights = continuing_weights(8, jnp.asarray(2), jnp.asarray(6))
    ahead = (6 - np.arange(2, 6)) / (6 - 2 + 1)
    np.testing.assert_allclose(weights, [1, 1, *(ahead * np.expm1(ahead) / (np.e - 1)), 0, 0], rtol=1e-5)
    assert not continuing_weights(8, jnp.asarray(0), jnp.asarray(0)).any()
    assert continuing_weights(8, jnp.asarray(8), jnp.asarray(8)).all()
