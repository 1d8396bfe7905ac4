"""Generalised implicit Q-learning: V against the reweighted mean of Q that theory says it is, and one update by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from polyact import spaces
from polyact.data.sampling import Batch
from polyact.errors import PolyactError
from polyact.learning.critics import encoded, q_values, values
from polyact.learning.implicit_values import Expectile, Exponential, ImplicitValues, Quantile
from polyact.nets.mlp import Network
from polyact.policies.spec import Spec

KEY = jax.random.key(0)
Q = np.array([-1.0, 0.2, 0.5, 2.0])
MU = np.array([0.4, 0.3, 0.2, 0.1])


def solved(loss):
    """The V at which the expected slope of the loss is zero."""
    slope = jax.jit(jax.vmap(jax.grad(lambda gap: loss(gap))))
    return brentq(lambda v: float(MU @ np.asarray(slope(jnp.asarray(Q - v, jnp.float32)))), -1.0, 2.0, xtol=1e-9)


@pytest.mark.parametrize("loss", [Expectile(0.7), Expectile(0.9), Exponential(1.0), Exponential(2.5)])
def test_v_is_the_mean_of_q_under_the_implicit_policy(loss):
    v = solved(loss)
    weight = MU * np.asarray(loss.weight(jnp.asarray(Q - v, jnp.float32)))
    assert v == pytest.approx(weight @ Q / weight.sum(), abs=2e-6)


def test_a_quantile_splits_the_probability_at_its_level():
    # At level 0.85 the loss is least at 0.5: 0.7 of the probability lies below it, 0.9 at or below.
    losses = [float(MU @ np.asarray(Quantile(0.85)(jnp.asarray(Q - v)))) for v in np.linspace(-1, 2, 301)]
    assert np.linspace(-1, 2, 301)[np.argmin(losses)] == pytest.approx(0.5)
    np.testing.assert_allclose(Quantile(0.85).weight(jnp.array([-2.0, 2.0])), [0.15 / 2, 0.85 / 2], rtol=1e-6)


def test_level_a_half_is_the_mean_and_levels_near_one_the_maximum():
    assert solved(Expectile(0.5)) == pytest.approx(MU @ Q, abs=1e-6)
    assert solved(Expectile(1 - 1e-6)) == pytest.approx(Q.max(), abs=1e-4)


def test_the_exponential_loss_gives_the_log_mean_exponential():
    assert solved(Exponential(2.0)) == pytest.approx(np.log(MU @ np.exp(2 * Q)) / 2, abs=1e-5)
    np.testing.assert_allclose(Exponential(2.0).weight(jnp.array([0.0, 1.0])), [4.0, 2 * np.expm1(2.0)], rtol=1e-5)


def test_an_update_moves_v_by_the_least_target_critic_and_q_by_the_bellman_target():
    learner = ImplicitValues(Expectile(0.8), Network(width=4, depth=1), discount=0.5, target_rate=0.25)
    spec = Spec.of(spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (1,)), 10)
    state = learner.init(spec, KEY)
    rng = np.random.default_rng(0)
    seen, after = (jnp.asarray(rng.normal(size=(3, 2)), jnp.float32) for _ in range(2))
    batch = Batch(seen, jnp.asarray(rng.uniform(-1, 1, (3, 1)), jnp.float32), jnp.arange(3.0), after, jnp.array([1.0, 0.0, 1.0]))
    new, metrics = eqx.filter_jit(learner.update)(state, batch, KEY)
    pairs = encoded(spec.body, batch)
    gap = q_values(state.target_critics, pairs.features, pairs.action).min(axis=1) - values(state.value, pairs.features)
    expected = np.mean(np.where(gap > 0, 0.8, 0.2) * np.square(gap))
    assert float(metrics["value_loss"]) == pytest.approx(expected, rel=1e-5)
    target = batch.reward + 0.5 * batch.bootstrap * values(new.value, pairs.following)
    errors = q_values(state.critics, pairs.features, pairs.action) - target[:, None]
    assert float(metrics["critic_loss"]) == pytest.approx(float(jnp.square(errors).sum(1).mean()), rel=1e-5)
    old, moved = (jax.tree.leaves(eqx.filter(tree, eqx.is_array))[0] for tree in (state.critics, new.critics))
    np.testing.assert_allclose(jax.tree.leaves(new.target_critics)[0], 0.75 * old + 0.25 * moved, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("make", [lambda: Expectile(1.0), lambda: Quantile(0.0), lambda: Exponential(0.0)])
def test_losses_that_are_not_convex_and_bounded_are_refused(make):
    with pytest.raises(PolyactError):
        make()
