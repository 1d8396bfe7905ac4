"""Offline learners against what can be known exactly: closed forms of their terms, and small problems with known answers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.data import Episodes, Source
from polyact.data.sampling import Batch
from polyact.learning import advantages, losses
from polyact.learning.actor import Actor
from polyact.learning.awac import AWAC
from polyact.learning.cql import CQL, ConservativeGap
from polyact.learning.critics import encoded, q_values
from polyact.learning.dynamics import DynamicsEnsemble, branched_rollouts
from polyact.learning.fit import fit
from polyact.learning.iql import IQL
from polyact.learning.optimiser import Optimiser
from polyact.learning.td3 import TD3BC
from polyact.nets.ensemble import Ensemble
from polyact.nets.mlp import Network
from polyact.policies.gaussian import Gaussian, TanhGaussian
from polyact.policies.spec import Spec
from polyact.spaces import Box

KEY = jax.random.key(0)
SMALL, FAST = Network(width=32, depth=1), Optimiser(3e-3)  # shallow networks compile faster


@pytest.fixture(scope="module")
def bandit():
    """One-step episodes: reward -(a - 0.5 s)^2 for uniform actions, so the best action is 0.5 s."""
    rng = np.random.default_rng(0)
    n = 2000
    observation = rng.uniform(-1, 1, (n, 1)).astype(np.float32)
    action = rng.uniform(-1, 1, (n, 1)).astype(np.float32)
    reward = -((action - 0.5 * observation)[:, 0] ** 2)
    episodes = Episodes(np.ones(n, int), np.repeat(observation, 2, 0), action, reward, np.ones(n, bool))
    return Source(episodes, action_space=Box(-1, 1, (1,)))


LEARNERS = {
    "td3-bc": TD3BC(alpha=20.0, network=SMALL, critic_network=SMALL, actor_optimiser=FAST, critic_optimiser=FAST),
    "iql": IQL(Actor(Gaussian, SMALL), SMALL, Optimiser(3e-3, "cosine"), FAST, FAST, temperature=20.0),
    "awac": AWAC(Actor(Gaussian, SMALL), SMALL, FAST, FAST, temperature=0.05),
    "cql": CQL(SMALL, Optimiser(1e-3), FAST, conservative=0.05, samples=2),
}


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_finds_the_best_action_of_a_bandit(bandit, name):
    policy = fit(LEARNERS[name], bandit, steps=1200, key=KEY, batch_size=128, progress=False).policy
    chosen = [float(_mode(policy, s)) for s in (-0.8, 0.0, 0.8)]
    np.testing.assert_allclose(chosen, [-0.4, 0.0, 0.4], atol=0.15)


def _mode(policy, s):
    observation = jnp.array([s])
    return policy.mode(observation)[0] if hasattr(policy, "mode") else policy.act(observation, None, KEY)[0][0]


def test_the_conservative_gap_is_the_log_sum_exp_gap():
    values = jnp.array([[0.0, 1.0], [2.0, 2.0]])
    gap = losses.conservative_gap(values, jnp.array([1.0, 0.0]))
    assert float(gap) == pytest.approx(np.mean([np.log(1 + np.e) - 1, 2 + np.log(2)]), rel=1e-6)


def test_the_conservative_term_integrates_over_all_actions():
    """Where Q(a) = c a, the integral of exp Q over [-1, 1] is 2 sinh(c) / c; sums over n proposals are n times that."""
    spec = Spec.of(Box(-1, 1, (1,)), Box(-1, 1, (1,)), 1)
    actor = TanhGaussian.create(spec, SMALL, KEY)
    observation, action = jnp.zeros((2, 1)), jnp.full((2, 1), 0.5)
    batch = Batch(observation=observation, next_observation=observation, action=action, reward=jnp.zeros(2))
    pairs, plain = encoded(spec.body, batch), Ensemble.build(Network(depth=0), 1, 2, 1, KEY)

    @jax.jit
    def term(c):
        critics = eqx.tree_at(lambda e: e.members.last.weight, plain, jnp.array([[[0.0], [c]]]))
        q = q_values(critics, pairs.features, pairs.action)
        return ConservativeGap(2.0, 2000)(critics, q, pairs, actor, batch, KEY)[0]

    for c in (-1.0, 0.1, 2.0):
        exact = np.log(3 * 2000 * 2 * np.sinh(c) / c) - 0.5 * c
        assert float(term(c)) == pytest.approx(2 * exact, abs=0.1)


def test_expectile_one_half_is_half_the_squared_error_and_high_levels_approach_the_maximum():
    difference = jnp.array([-2.0, 1.0, 3.0])
    assert float(losses.expectile(difference, 0.5)) == pytest.approx(0.5 * np.mean([4, 1, 9]))
    samples = jnp.array([0.0, 1.0, 5.0])
    grid = jnp.linspace(-1, 6, 701)
    best = grid[jnp.argmin(jax.vmap(lambda v: losses.expectile(samples - v, 0.999))(grid))]
    assert 4.9 < float(best) < 5.0


@pytest.mark.parametrize("difference", [-3.0, -0.4, 0.0, 0.7, 5.0])
def test_huber_and_quantile_huber_agree_at_the_median(difference):
    d = jnp.array([difference])
    assert float(losses.quantile_huber(d, jnp.array([0.5]))) == pytest.approx(0.5 * float(losses.huber(d, jnp.zeros(1))))


def test_advantages_equal_a_double_loop():
    rng = np.random.default_rng(0)
    reward, value, following = rng.normal(size=(3, 7))
    done = np.array([0, 0, 1, 0, 0, 1, 0.0])
    terminated = np.array([0, 0, 1, 0, 0, 0, 0.0])
    rows = [jnp.asarray(column) for column in (reward, value, following, terminated, done)]
    found = advantages.generalised_advantage(rows[0], rows[1], rows[2], rows[3], rows[4], 0.9, 0.8)
    for t in range(7):
        total, factor = 0.0, 1.0
        for k in range(t, 7):
            total += factor * (reward[k] + 0.9 * (1 - terminated[k]) * following[k] - value[k])
            factor *= 0.9 * 0.8 * (1 - done[k])
        assert float(found[t]) == pytest.approx(total, rel=1e-5)
    returns = advantages.discounted_returns(jnp.asarray(reward), jnp.asarray(done), jnp.asarray(2.0), 0.9)
    assert float(returns[6]) == pytest.approx(reward[6] + 0.9 * 2.0, rel=1e-6)
    assert float(returns[4]) == pytest.approx(reward[4] + 0.9 * reward[5], rel=1e-6)


@pytest.fixture(scope="module")
def linear_model():
    """s' = s + 0.1 a, reward = s, from random actions."""
    rng = np.random.default_rng(2)
    action = rng.uniform(-1, 1, (40, 25, 1)).astype(np.float32)
    seen = np.concatenate([np.zeros((40, 1, 1)), 0.1 * np.cumsum(action, 1)], 1).astype(np.float32)
    episodes = Episodes(np.full(40, 25), seen.reshape(-1, 1), action.reshape(-1, 1), seen[:, :-1].reshape(-1), np.zeros(1000, bool))
    source = Source(episodes, action_space=Box(-1, 1, (1,)))
    learner = DynamicsEnsemble(3, Network(width=32, depth=1, activation="silu"), Optimiser(3e-3, "cosine"))
    return fit(learner, source, steps=1500, key=KEY, batch_size=128, progress=False).states[0].model


def test_the_dynamics_ensemble_learns_a_linear_world_and_doubts_what_it_never_saw(linear_model):
    draw = jax.jit(jax.vmap(lambda s, k: linear_model.sample(s, jnp.array([0.5]), k), (None, 0)))
    reached, reward, near = draw(jnp.array([0.3]), jax.random.split(KEY, 200))
    assert float(reached.mean()) == pytest.approx(0.35, abs=0.02)
    assert float(reward.mean()) == pytest.approx(0.3, abs=0.05)
    _, _, far = draw(jnp.array([30.0]), jax.random.split(KEY, 200))
    assert float(far.min()) > 5 * float(near.mean())


def test_branched_rollouts_chain_and_stop(linear_model):
    starts = jnp.array([[0.0], [0.25]])
    batch = branched_rollouts(
        linear_model, lambda o, k: jnp.ones(1), starts, KEY, steps=3, penalty=1.0, terminal=lambda o: o[0] > 0.3
    )
    seen, reached = batch.observation.reshape(3, 2), batch.next_observation.reshape(3, 2)
    np.testing.assert_array_equal(seen[1:], reached[:-1])
    np.testing.assert_allclose(reached[:, 0], [0.1, 0.2, 0.3], atol=0.05)
    np.testing.assert_array_equal(batch.mask.reshape(3, 2)[:, 1], [True, False, False])
    assert float(batch.bootstrap.reshape(3, 2)[0, 1]) == 0.0
