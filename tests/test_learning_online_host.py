"""Online training in environments that live on the host: the same learners, the same meaning of an episode's end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.envs.host import HostEnv, HostStep
from polyact.errors import PolyactError, TrainingError
from polyact.learning.actor import Actor
from polyact.learning.dqn import DQN
from polyact.learning.optimiser import Optimiser
from polyact.learning.ppo import PPO
from polyact.learning.tabular_q import TabularQ
from polyact.learning.train import train
from polyact.nets.mlp import Network
from polyact.policies.recurrent import Recurrent
from polyact.spaces import Box, Discrete

KEY = jax.random.key(0)
GAMMA = 0.5
PROBE = DQN(Network(depth=0), Optimiser(3e-2), discount=GAMMA, target_rate=0.1)


class Counter(HostEnv):
    """Each slot counts its steps; the observation is a number drawn from the seed. Reward 1; NaN at the `bad`-th step of all."""

    def __init__(self, count=1, horizon=1, ends=False, bad=-1, space=None):
        self.observation_space, self.action_space = space or Box(-1, 1, (1,), np.float64), Discrete(2)
        self.count, self.horizon, self.ends, self.bad = count, horizon, ends, bad
        self.control_hz, self.name, self.steps = None, "counter", 0
        self.seeds, self.elapsed = [], np.full(count, -1)

    def _observe(self, slots):
        return np.zeros(len(slots), int) if isinstance(self.observation_space, Discrete) else self.number[slots][:, None]

    def reset(self, seeds, slots=None):
        slots = np.arange(self.count) if slots is None else np.asarray(slots)
        if slots.size == self.count and not self.seeds:
            self.number = np.zeros(self.count)
        self.seeds += [int(seed) for seed in seeds]
        self.number[slots] = [np.random.default_rng(int(seed)).uniform(-1, 1) for seed in seeds]
        self.elapsed[slots] = 0
        return self._observe(slots)

    def step(self, actions, slots=None):
        slots = np.arange(self.count) if slots is None else np.asarray(slots)
        assert np.all(self.elapsed[slots] >= 0), "stepped a slot whose episode is over"
        self.steps += 1
        self.elapsed[slots] += 1
        over = self.elapsed[slots] >= self.horizon
        self.elapsed[slots[over]] = -1
        reward = np.full(len(slots), np.nan if self.steps == self.bad else 1.0)
        return HostStep(self._observe(slots), reward, over & self.ends, over & (not self.ends), {})

    def render(self, slot=0):
        raise AssertionError("not asked for")

    def close(self):
        raise AssertionError("not asked for")


@pytest.mark.parametrize(("ends", "expected"), [(True, 1.0), (False, 2.0)])
def test_truncation_bootstraps_and_termination_does_not(ends, expected):
    fitted = train(PROBE, Counter(ends=ends), steps=500, batch_size=8, key=KEY, progress=False)
    assert float(fitted.policy.values(jnp.zeros(1)).max()) == pytest.approx(expected, abs=0.06)
    assert fitted.history[-1]["episode_return"] == fitted.history[-1]["episode_length"] == 1


def test_a_seed_learns_the_same_alone_and_beside_others():
    options = {"steps": 120, "key": KEY, "batch_size": 8, "progress": False}
    alone, both = Counter(2, horizon=5), Counter(4, horizon=5)
    one, two = train(PROBE, alone, **options), train(PROBE, both, seeds=2, **options)
    for a, b in zip(jax.tree.leaves(one.states[0]), jax.tree.leaves(two.states[0]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert set(alone.seeds) <= set(both.seeds)
    assert len(set(both.seeds)) == len(both.seeds)
    with pytest.raises(PolyactError, match="'counter' has 4 slots, which 3 seeds can't share evenly"):
        train(PROBE, both, seeds=3, **options)


def test_on_policy_learners_train_too_and_report_whole_episodes():
    small = Network(width=4, depth=1)
    learner = PPO(Actor(Recurrent, small), small, rollout_length=8, epochs=1, minibatches=1)
    fitted = train(learner, Counter(2, horizon=3), steps=64, key=KEY, report_every=32, progress=False)
    assert [record["episode_length"] for record in fitted.history] == [3, 3]
    assert fitted.steps == 64


def test_the_state_before_the_first_broken_metric_is_kept():
    env = Counter(1, horizon=4, bad=30, space=Discrete(1))
    with pytest.raises(TrainingError, match="stopped at step 29: metric") as caught:
        train(TabularQ(discount=GAMMA), env, steps=60, key=KEY, report_every=20, progress=False)
    (carry,) = caught.value.progress.states
    assert int(carry.learner.count) == 29
    assert bool(jnp.all(jnp.isfinite(carry.learner.values)))


def test_resuming_goes_on_from_the_checkpoint_with_new_episodes(tmp_path):
    options = {"steps": 40, "key": KEY, "batch_size": 4, "progress": False, "checkpoints": tmp_path}
    first = train(PROBE, Counter(horizon=5), checkpoint_every=20, **options)
    again = train(PROBE, Counter(horizon=5), checkpoint_every=20, resume=True, **options)
    assert again.history == first.history
