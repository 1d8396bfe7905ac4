"""Off-policy evaluation against exact answers: every trajectory of a small MDP is enumerated, so expectations are sums."""

import itertools
import math
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.data.episodes import Episodes
from polyact.errors import DataError, PolyactError
from polyact.evaluation.off_policy import estimators as ope
from polyact.evaluation.off_policy import log as logs
from polyact.evaluation.off_policy import values
from polyact.policies.base import StochasticPolicy

S, A, H, DISCOUNT = 2, 2, 3, 0.9
START = np.array([0.6, 0.4])
MOVES = np.array([[[0.7, 0.3], [0.2, 0.8]], [[0.5, 0.5], [0.9, 0.1]]])  # [S, A, S]
REWARD = np.array([[1.0, -0.5], [2.0, 0.3]])
BEHAVIOUR = np.array([[0.6, 0.4], [0.3, 0.7]])
TARGET = np.array([[0.1, 0.9], [0.8, 0.2]])


def timed(table):
    """The same table for states numbered time * S + state, so that finite-horizon values are functions of the state."""
    return np.tile(table, (H + 1, 1))


def exact_values():
    q, v = np.zeros((H + 1, S, A)), np.zeros((H + 1, S))
    for t in reversed(range(H)):
        q[t] = REWARD + DISCOUNT * MOVES @ v[t + 1]
        v[t] = (TARGET * q[t]).sum(1)
    return q.reshape(-1, A), float(START @ v[0])


@pytest.fixture(scope="module")
def world():
    """All trajectories as episodes, with their probability under the behaviour."""
    chance, states, actions = [], [], []
    for path in itertools.product(range(S), *[range(A), range(S)] * H):
        s, a = path[0::2], path[1::2]
        p = START[s[0]] * math.prod(BEHAVIOUR[s[t], a[t]] * MOVES[s[t], a[t], s[t + 1]] for t in range(H))
        chance.append(p)
        states.append([t * S + s[t] for t in range(H + 1)])
        actions.append(a)
    states, actions = np.array(states), np.array(actions)
    plain = states[:, :-1] % S
    return np.array(chance), Episodes(
        lengths=np.full(len(chance), H),
        observation=states.reshape(-1),
        action=actions.reshape(-1),
        reward=REWARD[plain, actions].reshape(-1),
        terminated=np.tile(np.arange(H) == H - 1, len(chance)),
        truncated=np.zeros(len(chance) * H, bool),
        log_prob=np.log(BEHAVIOUR[plain, actions]).reshape(-1),
    )


def contributions(episodes, name, q=None, table=TARGET):
    model = None if q is None else values.tabular_values(q, timed(table))
    target = logs.tabular_log_prob(episodes, timed(table))
    return ope.off_policy_evaluation(episodes, target, discount=DISCOUNT, values=model, estimators=[name])[name].contributions


def moments(chance, x):
    mean = float(chance @ x)
    return mean, float(chance @ (x - mean) ** 2)


@pytest.mark.parametrize("name", ["importance sampling", "per-decision importance sampling"])
def test_importance_sampling_is_unbiased(world, name):
    chance, episodes = world
    assert chance.sum() == pytest.approx(1, abs=1e-12)
    assert moments(chance, contributions(episodes, name))[0] == pytest.approx(exact_values()[1], abs=1e-10)


def test_deciding_per_step_has_less_variance(world):
    chance, episodes = world
    whole, per_decision = (
        moments(chance, contributions(episodes, n))[1] for n in ("importance sampling", "per-decision importance sampling")
    )
    assert per_decision < 0.9 * whole


def test_doubly_robust_is_unbiased_with_any_model(world):
    chance, episodes = world
    wrong = np.random.default_rng(0).normal(size=((H + 1) * S, A))
    wrong[-S:] = 0
    assert moments(chance, contributions(episodes, "doubly robust", wrong))[0] == pytest.approx(exact_values()[1], abs=1e-10)


def test_doubly_robust_with_the_true_model_beats_importance_sampling(world):
    chance, episodes = world
    q, truth = exact_values()
    mean, variance = moments(chance, contributions(episodes, "doubly robust", q))
    assert mean == pytest.approx(truth, abs=1e-10)
    assert variance < 0.5 * moments(chance, contributions(episodes, "per-decision importance sampling"))[1]


def test_doubly_robust_with_the_true_model_forgives_wrong_weights(world):
    chance, episodes = world
    q, truth = exact_values()
    wrong = replace(episodes, log_prob=np.full(episodes.steps, np.log(0.5)))
    assert moments(chance, contributions(wrong, "doubly robust", q))[0] == pytest.approx(truth, abs=1e-10)
    assert abs(moments(chance, contributions(wrong, "importance sampling"))[0] - truth) > 0.1


def test_direct_method_with_the_true_model_is_the_value_of_each_start(world):
    chance, episodes = world
    q, truth = exact_values()
    assert moments(chance, contributions(episodes, "direct method", q))[0] == pytest.approx(truth, abs=1e-10)


def test_same_policy_gives_weights_of_one(world):
    _, episodes = world
    found = ope.off_policy_evaluation(episodes, logs.tabular_log_prob(episodes, timed(BEHAVIOUR)), discount=1.0)
    for result in found.values():
        assert result.estimate.value == pytest.approx(episodes.returns.mean(), abs=1e-12)
        assert result.diagnostics.effective_episodes == pytest.approx(episodes.count)
        assert result.warnings == ()


def sampled(count, seed=0):
    """Episodes of varying length drawn from the behaviour; state 1 ends them with probability 1/2 per step."""
    rng = np.random.default_rng(seed)
    lengths, observation, action, reward, ends = [], [], [], [], []
    for _ in range(count):
        s, steps = int(rng.random() > START[0]), 0
        observation.append(s)
        for t in range(40):
            a = int(rng.random() > BEHAVIOUR[s, 0])
            reward.append(REWARD[s, a])
            end = bool(s == 1 and rng.random() < 0.5)
            s = int(rng.random() > MOVES[s, a, 0])
            action.append(a)
            observation.append(s)
            ends.append(end)
            steps = t + 1
            if end:
                break
        lengths.append(steps)
    episodes = Episodes(
        lengths=np.array(lengths),
        observation=np.array(observation),
        action=np.array(action),
        reward=np.array(reward),
        terminated=np.array(ends),
    )
    states, actions = logs.numbered(episodes)
    return replace(episodes, log_prob=np.log(BEHAVIOUR[states, actions]))


def test_all_estimators_agree_on_a_long_log_of_varying_lengths():
    episodes = sampled(3000, seed=1)
    mild = 0.5 * BEHAVIOUR + 0.5 * TARGET
    model, _ = values.fitted_q_tabular(episodes, mild, DISCOUNT)
    continues = np.array([1.0, 0.5])
    flow = np.eye(S) - DISCOUNT * continues[:, None] * np.einsum("sa,sat->st", mild, MOVES)
    truth = float(START @ np.linalg.solve(flow, (mild * REWARD).sum(1)))
    target = logs.tabular_log_prob(episodes, mild)
    found = ope.off_policy_evaluation(
        episodes, target, discount=DISCOUNT, values=model, unsupported=logs.unsupported(episodes, mild)
    )
    assert list(found) == list(ope.ESTIMATORS)
    for name, result in found.items():
        assert result.estimate.value == pytest.approx(truth, rel=0.05), name
        assert result.estimate.resampled == "episodes"
        if name != "direct method":
            assert result.estimate.low < truth < result.estimate.high, name
    widths = {name: result.estimate.high - result.estimate.low for name, result in found.items()}
    assert widths["doubly robust"] < widths["importance sampling"]
    assert widths["weighted importance sampling"] < 1.05 * widths["importance sampling"]


def test_fitted_q_equals_the_linear_solve_of_the_empirical_mdp():
    episodes = sampled(200)
    _, q = values.fitted_q_tabular(episodes, TARGET, DISCOUNT)
    states, actions = logs.numbered(episodes)
    after, goes_on = logs.next_observations(episodes), ~logs.terminated(episodes)
    reward, flow = np.zeros(S * A), np.zeros((S * A, S * A))
    for s, a in itertools.product(range(S), range(A)):
        rows = np.flatnonzero((states == s) & (actions == a))
        reward[s * A + a] = episodes.reward[rows].mean()
        for row in rows[goes_on[rows]]:
            flow[s * A + a, after[row] * A : after[row] * A + A] += TARGET[after[row]] / len(rows)
    solved = np.linalg.solve(np.eye(S * A) - DISCOUNT * flow, reward)
    np.testing.assert_allclose(q.reshape(-1), solved, atol=1e-9)


def test_linear_fitted_q_with_one_hot_features_is_the_tabular_one():
    episodes = sampled(200)
    _, q = values.fitted_q_tabular(episodes, TARGET, DISCOUNT)
    pairs = np.eye(S * A)
    model, w = values.fitted_q_linear(
        episodes,
        lambda s, a: pairs[s * A + a],
        lambda s: np.einsum("na,nak->nk", TARGET[s], pairs.reshape(S, A, -1)[s]),
        DISCOUNT,
        ridge=0.0,
    )
    np.testing.assert_allclose(w.reshape(S, A), q, atol=1e-6)
    np.testing.assert_allclose(model.v(np.array([0, 1])), (q * TARGET).sum(1), atol=1e-6)


def test_divergence_is_an_error():
    episodes = sampled(50)
    with pytest.raises(PolyactError, match="diverged"):
        values.fitted_q_linear(episodes, lambda s, a: np.ones((len(s), 1)), lambda s: np.full((len(s), 1), 3.0), DISCOUNT)


def test_weighted_estimators_normalise(world):
    _, episodes = world
    log = logs.weigh(episodes, logs.tabular_log_prob(episodes, timed(TARGET)), DISCOUNT)
    w = np.exp(log.log_weight)
    last, returns = w[:, -1], log.reward.sum(1)
    assert ope.weighted_importance_sampling(log).mean() == pytest.approx((last * returns).sum() / last.sum(), abs=1e-12)
    expected = sum((w[:, t] * log.reward[:, t]).sum() / w[:, t].sum() for t in range(H))
    assert ope.weighted_per_decision_importance_sampling(log).mean() == pytest.approx(expected, abs=1e-12)


def test_missing_propensities_name_the_cure_and_counting_is_one():
    episodes = sampled(2000).without("log_prob")
    target = logs.tabular_log_prob(episodes, TARGET)
    with pytest.raises(DataError, match="estimate_propensities"):
        ope.off_policy_evaluation(episodes, target, discount=DISCOUNT)
    counted = logs.estimate_propensities(episodes)
    states, actions = logs.numbered(counted)
    assert np.exp(counted.log_prob) == pytest.approx(BEHAVIOUR[states, actions], abs=0.03)


class Table(StochasticPolicy):
    logits: jax.Array

    def start(self, key):
        return None

    def act(self, observation, memory, key):
        return jax.random.categorical(key, self.logits[observation]), memory

    def log_prob(self, observation, action):
        return jax.nn.log_softmax(self.logits[observation])[action]

    def mode(self, observation):
        return jnp.argmax(self.logits[observation])


def test_a_policy_is_a_target_and_can_complete_a_log():
    episodes = sampled(30)
    policy = Table(jnp.log(TARGET))
    expected = logs.tabular_log_prob(episodes, TARGET)
    np.testing.assert_allclose(logs.log_prob_of(policy, episodes), expected, atol=1e-5)
    behaving = eqx.tree_at(lambda p: p.logits, policy, jnp.log(BEHAVIOUR))
    np.testing.assert_allclose(logs.with_log_prob(episodes, behaving).log_prob, episodes.log_prob, atol=1e-5)


def test_unreliable_estimates_say_so():
    episodes = sampled(40)
    certain = np.array([[0.001, 0.999], [0.999, 0.001]])
    found = ope.off_policy_evaluation(episodes, logs.tabular_log_prob(episodes, certain), discount=DISCOUNT)
    assert any("effective" in warning for warning in found["importance sampling"].warnings)
    assert found["importance sampling"].estimate.note


def test_missing_support_is_measured_and_seen_in_the_weights():
    episodes = sampled(2000)
    states, actions = logs.numbered(episodes)
    assert logs.unsupported(episodes, TARGET) == 0
    only_first = replace(episodes, action=np.zeros_like(actions), log_prob=np.zeros(episodes.steps))
    assert logs.unsupported(only_first, TARGET) == pytest.approx(TARGET[states, 1].mean())
    target = logs.tabular_log_prob(only_first, TARGET)
    warnings = ope.off_policy_evaluation(only_first, target, discount=DISCOUNT)["importance sampling"].warnings
    assert any("not 1" in warning for warning in warnings)


def test_cut_episodes_are_mentioned_where_their_future_counts():
    episodes = sampled(300)
    cut = replace(episodes, terminated=np.zeros(episodes.steps, bool))
    target = logs.tabular_log_prob(cut, BEHAVIOUR)
    assert any("cut off" in w for w in ope.off_policy_evaluation(cut, target, discount=0.9)["importance sampling"].warnings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": None}, "rewards"),
        ({"action": None}, "actions"),
        ({"log_prob": np.full(5, -np.inf)}, "finite"),
        ({"observation": np.zeros((7, 2))}, "whole numbers"),
    ],
)
def test_unfit_logs_are_refused(change, message):
    episodes = Episodes(
        lengths=np.array([2, 3]),
        observation=np.zeros(7, np.int64),
        action=np.zeros(5, np.int64),
        reward=np.ones(5),
        log_prob=np.zeros(5),
    )
    broken = replace(episodes, **change)
    with pytest.raises(DataError, match=message):
        ope.off_policy_evaluation(broken, logs.tabular_log_prob(broken, np.ones((1, 1))), discount=0.9)


def test_bad_requests_are_refused():
    episodes = sampled(10)
    target = logs.tabular_log_prob(episodes, TARGET)
    with pytest.raises(PolyactError, match="did you mean 'doubly robust'"):
        ope.off_policy_evaluation(episodes, target, estimators=["doubly robus"])
    with pytest.raises(PolyactError, match="needs values"):
        ope.off_policy_evaluation(episodes, target, estimators=["doubly robust"])
    with pytest.raises(PolyactError, match="discount"):
        ope.off_policy_evaluation(episodes, target, discount=1.5)
    with pytest.raises(PolyactError, match=r"expected \(\d+,\)"):
        ope.off_policy_evaluation(episodes, target[:-1])
    with pytest.raises(PolyactError, match="sum to 1"):
        logs.tabular_log_prob(episodes, np.ones((S, A)))
    with pytest.raises(PolyactError, match="shape"):
        logs.tabular_log_prob(episodes, np.ones((1, A)) / A)
    with pytest.raises(PolyactError, match="overflow"):
        ope.off_policy_evaluation(episodes, np.full(episodes.steps, 800.0))
    with pytest.raises(PolyactError, match="all importance weights are zero"):
        ope.off_policy_evaluation(episodes, np.full(episodes.steps, -np.inf))
