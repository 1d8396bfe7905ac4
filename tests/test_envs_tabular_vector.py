"""Vectorised stepping against a plain loop: nothing may be lost where an episode ends and the next begins."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, PRNGKeyArray

from polyact.envs.base import Env, Step
from polyact.envs.families import Family, family
from polyact.envs.pendulum import Pendulum
from polyact.envs.vector import VectorState, reset_many, step_many
from polyact.errors import PolyactError
from polyact.spaces import Box, Space


class Countdown(Env):
    """Counts down from a random start; terminates at zero. Action is added to the reward; noise in the info."""

    pace: float = 1.0
    horizon: int = eqx.field(static=True, default=4)

    @property
    def observation_space(self) -> Space:
        return Box(-10, 10, (1,))

    @property
    def action_space(self) -> Space:
        return Box(-1, 1, (1,))

    def reset(self, key: PRNGKeyArray) -> tuple[Array, Array]:
        left = jax.random.randint(key, (), 2, 8).astype(jnp.float32)
        return left, left[None]

    def step(self, state: Array, action: Array, key: PRNGKeyArray) -> tuple[Array, Step]:
        left = state - self.pace
        info = {"noise": jax.random.normal(key)}
        return left, Step(left[None], action[0] + left, left <= 0, jnp.asarray(False), info)


start = jax.jit(reset_many)
advance = jax.jit(step_many)


def keys_of(seed: int, count: int) -> Array:
    return jax.random.split(jax.random.key(seed), count)


def test_auto_reset_equals_a_hand_loop():
    env, count = Countdown(), 5
    vector = start(env, keys_of(0, count))
    states = [float(env.reset(key)[0]) for key in keys_of(0, count)]
    elapsed = [0] * count
    ends = {"terminated": 0, "truncated": 0}
    for time in range(30):
        keys = keys_of(time + 1, count)
        actions = jnp.full((count, 1), 0.25 * time)
        np.testing.assert_allclose(vector.observation[:, 0], states)
        vector, step = advance(env, vector, actions, keys)
        for i in range(count):
            states[i] -= 1
            elapsed[i] += 1
            terminated = states[i] <= 0
            truncated = not terminated and elapsed[i] == 4
            assert bool(step.terminated[i]) == terminated
            assert bool(step.truncated[i]) == truncated
            assert float(step.observation[i, 0]) == states[i]
            assert float(step.reward[i]) == pytest.approx(0.25 * time + states[i])
            assert float(step.info["noise"][i]) == float(jax.random.normal(keys[i]))
            ends["terminated"] += terminated
            ends["truncated"] += truncated
            if terminated or truncated:
                states[i], elapsed[i] = float(vector.state[i]), 0
                assert 2 <= states[i] < 8
            assert int(vector.elapsed[i]) == elapsed[i]
    assert min(ends.values()) > 5


def test_resets_draw_from_their_own_stream():
    env = Countdown(horizon=1)
    keys = keys_of(0, 2000)
    vector, _ = advance(env, start(env, keys), jnp.zeros((2000, 1)), keys)
    first, second = np.asarray(start(env, keys).state), np.asarray(vector.state)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.1
    assert set(second) == {2, 3, 4, 5, 6, 7}


def test_scan_jit_and_vmap_over_seeds_agree_and_compile_once():
    env, traces = Pendulum(horizon=7), []

    @jax.jit
    def run(env: Pendulum, key: Array) -> tuple[Array, Array]:
        traces.append(1)
        first, *keys = jax.random.split(key, 21)

        def one(vector: VectorState, key: Array) -> tuple[VectorState, tuple[Array, Array]]:
            vector, step = step_many(env, vector, jnp.ones((3, 1)), jax.random.split(key, 3))
            return vector, (step.reward, step.truncated)

        return jax.lax.scan(one, reset_many(env, jax.random.split(first, 3)), jnp.stack(keys))[1]

    reward, truncated = run(env, jax.random.key(0))
    run(Pendulum(gravity=9.0, horizon=7), jax.random.key(1))
    assert len(traces) == 1
    np.testing.assert_array_equal(np.flatnonzero(truncated[:, 0]), [6, 13])
    many, _ = jax.vmap(run, (None, 0))(env, jax.random.split(jax.random.key(5), 2))
    alone, _ = run(env, jax.random.split(jax.random.key(5), 2)[1])
    np.testing.assert_allclose(many[1], alone, rtol=2e-5)
    assert np.all(np.isfinite(reward))


def test_a_family_steps_each_member_with_its_own_physics():
    worlds = family([Countdown(pace=pace) for pace in (0.5, 1.0, 3.0)])
    vector = start(worlds, keys_of(0, 3))
    _, step = advance(worlds, vector, jnp.zeros((3, 1)), keys_of(1, 3))
    np.testing.assert_allclose(vector.observation[:, 0] - step.observation[:, 0], [0.5, 1.0, 3.0])
    assert (worlds.count, worlds.horizon, worlds.action_space) == (3, 4, Countdown().action_space)
    assert float(jax.tree.leaves(worlds.member(2))[0]) == 3.0
    np.testing.assert_allclose(jax.tree.leaves(worlds.spread(5))[0], [0.5, 1.0, 3.0, 0.5, 1.0])


def test_family_errors_are_one_line():
    worlds = family([Countdown(), Countdown(pace=2.0)])
    with pytest.raises(PolyactError, match="family of 2 environments needs 2 keys, got 3"):
        reset_many(worlds, keys_of(0, 3))
    with pytest.raises(PolyactError, match="may differ only in array leaves"):
        family([Countdown(), Countdown(horizon=5)])
    with pytest.raises(PolyactError, match="one leading axis"):
        Family(Countdown())
    with pytest.raises(PolyactError, match="at least one"):
        family([])
