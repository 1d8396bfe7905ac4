"""SINDy-RL's surrogate against the world it was fitted to, and the loop around it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.acting.rollout import rollout
from polyact.envs.pendulum import Pendulum
from polyact.learning.ppo import PPO
from polyact.learning.sparse_regression import Library, ridge
from polyact.nets.mlp import Network
from polyact.policies.random_policy import RandomPolicy
from polyact.systems.online.sindy_rl import (
    Arena,
    Dyna,
    Formulae,
    SINDy,
    SparsePolicy,
    Surrogate,
    beyond_bounds,
    dyna,
    sparse_policy,
    transitions,
)

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


def test_episodes_start_in_states_that_were_met():
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
    small = SparsePolicy(formula.body, Library(3, 3), jnp.zeros((20, 1)).at[1:4, 0].set(jnp.asarray([0.3, -0.2, 0.04])))
    again = sparse_policy(small, found.surrogate, KEY, episodes=2)
    acts = [jax.vmap(lambda o, p=p: p.act(o, None, KEY)[0])(jnp.asarray(DATA.observation)) for p in (small, again)]
    np.testing.assert_allclose(*acts, atol=5e-3)


def test_beyond_a_bound_anything_is_as_good():
    rows = np.linspace(-1, 1, 201)[:, None]
    np.testing.assert_array_equal(beyond_bounds(rows, 0.9 * rows), 0.9 * rows)
    wanted = np.clip(3 * rows, -1, 1)
    targets = beyond_bounds(rows, wanted)
    inside = np.abs(wanted) <= 0.95
    np.testing.assert_array_equal(targets[inside], wanted[inside])
    assert np.all(targets * np.sign(wanted) >= np.abs(wanted))
    slopes = [float(ridge(rows, columns, 0.0)[0, 0]) for columns in (wanted, beyond_bounds(rows, wanted, 500))]
    assert slopes[0] < 1.5
    assert slopes[1] == pytest.approx(3, rel=1e-3)
