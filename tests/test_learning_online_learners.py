"""Online learners against what is known exactly: brute-force advantages, exact policy gradients, optimal values, hand-checked losses."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact import spaces
from polyact.acting.rollout import rollout
from polyact.data.sampling import Batch
from polyact.envs import exact
from polyact.envs.base import Env, Step
from polyact.envs.tabular import Tabular
from polyact.envs.tabular_builders import garnet
from polyact.errors import PolyactError
from polyact.learning.actor import Actor
from polyact.learning.advantages import generalised_advantage
from polyact.learning.bc import BC
from polyact.learning.dagger import dagger
from polyact.learning.dqn import DQN
from polyact.learning.moments import Moments, ReturnScale
from polyact.learning.optimiser import Optimiser
from polyact.learning.ppo import PPO, Recorded
from polyact.learning.process import OnPolicyProcess
from polyact.learning.reinforce import REINFORCE
from polyact.learning.sac import SAC
from polyact.learning.tabular_q import TabularQ
from polyact.learning.train import train
from polyact.nets.layers import Linear
from polyact.nets.mlp import Network
from polyact.policies.base import greedy
from polyact.policies.categorical import Categorical
from polyact.policies.gaussian import TanhGaussian
from polyact.policies.recurrent import Recurrent
from polyact.policies.scripted import Scripted
from polyact.policies.spec import Spec
from polyact.spaces import Box, Discrete

TABLE = Network(depth=0)
SMALL = Network(width=8, depth=1)
KEY = jax.random.key(0)


def test_generalised_advantages_equal_a_double_loop():
    rng = np.random.default_rng(0)
    steps, envs, discount, trace = 12, 3, 0.9, 0.8
    reward, value, following = rng.normal(size=(3, steps, envs))
    ended = rng.random((steps, envs)) < 0.25
    terminated = ended & (rng.random((steps, envs)) < 0.5)
    found = generalised_advantage(
        *(jnp.asarray(x, jnp.float32) for x in (reward, value, following, terminated, ended)), discount, trace
    )
    delta = reward + discount * following * ~terminated - value
    for t in range(steps):
        for n in range(envs):
            total = 0.0
            for k in range(t, steps):
                total += (discount * trace) ** (k - t) * delta[k, n]
                if ended[k, n]:
                    break
            assert float(found[t, n]) == pytest.approx(total, abs=1e-5)


def layered(seed=0):
    """Two states in each of two layers after the first; every episode has exactly three steps."""
    rng = np.random.default_rng(seed)
    transition = np.zeros((6, 2, 6))
    transition[0, :, 1:3] = rng.dirichlet(np.ones(2), 2)
    transition[1:3, :, 3:5] = rng.dirichlet(np.ones(2), (2, 2))
    transition[3:6, :, 5] = 1
    initial, terminal = np.eye(6)[0], np.arange(6) == 5
    return Tabular(transition, rng.normal(size=(6, 2)), initial, terminal, horizon=5)


@pytest.mark.parametrize("baseline", [True, False])
def test_reinforce_follows_the_exact_policy_gradient(baseline):
    env = layered()
    learner = REINFORCE(Actor(Categorical, TABLE), SMALL, discount=1.0, baseline=baseline, rollout_length=6)
    process = OnPolicyProcess(learner, env, 64)
    spec = Spec.of(env.observation_space, env.action_space, 1)
    state = process.begin(spec, KEY).learner
    logits = np.random.default_rng(1).normal(size=(6, 2)).astype(np.float32)
    state = eqx.tree_at(lambda s: s.model.actor.network.last, state, Linear(jnp.asarray(logits), jnp.zeros(2)))

    @jax.jit
    @jax.vmap
    def gradient(key):
        carry = eqx.tree_at(lambda c: c.learner, process.begin(spec, key), state)
        trajectory = process.collect(carry, key)[1]

        def loss(weight):
            model = eqx.tree_at(lambda m: m.actor.network.last.weight, state.model, weight)
            return learner.loss(model, trajectory, *learner.returns(model, trajectory))[0]

        return -jax.grad(loss)(jnp.asarray(logits))

    samples = np.asarray(gradient(jax.random.split(KEY, 400)), np.float64)
    expected = exact.policy_gradient(env, logits, 1.0) / 3  # per step, and an episode has three
    error = samples.std(0) / np.sqrt(len(samples))
    assert np.all(np.abs(samples.mean(0) - expected) <= 4.5 * error + 1e-7)
    assert np.abs(expected[:5]).max() > 20 * error.max()  # the check has teeth


@pytest.mark.parametrize("actor", [None, Actor(Recurrent, SMALL)])
def test_the_first_ppo_step_has_ratio_one(actor):
    learner = PPO(actor, SMALL, rollout_length=6, normalise_advantages=False, value_clip=0.1, entropy_bonus=0.01)
    process = OnPolicyProcess(learner, Swing(), 4)
    carry = eqx.filter_jit(process.begin)(Spec.of(Swing().observation_space, Swing().action_space, 1), KEY)
    trajectory = eqx.filter_jit(process.collect)(carry, KEY)[1]
    advantage = jax.random.normal(KEY, (6, 4))
    recorded = Recorded(advantage, jnp.zeros((6, 4)), trajectory.value)
    loss, metrics = eqx.filter_jit(lambda m: learner.loss(m, *m.units(trajectory, recorded)))(carry.learner.model)
    assert float(metrics["policy_loss"]) == pytest.approx(-float(advantage.mean()), abs=1e-5)
    assert float(metrics["kl"]) == pytest.approx(0, abs=1e-5)
    assert float(metrics["clipped"]) == 0
    parts = metrics["policy_loss"] + 0.5 * metrics["value_loss"] - 0.01 * metrics["entropy"]
    assert float(loss) == pytest.approx(float(parts))
    assert float(metrics["value_loss"]) == pytest.approx(float(jnp.mean(trajectory.value**2)), rel=1e-4)


@pytest.mark.parametrize(("actor", "minibatches"), [(None, 32), (Actor(Recurrent, SMALL), 8)])
def test_a_rollout_of_the_default_size_can_be_cut_and_the_rate_falls_over_all_cuts(actor, minibatches):
    learner, spec = PPO(actor, SMALL), Spec.of(Swing().observation_space, Swing().action_space, 3)
    state = eqx.filter_jit(learner.init)(spec, KEY)
    assert int(state.optimiser.total) == 3 * learner.epochs * minibatches
    units = 16 if actor else 16 * learner.rollout_length  # train's default: 16 environments side by side
    assert units % minibatches == 0


class Swing(Env):
    """A line with a wall: episodes of different lengths, so that recurrent memories must be emptied in mid-rollout."""

    horizon: int = 4

    @property
    def observation_space(self):
        return Box(-np.inf, np.inf, (1,))

    @property
    def action_space(self):
        return Box(-1, 1, (1,))

    def reset(self, key):
        state = jax.random.normal(key, (1,))
        return state, state

    def step(self, state, action, key):
        state = state + action
        return state, Step(state, -jnp.abs(state[0]), jnp.abs(state[0]) > 2, jnp.asarray(False), {})


def test_a_target_kl_stops_the_epochs_early():
    options = {"steps": 64, "key": KEY, "envs": 4, "progress": False}
    learner = PPO(network=SMALL, optimiser=Optimiser(0.1), rollout_length=16, epochs=4, minibatches=2)
    free = train(learner, Swing(), **options)
    held = train(eqx.tree_at(lambda p: p.target_kl, learner, 1e-3, is_leaf=lambda x: x is None), Swing(), **options)
    assert int(free.states[0].optimiser.count) == 8
    assert int(held.states[0].optimiser.count) < 4
    assert held.history[-1]["kl"] < free.history[-1]["kl"]


def test_popart_changes_the_unit_and_no_value():
    old, layer = ReturnScale.unit(), Linear(jnp.ones((3, 1)), jnp.ones(1))
    new = old.after(jnp.array([5.0, 9.0]))
    x = jax.random.normal(KEY, (10, 3))
    kept = old.kept(layer, new)
    np.testing.assert_allclose(new.to_value(kept(x)), old.to_value(layer(x)), rtol=1e-5)
    assert (float(new.mean), float(new.std)) == pytest.approx((7.0, 2.0))


def test_running_moments_are_those_of_all_rows():
    rows = np.random.default_rng(0).normal(3, 2, (90, 2)).astype(np.float32)
    moments = Moments.none(2)
    for part in np.split(rows, [10, 50]):
        moments = moments.after(jnp.asarray(part))
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moments.variance, rows.var(0), rtol=1e-5)
    assert moments.normaliser(jnp.array([True, False])).std[1] == 1


def test_sac_moves_its_temperature_towards_the_target_entropy():
    spec = Spec.of(Box(-1, 1, (2,)), Box(-1, 1, (1,)), 10)
    rows = jax.random.uniform(KEY, (16, 2), minval=-1)
    batch = Batch(observation=rows, action=rows[:, :1], reward=rows[:, 0], next_observation=rows, bootstrap=jnp.ones(16))

    @eqx.filter_jit
    def moved(target):
        learner = eqx.tree_at(lambda sac: sac.target_entropy, SAC(Actor(TanhGaussian, SMALL), SMALL, target_entropy=0.0), target)
        state = learner.init(spec, KEY)
        after, metrics = learner.update(state, batch, KEY)
        return after.temperature() - state.temperature(), metrics["entropy"]

    _, entropy = moved(jnp.asarray(0.0))
    assert moved(entropy + 0.1)[0] > 0 > moved(entropy - 0.1)[0]
    with pytest.raises(PolyactError, match="temperature_optimiser has no effect"):
        SAC(tune_temperature=False, temperature_optimiser=Optimiser(1e-2))
    with pytest.raises(PolyactError, match="target_entropy has no effect"):
        SAC(target_entropy=-1.0, tune_temperature=False)


def test_tabular_q_learning_converges_to_the_optimal_values():
    env = garnet(states=5, actions=2, branching=2, horizon=20)
    fitted = train(TabularQ(discount=0.8, decay=0.7, rollout_length=50), env, steps=160_000, envs=4, key=KEY, progress=False)
    best = exact.value_iteration(env, 0.8)
    found = np.asarray(fitted.states[0].values)
    scale = np.ptp(best.action_values)
    np.testing.assert_allclose(found, best.action_values, atol=0.05 * scale)
    gap = np.sort(best.action_values, 1)
    clear = gap[:, -1] - gap[:, -2] > 0.1 * scale
    chosen = [int(fitted.policy.act(jnp.int32(s), None, KEY)[0]) for s in range(5)]
    np.testing.assert_array_equal(np.asarray(chosen)[clear], best.policy.argmax(1)[clear])


class Forbidden(Env):
    """One of three actions is forbidden, another one each time; taking it costs 1000. Action numbers start at 5."""

    horizon: int = 8

    @property
    def observation_space(self):
        return spaces.Dict({"number": Box(0, 1, (1,)), "action_mask": spaces.MultiBinary(3)})

    @property
    def action_space(self):
        return Discrete(3, start=5)

    def reset(self, key):
        allowed = jnp.arange(3) != jax.random.randint(key, (), 0, 3)
        return allowed, self._observe(allowed)

    def step(self, state, action, key):
        reward = jnp.where(state[action - 5], 1.0 * (action == 6), -1000.0)
        state, observation = self.reset(key)
        return state, Step(observation, reward, jnp.asarray(False), jnp.asarray(False), {})

    def _observe(self, allowed):
        return {"number": jnp.ones(1), "action_mask": allowed.astype(jnp.int8)}


@pytest.mark.parametrize(
    ("learner", "options"),
    [
        (PPO(network=SMALL, rollout_length=16, minibatches=2), {"envs": 4}),
        (DQN(SMALL), {"batch_size": 16, "learning_starts": 100}),
    ],
)
def test_masked_actions_are_never_taken(learner, options):
    fitted = train(learner, Forbidden(), steps=1280, key=KEY, progress=False, **options)
    assert all(record["episode_return"] >= 0 for record in fitted.history)
    episodes = rollout(greedy(fitted.policy), Forbidden(), episodes=16, key=KEY)
    assert episodes.returns.mean() > 4.5  # two thirds of eight steps allow the good action
    assert set(np.unique(episodes.action)) <= {5, 6, 7}


class Recall(Env):
    """The first observation is the action that pays in the second and last step, when nothing is to be seen."""

    horizon: int = 2

    @property
    def observation_space(self):
        return Box(-1, 1, (2,))

    @property
    def action_space(self):
        return Discrete(2)

    def reset(self, key):
        cue = jax.random.randint(key, (), 0, 2)
        return (cue, jnp.int32(0)), jnp.stack([2.0 * cue - 1, 1.0])

    def step(self, state, action, key):
        cue, t = state
        reward = jnp.where((t == 1) & (action == cue), 1.0, 0.0)
        return (cue, t + 1), Step(jnp.zeros(2), reward, t == 1, jnp.asarray(False), {})


def test_recurrent_ppo_remembers_what_a_memoryless_policy_cannot():
    actor = Actor(Recurrent, Network(width=16, depth=1))
    learner = PPO(actor, Network(width=16, depth=1), Optimiser(1e-2), rollout_length=8, epochs=4, minibatches=2)
    fitted = train(learner, Recall(), steps=20_000, envs=64, key=KEY, progress=False)
    assert rollout(greedy(fitted.policy), Recall(), episodes=200, key=KEY).returns.mean() > 0.95


def astray(length=6):
    """On the path (0) action 0 stays and pays 1, action 1 leads astray; back needs action 1 six times, and action 0 starts that anew."""
    transition = np.zeros((length + 1, 2, length + 1))
    transition[0, 0, 0] = transition[1:, 0, 1] = 1
    transition[np.arange(length + 1), 1, (np.arange(length + 1) + 1) % (length + 1)] = 1
    reward = np.zeros((length + 1, 2))
    reward[0, 0] = 1
    return Tabular(transition, reward, np.eye(length + 1)[0], np.zeros(length + 1, bool), horizon=1000)


def test_dagger_recovers_where_cloning_has_never_been():
    env, clone = astray(), BC(Actor(Categorical, TABLE), Optimiser(3e-2))
    expert = Scripted(env, lambda env, observation, key: jnp.minimum(observation, 1))
    options = {"steps_per_round": 60, "episodes_per_round": 4, "key": KEY, "batch_size": 32, "progress": False}
    cloned = dagger(clone, env, expert, rounds=1, **options)
    taught = dagger(clone, env, expert, rounds=4, **options)
    assert [record["round"] for record in taught.history] == [0, 1, 2, 3]
    assert taught.history[0]["episode_return"] == 1000
    alone, helped = (rollout(fitted.policy, env, episodes=256, key=KEY).returns for fitted in (cloned, taught))
    assert helped.mean() - alone.mean() > 5 * np.sqrt(helped.var() / 256 + alone.var() / 256)
    with pytest.raises(PolyactError, match=r"beta\(0\) is 2"):
        dagger(clone, env, expert, rounds=1, beta=lambda number: 2, **options)
