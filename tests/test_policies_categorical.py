"""Discrete policies against enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_examples import KEY, NET, filled

from polyact import spaces
from polyact.data.sampling import Batch
from polyact.errors import PolyactError
from polyact.policies.base import greedy
from polyact.policies.categorical import Categorical
from polyact.policies.gaussian import Gaussian
from polyact.policies.spec import Spec

SEEN = spaces.Box(-1, 1, (3,))
OBSERVATION = jnp.array([0.3, -0.2, 0.9])
MASKED = spaces.Dict({"state": SEEN, "action_mask": spaces.MultiBinary(4)})


def make(action, observation=SEEN):
    return filled(Categorical.create, Spec.of(observation, action, 1))


@pytest.mark.parametrize(
    ("space", "actions"),
    [
        (spaces.Discrete(4, start=2), [2, 3, 4, 5]),
        (spaces.MultiDiscrete((2, 3)), list(itertools.product(range(2), range(3)))),
        (spaces.MultiBinary(2), list(itertools.product(range(2), range(2)))),
    ],
)
def test_probabilities_sum_to_one_and_entropy_is_theirs(space, actions):
    policy = make(space)
    log_probs = np.asarray(jax.jit(jax.vmap(lambda action: policy.log_prob(OBSERVATION, action)))(jnp.asarray(actions)))
    assert np.exp(log_probs).sum() == pytest.approx(1, abs=1e-5)
    assert -(np.exp(log_probs) * log_probs).sum() == pytest.approx(float(policy.entropy(OBSERVATION)), abs=1e-5)
    assert tuple(np.atleast_1d(policy.mode(OBSERVATION))) == tuple(np.atleast_1d(actions[int(log_probs.argmax())]))
    action, log_prob = policy.sample_and_log_prob(OBSERVATION, KEY)
    assert spaces.contains(space, action)
    assert float(policy.log_prob(OBSERVATION, action)) == pytest.approx(float(log_prob))


def test_samples_have_the_probabilities():
    policy = make(spaces.Discrete(3))
    actions = jax.vmap(lambda k: policy.act(OBSERVATION, None, k)[0])(jax.random.split(KEY, 4000))
    expected = np.exp(jax.vmap(policy.log_prob, (None, 0))(OBSERVATION, jnp.arange(3)))
    assert np.abs(np.bincount(actions, minlength=3) / 4000 - expected).max() < 0.04


def test_forbidden_actions_never_happen_and_the_rest_is_renormalised():
    free, policy = make(spaces.Discrete(4)), make(spaces.Discrete(4), MASKED)
    seen = {"state": OBSERVATION, "action_mask": jnp.array([0, 1, 0, 1], jnp.int8)}
    probabilities = np.exp(jax.vmap(policy.log_prob, (None, 0))(seen, jnp.arange(4)))
    unmasked = np.exp(jax.vmap(free.log_prob, (None, 0))(OBSERVATION, jnp.arange(4)))
    np.testing.assert_allclose(probabilities, unmasked * [0, 1, 0, 1] / unmasked[[1, 3]].sum(), atol=1e-6)
    actions = jax.vmap(lambda k: policy.act(seen, None, k)[0])(jax.random.split(KEY, 200))
    assert set(np.asarray(actions).tolist()) <= {1, 3}
    assert int(greedy(policy).act(seen, None, KEY)[0]) in (1, 3)
    gradient = jax.grad(lambda s: policy.entropy(seen | {"state": s}))(OBSERVATION)
    assert np.isfinite(gradient).all()


def test_the_loss_is_cross_entropy():
    policy = make(spaces.Discrete(3))
    batch = Batch(observation=jnp.stack([OBSERVATION, -OBSERVATION]), action=jnp.array([0, 2]))
    expected = -(policy.log_prob(OBSERVATION, jnp.asarray(0)) + policy.log_prob(-OBSERVATION, jnp.asarray(2))) / 2
    assert float(policy.imitation_loss(batch, KEY)) == pytest.approx(float(expected), abs=1e-6)


def test_the_wrong_kind_of_actions_is_one_line():
    with pytest.raises(PolyactError, match="no discrete actions"):
        make(spaces.Box(-1, 1, (2,)))
    with pytest.raises(PolyactError, match="no continuous actions"):
        Gaussian.create(Spec.of(SEEN, spaces.Discrete(2), 1), NET, KEY)
