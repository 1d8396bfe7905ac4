"""Chunks as actions: the same as playing their actions one after the other, until the episode ends."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from policy_examples import filled

from polyact.acting.rollout import rollout
from polyact.envs.chunk_actions import ChunkActions
from polyact.envs.point_navigation import PointNavigation
from polyact.errors import PolyactError
from polyact.policies.chunk_executor import WholeChunks, open_loop
from polyact.policies.generative.flow import Flow
from polyact.policies.spec import Spec

KEY = jax.random.key(0)


def by_hand(env, actions, keys):
    state, _ = env.reset(KEY)
    total, step = 0.0, None
    for action, key in zip(actions, keys, strict=True):
        state, step = env.step(state, action, key)
        total += float(step.reward)
        if step.terminated:
            break
    return state, total, step


@pytest.mark.parametrize("speed", [0.2, 1.0])
def test_a_chunk_is_its_actions_in_turn_until_the_end(speed):
    env = PointNavigation(timestep=0.2)  # at full speed the obstacle ends the episode within the chunk
    actions, keys = jnp.tile(jnp.array([0.0, speed]), (6, 1)), jax.random.split(KEY, 6)
    state, total, step = by_hand(env, actions, keys)
    chunks = ChunkActions(env, 6)
    reached, whole = eqx.filter_jit(chunks.step)(chunks.reset(KEY)[0], actions.reshape(-1), KEY)
    np.testing.assert_allclose(reached.position, state.position, atol=1e-6)
    assert float(whole.reward) == pytest.approx(total, abs=1e-5)
    assert bool(whole.terminated) == bool(step.terminated) == (speed == 1.0)
    assert bool(whole.info["crashed"]) == (speed == 1.0)


def test_spaces_and_horizon():
    chunks = ChunkActions(PointNavigation(horizon=10), 4)
    assert chunks.action_space.shape == (8,)
    assert chunks.horizon == 2
    with pytest.raises(PolyactError, match="length"):
        ChunkActions(PointNavigation(horizon=10), 11)


def test_a_policy_of_chunks_goes_the_same_way_in_both_worlds():
    env = PointNavigation(horizon=6)
    policy = filled(Flow.create, Spec.of(env.observation_space, env.action_space, 1), horizon=1)
    whole = rollout(WholeChunks(policy), ChunkActions(env, 1), episodes=2, key=KEY)
    np.testing.assert_allclose(whole.observation, rollout(open_loop(policy), env, episodes=2, key=KEY).observation, atol=1e-5)
