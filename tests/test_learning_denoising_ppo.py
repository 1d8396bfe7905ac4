"""PPO through a chain: densities against a linear Gaussian, ratios of one before any update, and what a chain plays."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_examples import KEY, filled

from polyact import spaces
from polyact.envs.chunk_actions import ChunkActions
from polyact.envs.walled_plane import ring_of_goals
from polyact.learning.base import Trajectory
from polyact.learning.denoising_ppo import ChainActions, DenoisingPPO
from polyact.learning.ppo import Recorded
from polyact.policies.generative.flow import Flow
from polyact.policies.spec import Spec

SPEC = Spec.of(spaces.Box(-1, 1, (2,)), spaces.Box(-1, 1, (2,)), 10)
LEARNER = DenoisingPPO(filled(Flow.create, SPEC, horizon=2), steps=3)
MODEL = eqx.filter_jit(LEARNER.init)(SPEC, KEY).model


def trajectory():
    seen = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 3, 2)), jnp.float32)
    keys = jax.random.split(KEY, (2, 3))
    decision, _ = jax.jit(jax.vmap(jax.vmap(lambda o, k: MODEL.act(o, None, k))))(seen, keys)
    none = jnp.zeros((2, 3))
    return Trajectory(seen, decision.action, none, seen, none, none, none, decision.log_prob, decision.value, None, {})


def test_before_an_update_every_step_has_a_ratio_of_one_and_the_advantage_of_its_decision():
    played = trajectory()
    advantage = jnp.arange(6.0).reshape(2, 3)
    units, columns = MODEL.units(played, Recorded(advantage, advantage, advantage))
    now = eqx.filter_jit(jax.vmap(MODEL.judge))(units)
    np.testing.assert_allclose(now.log_prob, units.log_prob, atol=1e-4)
    np.testing.assert_allclose(columns.advantage.reshape(6, 3), np.arange(6.0)[:, None] * 0.99 ** np.array([2, 1, 0]), rtol=1e-6)


def test_a_step_is_the_normal_that_it_was_drawn_from():
    played = trajectory()
    values = played.action[0, 0].reshape(4, 2, 2)
    levels, field = MODEL.actor.path.levels(3), MODEL.actor.field(MODEL._condition(played.observation[0, 0]))
    known = field(values[2], levels[2])
    std = 0.1  # the last step draws nothing of its own: the floor remains
    mean = known.clean
    expected = -0.5 * np.square((values[3] - mean) / std) - np.log(std) - 0.5 * np.log(2 * np.pi)
    log_prob, spread = MODEL.step_log_prob(played.observation[0, 0], values, jnp.asarray(2))
    assert float(spread) == pytest.approx(0.1)
    assert float(log_prob) == pytest.approx(float(np.clip(expected, -5, 2).mean()), abs=1e-4)


def test_the_world_plays_the_end_of_the_chain():
    chunks = ChunkActions(ring_of_goals(horizon=8), 2)
    world = ChainActions(chunks, SPEC.body, 3, 4)
    state, _ = world.reset(KEY)
    chain = jnp.arange(16.0) / 20
    np.testing.assert_allclose(world.step(state, chain, KEY)[0], chunks.step(state, chain[-4:], KEY)[0], atol=1e-6)
