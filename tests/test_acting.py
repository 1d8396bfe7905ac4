"""Rollouts: against a plain loop, paired across policies, and in a world that does not wait."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.acting.realtime import measure_latency, real_time
from polyact.acting.rollout import rollout
from polyact.acting.streams import WORLD, start_key, step_key
from polyact.envs.families import perturb, randomise
from polyact.envs.pendulum import Pendulum
from polyact.envs.wrappers import ActionDelay
from polyact.errors import PolyactError
from polyact.policies.base import ChunkPolicy, Policy

KEY = jax.random.key(7)
ENV = Pendulum(horizon=25)


class Damped(Policy):
    """Torque against the velocity, with noise of its own."""

    noise: float = 0.0

    def start(self, key):
        return None

    def act(self, observation, memory, key):
        return jnp.clip(-observation[2:] + self.noise * jax.random.normal(key, (1,)), -2, 2), memory


class Counter(ChunkPolicy):
    """Plans t, t + 0.1, t + 0.2 at its t-th inference (from 1), whatever it sees."""

    body: Any = None
    horizon: int = eqx.field(static=True, default=3)

    def observe(self, observation, memory):
        return memory

    def start(self, key):
        return jnp.zeros(())

    def chunk(self, observation, memory, key):
        return memory + 1 + 0.1 * jnp.arange(3.0)[:, None], memory + 1

    def act(self, observation, memory, key):
        plan, memory = self.chunk(observation, memory, key)
        return plan[0], memory


def played(**options):
    return rollout(Counter(), ENV, episodes=1, key=KEY, **options).action[:8, 0]


def test_a_rollout_equals_a_plain_loop():
    episodes = rollout(Damped(), ENV, episodes=3, key=KEY)
    for number in range(3):
        key, one = jax.random.fold_in(KEY, number), episodes.episode(number)
        state, observation = ENV.reset(start_key(key))
        for t in range(25):
            np.testing.assert_allclose(one.observation[t], observation, rtol=1e-4, atol=1e-5)
            action, _ = Damped().act(observation, None, key)
            state, step = ENV.step(state, action, step_key(key, WORLD, t))
            observation = step.observation
            assert one.reward[t] == pytest.approx(float(step.reward), rel=1e-3, abs=1e-5)
        np.testing.assert_allclose(one.observation[25], observation, rtol=1e-4, atol=1e-5)
    assert episodes.truncated.sum() == 3
    assert not episodes.terminated.any()


def test_every_policy_meets_the_same_initial_states():
    calm, noisy = (rollout(Damped(noise), ENV, episodes=5, key=KEY) for noise in (0.0, 0.5))
    first = calm.starts + np.arange(5)
    np.testing.assert_array_equal(calm.observation[first], noisy.observation[first])
    assert not np.array_equal(calm.action, noisy.action)
    assert len(np.unique(calm.observation[first], axis=0)) == 5


def test_more_episodes_do_not_change_the_first(monkeypatch):
    few = rollout(Damped(0.3), ENV, episodes=2, key=KEY)
    monkeypatch.setattr("polyact.acting.rollout.PROGRAM_BYTES", 4000)
    many = rollout(Damped(0.3), ENV, episodes=7, key=KEY)
    np.testing.assert_allclose(few.reward, many.select([0, 1]).reward, rtol=1e-5)


def test_a_family_runs_each_episode_in_its_own_world():
    worlds = randomise(ENV, {"mass": (0.5, 2.0)}, jax.random.key(1), 3)
    together = rollout(Damped(), worlds, episodes=4, key=KEY)
    for number in (1, 3):
        alone = rollout(Damped(), worlds.member(number % 3), episodes=4, key=KEY)
        np.testing.assert_allclose(together.episode(number).reward, alone.episode(number).reward, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fallback", ["hold", "zero"])
def test_zero_latency_is_the_frozen_world(fallback):
    frozen = rollout(Damped(0.2), ENV, episodes=4, key=KEY)
    moving = rollout(Damped(0.2), ENV, episodes=4, key=KEY, control_hz=20, latency=0.0, fallback=fallback)
    np.testing.assert_array_equal(frozen.action, moving.action)
    np.testing.assert_array_equal(frozen.reward, moving.reward)
    assert not moving.info["late"].any()


@pytest.mark.parametrize("ticks", [1, 3])
def test_latency_of_k_ticks_is_an_action_delay_of_k_steps(ticks):
    delayed = rollout(Damped(0.2), ActionDelay(ENV, ticks), episodes=4, key=KEY)
    moving = rollout(Damped(0.2), ENV, episodes=4, key=KEY, control_hz=20, latency=ticks / 20)
    np.testing.assert_array_equal(delayed.reward, moving.reward)
    assert moving.info["late"].sum() == 4 * ticks


def test_a_busy_computer_skips_observations():
    np.testing.assert_allclose(played(control_hz=10, latency=0.2, in_flight=1), [0, 0, 1, 1, 2, 2, 3, 3])
    np.testing.assert_allclose(played(control_hz=10, latency=0.2), [0, 0, 1, 2, 3, 4, 5, 6])
    np.testing.assert_allclose(played(control_hz=10, latency=0.2, in_flight=1, fallback="zero"), [0, 0, 1, 0, 2, 0, 3, 0])


def test_a_running_chunk_bridges_the_latency():
    """The chunk of tick t is used from its entry for now on; without a fresh one the newest plays on, then its last action is held."""
    slow = played(control_hz=10, latency=0.2, in_flight=1, fallback="chunk")
    np.testing.assert_allclose(slow, [0, 0, 1.2, 1.2, 2.2, 2.2, 3.2, 3.2], rtol=1e-6)
    np.testing.assert_allclose(
        played(control_hz=10, latency=0.1, fallback="chunk"), [0, 1.1, 2.1, 3.1, 4.1, 5.1, 6.1, 7.1], rtol=1e-6
    )


def test_random_latency_draws_from_its_samples():
    episodes = rollout(Damped(), ENV, episodes=40, key=KEY, control_hz=20, latency=np.array([0.0, 0.1]))
    assert set(np.unique(episodes.info["staleness"])) <= {0, 1, 2}
    assert 0.3 < np.mean(episodes.info["staleness"] == 0) < 0.7


def test_measured_latency_is_positive_and_used():
    seconds = measure_latency(Damped(), ENV.observation_space, samples=20)
    assert seconds.shape == (20,)
    assert np.all((seconds > 0) & (seconds < 1))
    clock = real_time(Damped(), ENV, control_hz=1.0, latency="measured")
    assert clock.in_flight == 1
    assert np.asarray(clock.ticks).max() == 1


def test_impossible_clocks_are_refused():
    for options, message in (
        ({"control_hz": 10}, "needs both control_hz"),
        ({"control_hz": 0, "latency": 0.1}, "control_hz must be positive"),
        ({"control_hz": 10, "latency": -0.1}, "finite seconds >= 0"),
        ({"control_hz": 10, "latency": 0.1, "fallback": "chunk"}, "needs a policy that plans chunks, Damped does not"),
        ({"control_hz": 10, "latency": "fast"}, "latency is 'fast'"),
    ):
        with pytest.raises(PolyactError, match=message):
            rollout(Damped(), ENV, episodes=1, key=KEY, **options)


def test_worlds_that_differ_in_numbers_share_a_program():
    traced = []

    class Watched(Damped):
        def act(self, observation, memory, key):
            traced.append(observation)
            return jnp.zeros(1), memory

    counts = []
    for env in (ENV, Pendulum(mass=1.5, horizon=25), perturb(ENV, mass=2.0)):
        rollout(Watched(), env, episodes=2, key=KEY)
        counts.append(len(traced))
    first, second, third = np.diff(counts, prepend=0)
    assert second == third < first  # only looked at for its shapes, not compiled again


def test_options_without_a_clock_are_refused():
    for options in ({"fallback": "zero"}, {"in_flight": 2}):
        with pytest.raises(PolyactError, match="no effect in a world that waits"):
            rollout(Damped(), ENV, episodes=1, key=KEY, **options)
