"""DRPG's gradients against differentiation, its inner loop against exact solutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.envs import exact, exact_robust
from polyact.envs.tabular_builders import garnet
from polyact.envs.uncertainty import Rows, SharedRows, Tilt
from polyact.systems.online.drpg import DRPG, Task, costs, gradients, solve, worst

WORLD = costs(garnet(3, 2, 3, 5), np.random.default_rng(5))
TASK, BASE = Task.of(WORLD, 0.9), jnp.asarray(WORLD.transition)
POLICY = jnp.asarray([[0.3, 0.7], [0.6, 0.4], [0.5, 0.5]])
RADIUS = jnp.asarray([[0.3, 0.2], [0.5, 0.4], [0.1, 0.3]])
DEEP = DRPG(rate=0.1, steps=60, inner_steps=300, precision=0.02)


def ret(task, policy, kernel):
    chain = jnp.eye(3) - task.discount * jnp.einsum("sa,sat->st", policy, kernel)
    return task.start @ jnp.linalg.solve(chain, jnp.einsum("sa,sat,sat->s", policy, kernel, task.reward))


def test_the_closed_gradients_are_those_of_differentiation():
    found = gradients(TASK, POLICY, BASE)
    wanted = jax.grad(ret, (1, 2))(TASK, POLICY, BASE)
    # The return as a function of tables that need not be normalised: q includes the baseline v, which the projection removes.
    np.testing.assert_allclose(found.kernel, wanted[1], rtol=1e-3)
    np.testing.assert_allclose(found.policy, wanted[0], rtol=1e-3)
    assert float(found.value) == pytest.approx(exact.expected_return(WORLD, np.asarray(POLICY), 0.9), rel=1e-5)


def test_the_inner_loop_finds_the_worst_kernel():
    exact_value = float(
        np.asarray(WORLD.initial) @ exact_robust.robust_values(WORLD, np.asarray(POLICY), np.asarray(RADIUS), 0.9).values
    )
    adversary = Rows(BASE, RADIUS)
    kernel, _ = worst(DEEP, TASK, adversary, POLICY, adversary.begin(), 1e-5)
    assert float(gradients(TASK, POLICY, kernel).value) == pytest.approx(exact_value, rel=1e-4)
    np.testing.assert_allclose(jnp.abs(kernel - BASE).sum(-1), RADIUS, atol=1e-4)


def test_the_policy_found_is_the_best_robust_one():
    found = solve(DEEP, TASK, Rows(BASE, RADIUS))
    best = exact_robust.robust_value_iteration(WORLD, np.asarray(RADIUS), 0.9)
    reached = exact_robust.robust_values(WORLD, np.asarray(found.policy), np.asarray(RADIUS), 0.9)
    initial = np.asarray(WORLD.initial)
    assert initial @ reached.values == pytest.approx(initial @ best.values, rel=1e-3)


def test_without_an_adversary_it_is_policy_gradient():
    found = solve(DEEP, TASK, Rows(BASE, 0 * RADIUS))
    best = exact.policy_iteration(WORLD, 0.9)
    assert exact.expected_return(WORLD, np.asarray(found.policy), 0.9) == pytest.approx(
        np.asarray(WORLD.initial) @ best.values, rel=1e-3
    )
    moved = jnp.full((3, 2), 0.5) + 0.1 * gradients(TASK, jnp.full((3, 2), 0.5), BASE).policy
    over = moved - (moved.sum(1, keepdims=True) - 1) / 2
    np.testing.assert_allclose(found.policies[1], jnp.clip(over, 0, 1), atol=1e-5)


def test_a_shared_radius_hurts_at_least_as_much_as_its_even_split():
    apart, shared = Rows(BASE, jnp.full((3, 2), 0.2)), SharedRows(BASE, jnp.full(3, 0.4))
    returns = [
        float(gradients(TASK, POLICY, worst(DEEP, TASK, adversary, POLICY, adversary.begin(), 1e-5)[0]).value)
        for adversary in (apart, shared)
    ]
    assert returns[1] <= returns[0] + 1e-3


def test_tilted_rows_keep_their_support_and_do_harm():
    nominal = BASE.at[0, 0].set(jnp.asarray([0.4, 0.6, 0.0]))
    adversary = Tilt(nominal, jnp.eye(3)[:, :2], jnp.ones((3, 2, 2)), (jnp.zeros(2), jnp.full(2, 0.6)))
    np.testing.assert_allclose(adversary.kernel(adversary.begin()), nominal, atol=1e-6)
    (theta, lambda_), _ = worst(DRPG(inner_rate=0.01, inner_steps=200), TASK, adversary, POLICY, adversary.begin(), 1e-4)
    kernel = adversary.kernel((theta, lambda_))
    assert float(kernel[0, 0, 2]) == 0
    assert float(jnp.abs(theta).sum()) <= 1 + 1e-5
    assert float(gradients(TASK, POLICY, kernel).value) < float(gradients(TASK, POLICY, nominal).value)
