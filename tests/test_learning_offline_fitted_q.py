"""Fitted Q iteration and evaluation against exact solutions: tables for numbered states, closed forms for continuous ones."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.data import Episodes, Source
from polyact.envs import exact
from polyact.envs import tabular_builders as builders
from polyact.errors import PolyactError
from polyact.evaluation.off_policy.estimators import off_policy_evaluation
from polyact.evaluation.off_policy.learned import learned_values
from polyact.learning.fit import fit
from polyact.learning.fitted_q import FQE, FQI, Target
from polyact.learning.greedy_q import GreedyQ
from polyact.learning.optimiser import Optimiser
from polyact.nets.mlp import Network
from polyact.policies.base import Policy, StochasticPolicy
from polyact.spaces import Box

KEY = jax.random.key(0)
DISCOUNT = 0.9
TABLE = {
    "network": Network(depth=0, final_scale=0.1),
    "discount": DISCOUNT,
}  # without hidden layers: one number per state and action
WORLDS = {
    "chain": builders.chain(5),
    "corridor": builders.grid_world("#######\n#S...G#\n#######", slip=0.1),
    "lock": builders.combination_lock(3),
    "garnet": builders.garnet(6, 3, 2, seed=1),
}


def logged(env, repeats=100, policy=None):
    """One-step episodes from every pair (state, action) that can be met, `repeats` each, whose next states come as often as they should."""
    mdp = exact.model(env)
    states, actions = np.divmod(np.arange(mdp.states * mdp.actions), mdp.actions)
    alive = ~mdp.terminal[states]
    states, actions = np.repeat(states[alive], repeats), np.repeat(actions[alive], repeats)
    odds = np.cumsum(np.asarray(env.transition, np.float64), -1)[states, actions]
    quantiles = np.tile((np.arange(repeats) + 0.5) / repeats, alive.sum())
    after = (quantiles[:, None] * odds[:, -1:] > odds).sum(1)
    reward = np.asarray(env.reward)
    reward = reward[states, actions] if reward.ndim == 2 else reward[states, actions, after]
    log_prob = None if policy is None else np.log(policy[states, actions])
    ones = np.ones(len(states), int)
    episodes = Episodes(ones, np.stack([states, after], 1).reshape(-1), actions, reward, mdp.terminal[after], log_prob=log_prob)
    return Source(episodes, observation_space=env.observation_space, action_space=env.action_space)


@pytest.mark.parametrize("name", WORLDS)
def test_fitted_q_iteration_finds_an_optimal_policy(name):
    env = WORLDS[name]
    learner = FQI(optimiser=Optimiser(0.3, "cosine"), target=Target(30), **TABLE)
    policy = fit(learner, logged(env), steps=1500, key=KEY, batch_size=512, progress=False).policy
    assert isinstance(policy, GreedyQ)
    found = np.asarray(jax.vmap(policy.best)(jnp.arange(env.states)))
    best = exact.policy_iteration(env, DISCOUNT)
    values = exact.evaluate_policy(env, np.eye(env.actions)[found], DISCOUNT)
    np.testing.assert_allclose(values, best.values, rtol=1e-3, atol=1e-6)


class Table(StochasticPolicy):
    """Probabilities [S, A] for numbered observations."""

    chances: jax.Array

    def start(self, key):
        return None

    def act(self, observation, memory, key):
        return jax.random.categorical(key, jnp.log(self.chances[observation])), memory

    def log_prob(self, observation, action):
        return jnp.log(self.chances[observation, action])

    def mode(self, observation):
        return jnp.argmax(self.chances[observation])


class Sampled(Policy):
    """The same policy, of which only samples are known."""

    table: Table

    def start(self, key):
        return None

    def act(self, observation, memory, key):
        return self.table.act(observation, memory, key)


@pytest.fixture(scope="module")
def evaluated():
    """A soft policy in the chain: its exact q, what FQE found from data of every pair, and the data."""
    env = WORLDS["chain"]
    chances = exact.softmax_policy(np.random.default_rng(3).normal(size=(env.states, env.actions)))
    source = logged(env)
    learner = FQE(Table(jnp.asarray(chances)), optimiser=Optimiser(0.1, "cosine"), target=Target(40), **TABLE)
    fitted = fit(learner, source, steps=3000, key=KEY, batch_size=1000, progress=False)
    return env, chances, fitted, source.episodes


def test_fitted_q_evaluation_equals_the_exact_solution(evaluated):
    env, chances, fitted, _ = evaluated
    v = exact.evaluate_policy(env, chances, DISCOUNT)
    q = exact.action_values(env, v, DISCOUNT)
    values = learned_values(fitted)
    s, a = np.divmod(np.arange(q.size), env.actions)
    np.testing.assert_allclose(values.q(s, a), q.reshape(-1), rtol=0.01)
    np.testing.assert_allclose(values.v(np.arange(env.states)), v, rtol=0.01)


def test_sampled_actions_average_to_the_sum_over_actions(evaluated):
    env, chances, fitted, _ = evaluated
    states = np.arange(env.states)
    expected = learned_values(fitted).v(states)
    sampled = replace(fitted, learner=replace(fitted.learner, policy=Sampled(Table(jnp.asarray(chances)))))
    found = learned_values(sampled, samples=4000).v(states)
    np.testing.assert_allclose(found, expected, rtol=0.01)


def test_learned_values_serve_the_direct_and_the_doubly_robust_estimators(evaluated):
    env, chances, fitted, _ = evaluated
    behaviour = np.full(chances.shape, 1 / env.actions)
    episodes = logged(env, 50, behaviour).episodes
    values = learned_values(fitted)
    found = off_policy_evaluation(episodes, fitted.learner.policy, discount=DISCOUNT, values=values)
    expected = exact.evaluate_policy(env, chances, DISCOUNT).mean()  # episodes start in every state equally often
    for name in ("direct method", "doubly robust", "weighted doubly robust"):
        assert found[name].estimate.value == pytest.approx(expected, rel=0.03)
    with pytest.raises(PolyactError, match=r"fitted with discount 0\.9, the estimate asks for 1"):
        off_policy_evaluation(episodes, values=values)


class Proportional(Policy):
    """Plays -s / 2."""

    def start(self, key):
        return None

    def act(self, observation, memory, key):
        return -0.5 * observation, memory


def test_fitted_q_evaluation_of_continuous_actions_equals_a_closed_form():
    """s' = s + a, reward -s^2: under a = -s / 2 the state halves, so q(s, a) = -s^2 - discount (s + a)^2 / (1 - discount / 4)."""
    rng = np.random.default_rng(0)
    seen, action = (rng.uniform(-top, top, (6000, 1)).astype(np.float32) for top in (2, 1))
    after = seen + action
    observation = np.stack([seen, after], 1).reshape(-1, 1)
    episodes = Episodes(np.ones(6000, int), observation, action, -(seen[:, 0] ** 2), np.zeros(6000, bool))
    learner = FQE(
        Proportional(),
        network=Network(width=32, activation="tanh"),
        optimiser=Optimiser(5e-3, "cosine"),
        discount=0.5,
        target=Target(None, 0.02),
    )
    source = Source(episodes, action_space=Box(-1, 1, (1,)))
    values = learned_values(fit(learner, source, steps=2000, key=KEY, batch_size=128, seeds=2, progress=False))
    s, a = np.meshgrid([-0.7, 0.0, 0.7], [-0.6, 0.1, 0.6])
    s, a = s.reshape(-1, 1).astype(np.float32), a.reshape(-1, 1).astype(np.float32)
    exact_q = -(s**2) - 0.5 * (s + a) ** 2 / (1 - 0.5 / 4)
    np.testing.assert_allclose(values.q(s, a), exact_q[:, 0], atol=0.05)
    np.testing.assert_allclose(values.v(s), (-(s**2) / (1 - 0.5 / 4))[:, 0], atol=0.05)


def test_blocks_do_not_change_values(evaluated, monkeypatch):
    _, _, fitted, episodes = evaluated
    states, actions = np.asarray(episodes.observation)[:10], np.asarray(episodes.action)[:10]
    whole = learned_values(fitted).q(states, actions)
    monkeypatch.setattr("polyact.evaluation.off_policy.learned.BLOCK", 3)
    np.testing.assert_allclose(learned_values(fitted).q(states, actions), whole, rtol=1e-6)


def test_impossible_requests_are_one_line():
    with pytest.raises(PolyactError, match="set one"):
        Target(10, 0.1)
    with pytest.raises(PolyactError, match="every must be at least 1"):
        Target(0)
    source = logged(WORLDS["lock"], 1)
    with pytest.raises(PolyactError, match="without memory, Counting has one"):
        fit(FQE(Counting(), **TABLE), source, steps=1, key=KEY, progress=False)
    fitted = fit(FQI(**TABLE), source, steps=1, key=KEY, batch_size=2, progress=False)
    with pytest.raises(PolyactError, match="needs a fitted FQE, got FQI"):
        learned_values(fitted)


class Counting(Policy):
    """Remembers how often it acted."""

    def start(self, key):
        return jnp.zeros((), jnp.int32)

    def act(self, observation, memory, key):
        return jnp.zeros((), jnp.int32), memory + 1
