"""Exact solvers against each other, brute force, simulation, finite differences and identities that must hold to rounding."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.envs.exact import (
    action_values,
    evaluate_finite,
    evaluate_policy,
    expected_return,
    finite_return,
    model,
    occupancy,
    policy_gradient,
    policy_iteration,
    softmax_policy,
    solve_finite,
    state_distributions,
    stationary,
    value_iteration,
)
from polyact.envs.tabular import Tabular
from polyact.envs.tabular_builders import (
    chain,
    combination_lock,
    four_rooms,
    garnet,
    inventory,
    machine_replacement,
    windy_grid,
)
from polyact.envs.vector import reset_many, step_many
from polyact.errors import PolyactError

DISCOUNT = 0.9


def ending(seed: int, states: int = 5, actions: int = 3) -> Tabular:
    """A random world whose last state is terminal."""
    world = garnet(states, actions, 3, seed)
    terminal = np.arange(states) == states - 1
    return Tabular(world.transition, world.reward, ~terminal / (states - 1), terminal)


def random_policy(env: Tabular, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(env.actions), env.states)


WORLDS = [ending(0), ending(1), garnet(6, 3, 2, 7), chain(), four_rooms(), inventory(capacity=8, demand=2.0), machine_replacement()]
names = pytest.mark.parametrize("env", WORLDS, ids=lambda env: f"{env.states}x{env.actions}")


@names
def test_value_and_policy_iteration_agree(env: Tabular):
    by_value, by_policy = value_iteration(env, DISCOUNT), policy_iteration(env, DISCOUNT)
    np.testing.assert_allclose(by_value.values, by_policy.values, atol=1e-9)
    np.testing.assert_allclose(evaluate_policy(env, by_value.policy, DISCOUNT), by_policy.values, atol=1e-9)
    np.testing.assert_allclose(by_policy.action_values.max(1), by_policy.values, atol=1e-9)


@pytest.mark.parametrize("env", [ending(3, 4, 2), garnet(4, 2, 2, 11)])
def test_the_optimum_is_the_best_of_all_deterministic_policies(env: Tabular):
    policies = [np.eye(env.actions)[list(choice)] for choice in product(range(env.actions), repeat=env.states)]
    best = np.max([evaluate_policy(env, policy, DISCOUNT) for policy in policies], axis=0)
    np.testing.assert_allclose(policy_iteration(env, DISCOUNT).values, best, atol=1e-12)


@names
def test_a_policy_evaluation_is_a_fixed_point(env: Tabular):
    policy = random_policy(env, 2)
    values = evaluate_policy(env, policy, DISCOUNT)
    np.testing.assert_allclose((policy * action_values(env, values, DISCOUNT)).sum(1), values, atol=1e-10)
    assert np.all(values[np.asarray(env.terminal)] == 0)


@names
def test_occupancy_sums_and_gives_the_return(env: Tabular):
    policy = random_policy(env, 3)
    visits = occupancy(env, policy, DISCOUNT)
    assert np.all(visits >= -1e-12)
    assert (visits * model(env).reward).sum() == pytest.approx(expected_return(env, policy, DISCOUNT), abs=1e-10)
    np.testing.assert_allclose(visits, visits.sum(1, keepdims=True) * policy, atol=1e-12)
    if np.any(env.terminal):
        assert visits.sum() < 1 / (1 - DISCOUNT)
    else:
        assert visits.sum() == pytest.approx(1 / (1 - DISCOUNT), rel=1e-12)


@names
def test_performance_difference_lemma(env: Tabular):
    old, new = random_policy(env, 4), random_policy(env, 5)
    values = evaluate_policy(env, old, DISCOUNT)
    advantage = action_values(env, values, DISCOUNT) - values[:, None]
    gain = expected_return(env, new, DISCOUNT) - expected_return(env, old, DISCOUNT)
    assert (occupancy(env, new, DISCOUNT) * advantage).sum() == pytest.approx(gain, abs=1e-10)


@pytest.mark.parametrize("env", WORLDS[:4], ids=lambda env: f"{env.states}x{env.actions}")
def test_policy_gradient_equals_finite_differences(env: Tabular):
    logits = np.random.default_rng(6).standard_normal((env.states, env.actions))
    gradient = policy_gradient(env, logits, DISCOUNT)
    for place in np.ndindex(*logits.shape):
        step = np.zeros_like(logits)
        step[place] = 1e-5
        ahead, behind = (expected_return(env, softmax_policy(logits + s), DISCOUNT) for s in (step, -step))
        assert gradient[place] == pytest.approx((ahead - behind) / 2e-5, abs=1e-7)
    np.testing.assert_allclose(gradient.sum(1), 0, atol=1e-12)


def test_finite_horizon_agrees_with_the_limit_and_with_recursion_by_hand():
    env = ending(2)
    policy = random_policy(env, 7)
    values = evaluate_finite(env, policy, 400, DISCOUNT)
    np.testing.assert_allclose(values[0], evaluate_policy(env, policy, DISCOUNT), atol=1e-12)
    np.testing.assert_allclose(values[399], (policy * model(env).reward).sum(1), atol=1e-12)
    within = evaluate_finite(env, policy, env.horizon, DISCOUNT)[0]
    assert finite_return(env, policy, DISCOUNT) == pytest.approx(float(model(env).initial @ within), rel=1e-12)
    optimal, policies = solve_finite(env, 400, DISCOUNT)
    np.testing.assert_allclose(optimal[0], policy_iteration(env, DISCOUNT).values, atol=1e-12)
    np.testing.assert_allclose(evaluate_finite(env, policies, 400, DISCOUNT), optimal, atol=1e-12)


def test_finite_horizon_optimum_is_the_best_of_all_plans():
    env, horizon = ending(8, 3, 2), 3
    choices = [np.eye(2)[list(choice)] for choice in product(range(2), repeat=3)]
    best = max(float(model(env).initial @ evaluate_finite(env, np.stack(plan), horizon)[0]) for plan in product(choices, repeat=3))
    values, _ = solve_finite(env, horizon)
    assert float(model(env).initial @ values[0]) == pytest.approx(best, abs=1e-12)


def test_state_distributions_and_returns_match_simulation():
    env, horizon, count = ending(4), 12, 40_000
    policy = random_policy(env, 8)
    logits = jnp.log(jnp.asarray(policy))

    @jax.jit
    def simulate(key):
        def advance(carry, key):
            vector, alive = carry
            choose, move = jax.random.split(key)
            actions = jax.random.categorical(choose, logits[vector.observation])
            new, step = step_many(env, vector, actions, jax.random.split(move, count))
            return (new, alive & ~step.terminated), (jnp.where(alive, step.reward, 0), vector.state, alive)

        start, *keys = jax.random.split(key, horizon + 1)
        carry = reset_many(env, jax.random.split(start, count)), jnp.ones(count, bool)
        return jax.lax.scan(advance, carry, jnp.stack(keys))[1]

    rewards, states, alive = (np.asarray(part) for part in simulate(jax.random.key(0)))
    exact = float(model(env).initial @ evaluate_finite(env, policy, horizon)[0])
    returns = rewards.sum(0)
    assert abs(returns.mean() - exact) < 4 * returns.std() / np.sqrt(count)
    shares = np.stack([np.bincount(s[a], minlength=env.states) / count for s, a in zip(states, alive, strict=True)])
    np.testing.assert_allclose(shares, state_distributions(env, policy, horizon), atol=0.012)


def test_the_stationary_distribution_stays_and_is_where_time_leads():
    env = garnet(8, 3, 4, 5)
    policy = random_policy(env, 9)
    share = stationary(env, policy)
    chain_of_states = np.einsum("ij,ijk->ik", policy, model(env).continuing)
    np.testing.assert_allclose(share @ chain_of_states, share, atol=1e-12)
    np.testing.assert_allclose(share, state_distributions(env, policy, 400)[-1], atol=1e-12)
    apart = Tabular(np.eye(3)[:, None], np.zeros((3, 1)), np.eye(3)[0], np.zeros(3, bool))
    with pytest.raises(PolyactError, match="several stationary distributions"):
        stationary(apart, np.ones((3, 1)))
    with pytest.raises(PolyactError, match="state 4 is terminal"):
        stationary(ending(0), random_policy(ending(0), 0))


def test_known_answers():
    start = 30
    assert value_iteration(windy_grid(), 1.0).values[start] == pytest.approx(-15)
    assert value_iteration(windy_grid(moves=8), 1.0).values[start] == pytest.approx(-7)
    onwards = np.eye(2)[[0] * 5]
    visits = occupancy(chain(), onwards, 0.9999) * (1 - 0.9999)
    assert (visits * model(chain()).reward).sum() == pytest.approx(3.6768, abs=2e-3)
    np.testing.assert_array_equal(policy_iteration(chain(), 0.99).policy, onwards)
    for actions, length in ((2, 5), (3, 4)):
        lock = combination_lock(length, actions)
        uniform = np.full((length + 1, actions), 1 / actions)
        assert occupancy(lock, uniform, 1.0).sum() == pytest.approx((actions ** (length + 1) - actions) / (actions - 1))
        assert expected_return(lock, policy_iteration(lock, 0.9).policy, 0.9) == pytest.approx(0.9 ** (length - 1))


def test_optimal_policies_have_the_structure_that_theory_promises():
    replace = policy_iteration(machine_replacement(), 0.95).policy.argmax(1)
    assert np.all(np.diff(replace) >= 0)
    assert set(replace) == {0, 1}
    orders = policy_iteration(inventory(order_cost=0.0), 0.95).policy.argmax(1)
    level = orders[0]
    np.testing.assert_array_equal(orders, np.maximum(level - np.arange(len(orders)), 0))
    with_fee = policy_iteration(inventory(order_cost=12.0), 0.95).policy.argmax(1)
    ordering = with_fee > 0
    assert np.all(np.diff(ordering.astype(int)) <= 0)
    assert len({stock + order for stock, order in enumerate(with_fee) if order}) == 1


def test_what_has_no_answer_says_so():
    with pytest.raises(PolyactError, match="discount 1 needs a policy that ends"):
        evaluate_policy(chain(), random_policy(chain(), 0), 1.0)
    with pytest.raises(PolyactError, match="did not reach 1e-10 in 50 sweeps"):
        value_iteration(chain(), 1.0, sweeps=50)
    with pytest.raises(PolyactError, match=r"shape \(5, 2\), got \(2, 5\)"):
        evaluate_policy(chain(), np.ones((2, 5)) / 5, 0.9)
    with pytest.raises(PolyactError, match="probabilities that sum to 1"):
        occupancy(chain(), np.ones((5, 2)), 0.9)
    with pytest.raises(PolyactError, match=r"discount must lie in \[0, 1\], got 1.5"):
        evaluate_policy(chain(), random_policy(chain(), 0), 1.5)


def test_a_discount_above_one_is_refused_at_once():
    for solve in (value_iteration, policy_iteration):
        with pytest.raises(PolyactError, match=r"discount must lie in \[0, 1\]"):
            solve(chain(), 1.5)


def test_a_world_without_a_step_is_refused():
    with pytest.raises(PolyactError, match="horizon must be a whole number of at least 1"):
        chain(horizon=0)
