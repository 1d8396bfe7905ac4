"""SINDy-RL's surrogate against the world it was fitted to, and the loop around it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.acting.rollout import rollout
from polyact.envs.pendulum import Pendulum
from polyact.learning.ppo import PPO
from polyact.learning.sparse_regression import Library
from polyact.nets.mlp import Network
from polyact.policies.random_policy import RandomPolicy
from polyact.systems.online.sindy_rl import Arena, Dyna, Formulae, SINDy, Surrogate, dyna, sparse_policy, transitions

KEY, ENV = jax.random.key(0), Pendulum()
DATA = rollout(RandomPolicy(ENV.action_space), ENV, episodes=5, key=KEY)
SMALL = PPO(network=Network(width=8), rollout_length=16, epochs=1, minibatches=2)


def surrogate(degree: int = 3) -> Surrogate:
    return Surrogate(Arena.of(ENV, DATA, ((0, 1),)), SINDy(degree)(DATA, KEY))


def errors(world: Surrogate) -> np.ndarray:
    """Root mean square of one-step predictions on fresh episodes, relative to the change."""
    fresh = rollout(RandomPolicy(ENV.action_space), ENV, episodes=3, key=jax.random.key(9))
    now, action, following, _ = transitions(fresh)
    found = jax.vmap(lambda o, a: world.step(o, a, KEY)[0])(jnp.asarray(now, jnp.float32), jnp.asarray(action, jnp.float32))
    return np.sqrt(((np.asarray(found) - following) ** 2).mean(0) / ((following - now) ** 2).mean(0))


def test_transitions_keep_episodes_apart():
    now, action, following, reward = transitions(DATA)
    assert len(now) == len(action) == len(reward) == 1000
    np.testing.assert_allclose(now[1:200], following[:199])
    assert np.abs(now[200] - following[199]).max() > 1e-3


def test_formulae_predict_a_pendulum_and_a_linear_model_does_not():
    cubic, linear = errors(surrogate()), errors(surrogate(1))
    assert cubic.max() < 0.1
    assert linear.max() > 3 * cubic.max()


def test_the_surrogate_stays_on_its_circle_and_within_bounds():
    world = surrogate()
    state, step = world.step(jnp.asarray([1.0, 0.0, 8.0]), jnp.asarray([2.0]), KEY)
    assert float(jnp.linalg.norm(state[:2])) == pytest.approx(1.0, abs=1e-5)
    assert float(jnp.abs(state[2])) <= 8
    assert not bool(step.terminated)
    wild = Surrogate(world.arena, Formulae(Library(4, 1), 100 * jnp.ones((5, 4))))
    state, step = wild.step(jnp.asarray([1.0, 0.0, 8.0]), jnp.asarray([2.0]), KEY)
    assert bool(step.truncated)
    assert np.all(np.isfinite(state))


def test_episodes_start_where_real_ones_did():
    world = surrogate()
    start, _ = world.reset(KEY)
    assert float(jnp.abs(world.arena.starts - start).max(1).min()) == 0
    assert world.horizon == ENV.horizon


def test_formulae_in_words():
    table = jnp.zeros((5, 4)).at[1, 0].set(0.5).at[4, 3].set(-1.0)
    found = Formulae(Library(4, 1), table)
    assert found.text(("c", "s", "w", "u"), ("dc", "ds", "dw", "r")) == "dc = 0.5 c\nds = 0\ndw = 0\nr = -1 u"
    assert found.terms == 2


def test_a_policy_that_is_a_polynomial_is_recovered():
    found = dyna(SINDy(), SMALL, ENV, Dyna(rounds=2, updates=1, random=2, more=1, envs=2), KEY, ((0, 1),))
    assert found.data.count == 3
    assert found.data.steps == 600
    formula = sparse_policy(found.policy, found.surrogate, KEY, episodes=2)
    assert formula.coefficients.shape == (20, 1)
    assert 0 < formula.terms <= 20
    again = sparse_policy(formula, found.surrogate, KEY, episodes=2)
    np.testing.assert_allclose(again.coefficients, formula.coefficients, atol=5e-2)  # actions are clipped, so the fit is not exact


def test_what_judges_is_not_data():
    settings = Dyna(rounds=3, random=5, more=2)
    assert settings.episodes == 9
