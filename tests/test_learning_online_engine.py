"""Online training: what a replay buffer holds, where values are bootstrapped, exact resume, one program, and what goes wrong in words."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.data.sampling import NStep, Sampling, Steps, Transitions
from polyact.envs.base import Env, Step
from polyact.envs.families import randomise
from polyact.envs.pendulum import Pendulum
from polyact.envs.tabular import Tabular
from polyact.errors import PolyactError, TrainingError
from polyact.learning.actor import Actor
from polyact.learning.base import OffPolicyLearner
from polyact.learning.bc import BC
from polyact.learning.collect import due, per_iteration
from polyact.learning.dqn import DQN
from polyact.learning.optimiser import Optimiser
from polyact.learning.ppo import PPO
from polyact.learning.replay import Replay, Rows
from polyact.learning.sac import SAC
from polyact.learning.tabular_q import TabularQ
from polyact.learning.td3 import TD3
from polyact.learning.train import train
from polyact.nets.mlp import Network
from polyact.policies.gaussian import TanhGaussian
from polyact.spaces import Box

SMALL = Network(width=8, depth=1)
KEY = jax.random.key(0)
GAMMA = 0.5


def same(one, other):
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs if eqx.is_array(a))


def sac():
    return SAC(Actor(TanhGaussian, SMALL), SMALL)


def ppo(**options):
    return PPO(network=SMALL, rollout_length=8, epochs=2, minibatches=2, **options)


def filled_replay(steps, capacity, ends=()):
    """Two environments; step t of environment n has reward 10 t + n and reaches an observation of its own number plus a half."""
    example = Rows(*(jnp.zeros((2, 1)),) * 2, jnp.zeros(2), jnp.zeros((2, 1)), jnp.zeros(2), jnp.zeros(2))
    replay = Replay.empty(example, capacity)
    for t in range(steps):
        number = 10.0 * t + jnp.arange(2)
        ended = jnp.array([(t, n) in ends for n in range(2)], jnp.float32)
        replay = replay.add(Rows(number[:, None], number[:, None], number, number[:, None] + 0.5, ended * (t % 2), ended))
    return replay


def test_a_full_replay_buffer_forgets_the_oldest_and_draws_the_rest_uniformly():
    replay = filled_replay(steps=5, capacity=5)  # rounded up to 6 rows: three steps of both environments
    batch = replay.sample(Transitions(), 60_000, KEY)
    values, counts = np.unique(np.asarray(batch.reward), return_counts=True)
    assert values.tolist() == [20, 21, 30, 31, 40, 41]
    assert np.abs(counts - 10_000).max() < 5 * np.sqrt(10_000)
    np.testing.assert_array_equal(batch.next_observation, batch.observation + 0.5)


def test_a_replay_buffer_draws_only_what_was_added():
    batch = filled_replay(steps=2, capacity=100).sample(Transitions(), 500, KEY)
    assert np.unique(np.asarray(batch.reward)).tolist() == [0, 1, 10, 11]


@pytest.mark.parametrize("steps", [4, 9])
def test_n_steps_equal_a_plain_loop(steps):
    n, capacity, ends = 3, 12, {(2, 0), (5, 1), (7, 0)}
    batch = filled_replay(steps, capacity, ends).sample(NStep(n, GAMMA), 400, KEY)
    oldest = max(0, steps - capacity // 2)
    for row in range(400):
        t, env = divmod(int(batch.observation[row, 0]), 10)
        assert t >= oldest
        total, last = 0.0, t
        for k in range(n):
            if t + k >= steps:
                break
            last = t + k
            total += GAMMA**k * (10 * last + env)
            if (last, env) in ends:
                break
        terminated = (last, env) in ends and last % 2
        assert float(batch.reward[row]) == pytest.approx(total)
        assert float(batch.next_observation[row, 0]) == 10 * last + env + 0.5
        assert float(batch.bootstrap[row]) == pytest.approx(0.0 if terminated else GAMMA ** (last - t))


@pytest.mark.parametrize(("ratio", "envs"), [(1.0, 1), (0.25, 1), (2.5, 2), (0.3, 5)])
def test_updates_come_at_the_asked_rate(ratio, envs):
    fraction = per_iteration(ratio, envs)
    numbers = [int(due(jnp.int32(i), envs, 10, fraction)) for i in range(400)]
    first = -(-10 // envs) - 1
    assert sum(numbers[:first]) == 0
    assert sum(numbers[first:]) == pytest.approx(ratio * envs * (400 - first), abs=1.01)
    assert max(numbers) - min(numbers[first:]) <= 1


def one_state(ends: bool):
    """Reward 1 per step: either every step terminates, or the horizon of one step truncates it."""
    table = jnp.array([[[1.0, 0.0]], [[0.0, 1.0]]]) if not ends else jnp.array([[[0.0, 1.0]], [[0.0, 1.0]]])
    return Tabular(table, jnp.ones((2, 1)), jnp.array([1.0, 0.0]), jnp.array([False, True]), horizon=1)


def value_by_ppo(env):
    learner = ppo(optimiser=Optimiser(1e-2), discount=GAMMA, normalise_observations=False)
    fitted = train(learner, env, steps=4000, envs=4, key=KEY, progress=False)
    state = fitted.states[0]
    return state.returns.to_value(state.model.act(jnp.int32(0), None, KEY)[0].value)


def value_by_dqn(env):
    learner = DQN(Network(depth=0), Optimiser(3e-2), discount=GAMMA, target_rate=0.1, batches=NStep(2, GAMMA))
    fitted = train(learner, env, steps=500, batch_size=8, key=KEY, progress=False)
    return fitted.policy.values(jnp.int32(0))[0]


def value_by_table(env):
    learner = TabularQ(discount=GAMMA, learning_rate=0.1, decay=0.0)
    return train(learner, env, steps=400, envs=1, key=KEY, progress=False).policy.values(jnp.int32(0))[0]


@pytest.mark.parametrize("value", [value_by_ppo, value_by_dqn, value_by_table])
def test_truncation_bootstraps_and_termination_does_not(value):
    assert float(value(one_state(ends=True))) == pytest.approx(1.0, abs=0.03)
    assert float(value(one_state(ends=False))) == pytest.approx(1 / (1 - GAMMA), abs=0.06)


@pytest.mark.parametrize(
    ("learner", "options"),
    [(sac(), {"batch_size": 8, "envs": 2, "steps": 60, "update_ratio": 0.5, "buffer_size": 20}), (ppo(), {"envs": 2, "steps": 96})],
)
def test_resume_equals_an_uninterrupted_run_bit_for_bit(learner, options, tmp_path):
    options = options | {"key": KEY, "seeds": 2, "report_every": 16, "progress": False}
    whole = train(learner, Pendulum(horizon=13), **options)

    class Interrupt(Exception):
        pass

    def stop(policy):
        raise Interrupt

    with pytest.raises(Interrupt):
        train(learner, Pendulum(horizon=13), **options, checkpoints=tmp_path, checkpoint_every=32, evaluate=stop, evaluate_every=48)
    assert [path.name for path in tmp_path.iterdir()] == ["000000032"]
    resumed = train(learner, Pendulum(horizon=13), **options, checkpoints=tmp_path, checkpoint_every=32, resume=True)
    assert all(same(a, b) for a, b in zip(whole.states, resumed.states, strict=True))
    assert [record.get("episode_return") for record in whole.history] == [r.get("episode_return") for r in resumed.history]
    with pytest.raises(PolyactError, match="was written with"):
        train(learner, Pendulum(horizon=14), **options, checkpoints=tmp_path, resume=True)


class Walk(Env):
    """Counts how often it is traced; the reward of its `bad`-th step is not a number."""

    bad: int = -1
    horizon: int = 10
    traces: ClassVar[list[int]] = []

    @property
    def observation_space(self):
        return Box(-np.inf, np.inf, (1,))

    @property
    def action_space(self):
        return Box(-1, 1, (1,))

    def reset(self, key):
        return jnp.zeros(2), jnp.zeros(1)

    def step(self, state, action, key):
        self.traces.append(1)
        state = state + jnp.array([0.0, 1.0])
        reward = jnp.where(state[1] == self.bad, jnp.nan, 1.0)
        return state, Step(state[:1], reward, jnp.asarray(False), jnp.asarray(False), {})


@pytest.mark.parametrize(("learner", "options"), [(sac(), {"batch_size": 4}), (ppo(), {"envs": 2})])
def test_one_compilation_however_many_intervals(learner, options):
    Walk.traces.clear()
    train(learner, Walk(), steps=96, key=KEY, report_every=96, progress=False, **options)
    once = len(Walk.traces)
    Walk.traces.clear()
    fitted = train(learner, Walk(horizon=5), steps=96, key=KEY, report_every=16, seeds=2, progress=False, **options)
    assert len(Walk.traces) == once
    assert [record["step"] for record in fitted.history if record["seed"] == 1] == [16, 32, 48, 64, 80, 96]
    assert all(record["episode_return"] == record["episode_length"] == 5 for record in fitted.history)


def test_training_stops_before_the_first_value_that_is_not_finite():
    with pytest.raises(TrainingError, match=r"stopped at step 32: metric '[a-z_]+' is not finite") as caught:
        train(ppo(), Walk(bad=19, horizon=100), steps=96, envs=2, key=KEY, report_every=48, progress=False)
    (carry,) = caught.value.progress.states
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(eqx.filter(carry.learner, eqx.is_inexact_array)))
    assert int(carry.vector.elapsed[0]) == 16


class Fixed(OffPolicyLearner):
    """Always plays one action and remembers the mean observation of its last batch."""

    needs: ClassVar[tuple[str, ...]] = ("reward",)
    batches: Sampling = Transitions()

    def sampling(self, spec):
        return self.batches

    def init(self, spec, key):
        return jnp.zeros(())

    def update(self, state, batch, key):
        return batch.observation.mean(), {"gap": jnp.abs(batch.next_observation - batch.observation).mean()}

    def policy(self, state):
        return state

    def explore(self, state, observation, key):
        return jnp.zeros(1)


def test_a_large_buffer_is_not_copied_at_every_step():
    import time

    def seconds(size):
        def go():
            began = time.perf_counter()
            train(Fixed(), Pendulum(), steps=2000, key=KEY, batch_size=4, buffer_size=size, learning_starts=0, progress=False)
            return time.perf_counter() - began

        go()
        return min(go() for _ in range(2))

    # Copying 3 million rows of 36 bytes 2000 times would take more than 20 s.
    assert seconds(3_000_000) < seconds(2000) + 3.0


def test_a_family_trains_one_policy_in_all_its_members():
    worlds = randomise(Pendulum(horizon=6), {"mass": (0.5, 1.5)}, KEY, 3)
    fitted = train(ppo(), worlds, steps=48, key=KEY, progress=False, envs=6)
    assert fitted.steps == 48
    with pytest.raises(PolyactError, match="equal minibatches"):
        train(PPO(network=SMALL, rollout_length=5, minibatches=2), worlds, steps=48, key=KEY, progress=False)


def test_more_seeds_do_not_change_the_first():
    options = {"steps": 64, "key": KEY, "envs": 2, "progress": False}
    one, two = train(ppo(), Pendulum(), **options), train(ppo(), Pendulum(), **options, seeds=2)
    assert same(one.states[0], two.states[0])
    assert not same(two.states[0], two.states[1])


def test_one_batched_program_gives_what_threads_give(monkeypatch):
    from polyact.learning import program

    options = {"steps": 40, "key": KEY, "envs": 2, "seeds": 2, "batch_size": 8, "progress": False}
    threads = train(TD3(SMALL, SMALL), Pendulum(), **options)
    monkeypatch.setattr(program, "one_program_each", lambda seeds: False)
    batched = train(TD3(SMALL, SMALL), Pendulum(), **options)
    for one, other in zip(jax.tree.leaves(threads.policies), jax.tree.leaves(batched.policies), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(
    ("learner", "options", "message"),
    [
        (ppo(), {"batch_size": 32}, "batch_size has no effect on PPO, which learns on-policy"),
        (BC(), {}, "BC learns from data, not from an environment: use fit"),
        (sac(), {"update_ratio": 0.0}, "update_ratio must be positive"),
        (sac(), {"learning_starts": 100}, "learning_starts lie in 0 .. 99"),
        (sac(), {"resume": True}, "resume has no effect without checkpoints"),
        (Fixed(batches=Steps()), {}, "a replay buffer gives Transitions or NStep batches, not Steps"),
        (DQN(), {}, "need a Discrete action space, got Box"),
        (TabularQ(), {}, "needs Discrete observations"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_one_line(learner, options, message):
    with pytest.raises(PolyactError, match=message) as caught:
        train(learner, Pendulum(), steps=100, key=KEY, progress=False, **options)
    assert "\n" not in str(caught.value)
