"""TRPO on exact tabular quantities, and the learner's invariance to the scale of rewards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact import tree
from polyact.envs import exact
from polyact.envs.cartpole import CartPoleSwingUp
from polyact.envs.tabular_builders import chain, garnet
from polyact.errors import PolyactError
from polyact.learning.actor import Actor
from polyact.learning.natural_gradient import TrustRegion
from polyact.learning.train import train
from polyact.learning.trpo import TRPO
from polyact.nets.mlp import Network
from polyact.policies.deterministic import Deterministic
from polyact.systems.online.trpo import FixedNatural, Plain, Scaled, Unchecked, exact_step, improvement_bound

WORLD, DISCOUNT = garnet(5, 3, 3, 0), 0.9
LOGITS = np.random.default_rng(0).normal(size=(5, 3))
SMALL = TRPO(network=Network(width=8, activation="tanh", final_scale=0.01), rollout_length=25, value_features=8)


def test_the_natural_direction_is_the_advantage_up_to_a_constant_for_each_state():
    with jax.enable_x64():
        rule = FixedNatural(1.0, TrustRegion(damping=0.0, iterations=60, tolerance=1e-12))
        new, _ = exact_step(WORLD, LOGITS, rule, DISCOUNT)
    values = exact.evaluate_policy(WORLD, exact.softmax_policy(LOGITS), DISCOUNT)
    advantage = (exact.action_values(WORLD, values, DISCOUNT) - values[:, None]) / (1 - DISCOUNT)
    moved = new - LOGITS
    np.testing.assert_allclose(moved - moved.mean(1, keepdims=True), advantage - advantage.mean(1, keepdims=True), atol=1e-6)


def test_every_accepted_step_keeps_the_promise_of_the_bound():
    logits = LOGITS
    returns = []
    for _ in range(15):
        new, moved = exact_step(WORLD, logits, TrustRegion(damping=0.0), DISCOUNT)
        old_policy, new_policy = exact.softmax_policy(logits), exact.softmax_policy(new)
        returns.append(exact.expected_return(WORLD, new_policy, DISCOUNT))
        assert float(moved.kl) <= 0.01
        assert returns[-1] >= improvement_bound(WORLD, old_policy, new_policy, DISCOUNT) - 1e-6
        logits = new
    assert np.all(np.diff(returns) > 0)
    at_rest = improvement_bound(WORLD, new_policy, new_policy, DISCOUNT)
    assert at_rest == pytest.approx(returns[-1], rel=1e-9)


def test_rivals_move_as_they_say():
    plain, moved = exact_step(WORLD, LOGITS, Plain(0.01), DISCOUNT)
    np.testing.assert_allclose((plain - LOGITS) / 0.01, exact.policy_gradient(WORLD, LOGITS, DISCOUNT), atol=1e-3)
    checked, unchecked = (exact_step(WORLD, LOGITS, rule, DISCOUNT)[1] for rule in (TrustRegion(), Unchecked()))
    assert float(unchecked.share) == 1
    assert float(moved.kl) > 0
    if float(checked.share) == 1:
        np.testing.assert_allclose(checked.parameters, unchecked.parameters)


def run(factor: float, learner=SMALL):
    world = tree.numbers_as_arrays(Scaled(CartPoleSwingUp(), factor))
    return train(tree.numbers_as_arrays(learner), world, steps=600, key=jax.random.key(0), envs=4, report_every=100, progress=False)


def test_the_scale_of_rewards_changes_nothing_at_all():
    once, scaled = run(1.0), run(128.0)
    for one, other in zip(
        jax.tree.leaves(tree.trainable(once.policy)[0]), jax.tree.leaves(tree.trainable(scaled.policy)[0]), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert all(record["kl"] <= 0.01 for record in once.history)
    assert max(record["share"] for record in once.history) > 0


def test_discrete_actions_in_a_table():
    found = train(SMALL, chain(3), steps=600, key=jax.random.key(1), envs=4, progress=False)
    assert int(found.policy.mode(jnp.asarray(0))) in (0, 1)


def test_an_actor_without_a_known_divergence_is_refused():
    with pytest.raises(PolyactError, match="divergence"):
        train(TRPO(actor=Actor(Deterministic)), CartPoleSwingUp(), steps=100, key=jax.random.key(0), progress=False)
