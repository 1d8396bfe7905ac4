"""The best of several proposals: against brute force, against the policy alone, and in frequencies."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_examples import KEY, filled

from polyact import spaces
from polyact.composition.best_of import BestOf, LeastValue
from polyact.errors import PolyactError
from polyact.learning.critics import build_critics, q_values
from polyact.nets.mlp import Network
from polyact.policies.gaussian import Gaussian
from polyact.policies.spec import Spec

SPEC = Spec.of(spaces.Box(-1, 1, (2,)), spaces.Box(-2, 2, (1,)), 10)
SEEN = jnp.array([0.3, -0.4])
act = eqx.filter_jit(lambda policy, key: policy.act(SEEN, policy.start(key), key)[0])


def gaussian():
    return filled(Gaussian.create, SPEC)


class Height(eqx.Module):
    def __call__(self, observation, action):
        return action[0]


def test_one_proposal_is_the_policy_itself():
    own = [np.asarray(act(gaussian(), jax.random.key(seed))) for seed in range(5)]
    best = [np.asarray(act(BestOf(gaussian(), Height(), 1), jax.random.key(seed))) for seed in range(5)]
    among = [np.asarray(act(BestOf(gaussian(), Height(), 8, among=jnp.asarray(1)), jax.random.key(seed))) for seed in range(5)]
    np.testing.assert_array_equal(best, own)
    np.testing.assert_allclose(among, own, rtol=1e-6)


def test_the_highest_score_wins_and_more_proposals_never_lower_it():
    keys = jax.random.split(KEY, 200)
    heights = [
        np.asarray(jax.vmap(lambda k, n=n: act(BestOf(gaussian(), Height(), 8, among=jnp.asarray(n)), k)[0])(keys))
        for n in (1, 4, 8)
    ]
    assert (heights[0] <= heights[1]).all()
    assert (heights[1] <= heights[2]).all()
    assert heights[2].mean() > heights[0].mean() + 0.1


class Two(eqx.Module):
    """Scores whose exponentials are 3 to 1 for positive and negative actions."""

    def __call__(self, observation, action):
        return jnp.where(action[0] > 0, jnp.log(3.0), 0.0)


def test_with_a_temperature_proposals_are_drawn_by_their_exponential_scores():
    policy = gaussian()
    keys = jax.random.split(KEY, 4000)
    share = float((jax.vmap(lambda k: policy.act(SEEN, None, k)[0][0])(keys) > 0).mean())
    drawn = float((jax.vmap(lambda k: act(BestOf(policy, Two(), 64, temperature=1.0), k)[0])(keys) > 0).mean())
    assert drawn == pytest.approx(3 * share / (3 * share + 1 - share), abs=0.03)


def test_the_judge_is_the_least_critic_in_unit_coordinates():
    critics = build_critics(Network(width=4, depth=1), SPEC, 2, KEY)
    expected = q_values(critics, SEEN[None], jnp.array([[0.5]])).min()
    assert float(LeastValue(critics, SPEC.body)(SEEN, jnp.array([1.0]))) == pytest.approx(float(expected))


def test_no_proposals_are_an_error():
    with pytest.raises(PolyactError, match="count"):
        BestOf(gaussian(), Height(), 0)
