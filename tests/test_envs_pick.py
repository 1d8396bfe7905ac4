"""Pick: grasping needs closing at the object, carrying needs staying closed, and the expert succeeds."""

import jax
import jax.numpy as jnp
import numpy as np

from polyact.acting.rollout import rollout, successes
from polyact.envs.pick import Pick, PickState, pick_and_place
from polyact.policies.scripted import Scripted

KEY = jax.random.key(0)
NO, YES = jnp.asarray(False), jnp.asarray(True)


def play(state, *actions):
    env = Pick()
    for action in actions:
        state, step = env.step(state, jnp.asarray(action, float), KEY)
    return state, step


def at(hand, closed=NO, holding=NO):
    return PickState(jnp.asarray(hand, float), jnp.array([0.5, 0.0]), jnp.array([-0.5, 0.0]), closed, holding)


def test_closing_at_the_object_grasps_and_closing_before_does_not():
    near, _ = play(at([0.5, 0.05]), [0, 0, 1], [-1, 0, 1])
    assert bool(near.holding)
    np.testing.assert_allclose(near.object, [0.5 - 0.075, 0.05], atol=1e-6)
    early, _ = play(at([0.35, 0.0], closed=YES), [1, 0, 1], [1, 0, 1], [0, 0, 1])
    assert not bool(early.holding)
    np.testing.assert_array_equal(early.object, [0.5, 0.0])


def test_opening_lets_go_and_only_at_the_goal_is_success():
    held = PickState(jnp.zeros(2), jnp.zeros(2), jnp.array([0.1, 0.0]), YES, YES)
    away = PickState(jnp.zeros(2), jnp.zeros(2), jnp.array([0.4, 0.0]), YES, YES)
    for state, wanted in ((held, True), (away, False)):
        after, step = play(state, [0, 0, -1])
        assert bool(step.info["success"]) is wanted
        assert bool(step.terminated) is wanted
        assert not bool(after.holding)


def test_the_expert_succeeds():
    env = Pick()
    played = rollout(Scripted(env, pick_and_place), env, episodes=50, key=KEY)
    assert successes(played).all()
    assert set(np.unique(played.action[:, 2])) == {-1.0, 1.0}
