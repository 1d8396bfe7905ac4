"""Policies that take turns: a constant choice is the member, choices last, memories begin anew, the world agrees with the policy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.acting.rollout import rollout
from polyact.composition.switching import SwitchActions, Switched
from polyact.envs.point_navigation import PointNavigation
from polyact.errors import PolyactError
from polyact.policies.base import Policy

KEY = jax.random.key(3)
WORLD = PointNavigation(horizon=12)


class Counting(Policy):
    """Moves by `speed`, a little more with every step that it has acted, and a little at random."""

    speed: float | jax.Array

    def start(self, key):
        return jnp.zeros(())

    def act(self, observation, memory, key):
        moved = self.speed + 0.1 * memory + 0.05 * jax.random.normal(key)
        return jnp.clip(jnp.stack([moved, -moved]), -1, 1), memory + 1


class Plan(Policy):
    """Chooses by a table, one entry after the other."""

    table: jax.Array

    def start(self, key):
        return jnp.zeros((), jnp.int32)

    def act(self, observation, memory, key):
        return self.table[memory % len(self.table)], memory + 1


MEMBERS = [Counting(speed) for speed in (0.1, -0.3, 0.5)]


def actions(policy: Policy, steps: int = 9) -> np.ndarray:
    memory, found = policy.start(KEY), []
    for number in range(steps):
        action, memory = policy.act(jnp.zeros(6), memory, jax.random.fold_in(KEY, number))
        found.append(action)
    return np.stack(found)


@pytest.mark.parametrize("number", [0, 2])
def test_a_constant_choice_is_that_member(number: int):
    switched = Switched.of(MEMBERS, Plan(jnp.asarray([number])), 4)
    np.testing.assert_array_equal(actions(switched), actions(MEMBERS[number]))
    together = rollout(switched, WORLD, episodes=3, key=KEY)
    alone = rollout(MEMBERS[number], WORLD, episodes=3, key=KEY)
    np.testing.assert_array_equal(together.observation, alone.observation)


def test_choices_last_and_whoever_is_chosen_anew_begins_anew():
    found = actions(Switched.of(MEMBERS, Plan(jnp.asarray([0, 0, 1, 0])), 2))
    noise = actions(MEMBERS[0])[:, 0] - (0.1 + 0.1 * np.arange(9))  # what chance added at each step
    # four steps of the first, two of the second, and the first from its start
    wanted = np.array([0.1, 0.2, 0.3, 0.4, -0.3, -0.2, 0.1, 0.2, 0.3])
    np.testing.assert_allclose(found[:, 0], wanted + noise, atol=1e-6)


def test_the_world_of_choices_is_the_world_of_the_policy():
    still = eqx.tree_at(lambda w: w.start_spread, WORLD, 0.0)
    quiet = [Counting(speed) for speed in (0.05, -0.05)]
    world = SwitchActions.of(still, quiet, 3)
    assert (world.horizon, world.action_space.n) == (4, 2)
    state, _ = world.reset(KEY)
    choices, total, seen = jnp.asarray([1, 0, 0, 1]), 0.0, []
    for number, choice in enumerate(choices):
        state, step = world.step(state, choice, jax.random.fold_in(KEY, number))
        total, seen = total + step.reward, [*seen, step.observation]
    inner, observation = still.reset(KEY)
    policy, played = Switched.of(quiet, Plan(choices), 3), 0.0
    memory = policy.start(KEY)
    for number in range(4):
        keys = jax.random.split(jax.random.fold_in(KEY, number), (3, 2))
        for actor, own in keys:
            action, memory = policy.act(observation, memory, actor)
            inner, step = still.step(inner, action, own)
            observation, played = step.observation, played + step.reward
        np.testing.assert_allclose(seen[number], observation, atol=1e-6)
    assert float(total) == pytest.approx(float(played), abs=1e-5)


def test_what_can_not_be_is_refused():
    with pytest.raises(PolyactError, match="every=0"):
        Switched.of(MEMBERS, Plan(jnp.asarray([0])), 0)
    with pytest.raises(PolyactError, match="within the horizon 12, got every=13"):
        SwitchActions.of(WORLD, MEMBERS, 13)
    with pytest.raises(PolyactError, match="same architecture"):
        SwitchActions.of(WORLD, [MEMBERS[0], Plan(jnp.asarray([0]))], 2)
