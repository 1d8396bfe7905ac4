"""The line against its closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.acting.rollout import rollout
from polyact.envs.line_walk import LineWalk, checkerboard
from polyact.policies.scripted import Scripted

KEY = jax.random.key(0)


def steady(env, observation, key):
    return jnp.full(1, 0.55)


def hasty(env, observation, key):
    return jnp.full(1, 0.56)


def test_the_fastest_safe_pace_is_optimal_and_faster_trips():
    """From 0 the end is 1 / 0.055 = 18.2, so 19 steps away; the return is the way."""
    env = LineWalk(start=0.0)
    best = rollout(Scripted(env, steady), env, episodes=1, key=KEY)
    assert best.lengths.tolist() == [19]
    assert best.returns[0] == pytest.approx(1)
    fell = rollout(Scripted(env, hasty), env, episodes=1, key=KEY)
    assert (fell.lengths.tolist(), fell.returns.tolist()) == ([1], [0])
    assert fell.terminated.all()


def test_the_ends_hold_and_the_state_is_the_observation():
    env = LineWalk()
    state, step = env.step(jnp.array([0.02]), jnp.array([-0.5]), KEY)
    assert (float(state[0]), float(step.observation[0])) == (0, 0)
    assert float(step.reward) == pytest.approx(-0.02)
    assert not step.terminated


def test_cells_alternate():
    assert checkerboard(np.array([0.0, 0.24, 0.25, 0.5, 0.99]), 4).tolist() == [False, False, True, False, True]
