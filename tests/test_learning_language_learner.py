"""The learner of language policies: exact gradients on a table, first ratios of one, and that it learns."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.acting.groups import sample_groups
from polyact.envs.language.tables import Match, logits_with
from polyact.errors import PolyactError
from polyact.learning.gradient_descent import GradientDescent
from polyact.learning.language.advantages import centred
from polyact.learning.language.imitate import imitate
from polyact.learning.language.surrogates import sequence_sum, token_mean, unclipped
from polyact.learning.language.token_learner import TokenLearner, improve
from polyact.learning.language.trl import with_terms
from polyact.learning.optimiser import Optimiser
from polyact.policies.language.base import log_probs
from polyact.policies.language.table import TableLM

KEY = jax.random.key(0)
SAMPLE, UPDATE = eqx.filter_jit(sample_groups), eqx.filter_jit(TokenLearner.update)


def reinforce(terms):
    return sequence_sum(unclipped(terms), terms.mask)


def test_the_expected_gradient_is_that_of_the_expected_reward():
    world = Match(jnp.array([[0, 1]]), 2)
    table = TableLM(jax.random.normal(KEY, (1, 2, 2)))
    rollouts = SAMPLE(table, world, world.every, 40_000, KEY)
    advantage = (rollouts.reward - 0.5)[:, None] * rollouts.action_mask

    def sampled(table):
        return (log_probs(table, rollouts.tokens)[0] * advantage).sum(-1).mean()

    exact = jax.grad(lambda t: world.expected(t.probabilities).sum())(table)
    np.testing.assert_allclose(jax.jit(jax.grad(sampled))(table).table, exact.table, atol=0.01)


def test_one_step_descends_the_loss_on_all_answers():
    world, table = Match(jnp.array([[0, 1], [1, 1]]), 3), TableLM(jax.random.normal(KEY, (2, 2, 3)))
    rollouts = SAMPLE(table, world, world.every, 8, KEY)
    advantage = centred(rollouts.reward, rollouts.group_id)
    learner = TokenLearner(lambda _: advantage, reinforce, Optimiser(learning_rate=0.1))
    moved, _, metrics = UPDATE(learner, table, learner.optimiser.init(table, 1), rollouts, KEY)

    def loss(table):  # at ratios of one the gradient is that of -A log p
        return -(log_probs(table, rollouts.tokens)[0] * rollouts.action_mask * advantage[:, None]).sum(-1).mean()

    gradient = jax.grad(loss)(table).table
    np.testing.assert_allclose(metrics["gradient_norm"], jnp.linalg.norm(gradient), rtol=1e-4)
    sure = jnp.abs(gradient) > 1e-5
    np.testing.assert_allclose((moved.table - table.table)[sure], -0.1 * jnp.sign(gradient)[sure], rtol=1e-2)  # Adam's first step


def test_minibatches_must_divide_the_answers():
    world = Match(jnp.array([[0]]), 2)
    table = TableLM(jnp.zeros((1, 1, 2)))
    learner = TokenLearner(minibatches=3)
    with pytest.raises(PolyactError, match="4 answers"):
        learner.update(table, learner.optimiser.init(table, 1), sample_groups(table, world, world.every, 4, KEY), KEY)
    with pytest.raises(PolyactError, match="positive"):
        TokenLearner(epochs=0)


def test_a_reference_policy_reaches_the_loss():
    world, table = Match(jnp.array([[0], [1]]), 3), TableLM(jax.random.normal(KEY, (2, 1, 3)))
    rollouts = SAMPLE(table, world, world.every, 4, KEY)

    def gap(terms):
        return token_mean(terms.logp - terms.logp_ref, terms.mask)

    learner = TokenLearner(loss=gap, reference=TableLM(jnp.zeros((2, 1, 3))))
    _, _, metrics = UPDATE(learner, table, learner.optimiser.init(table, 1), rollouts, KEY)
    np.testing.assert_allclose(metrics["loss"], rollouts.logp_old.sum() / 8 + np.log(3), rtol=1e-4)


def test_it_learns_and_resamples_at_every_step():
    target = jax.random.randint(KEY, (8, 2), 0, 4)
    world, table = Match(target, 4), TableLM(logits_with(target, jnp.full((8, 2), 0.4), 4))
    learner = TokenLearner(optimiser=Optimiser(learning_rate=0.1), epochs=2, minibatches=2)
    run = eqx.filter_jit(lambda key: improve(learner, table, world, lambda _: world.every, steps=40, group=8, key=key))
    policy, metrics = run(KEY)
    assert world.expected(policy.probabilities).mean() > 0.9
    assert metrics["reward"].shape == (40,)
    assert metrics["reward"][0] < 0.4 < 0.9 < metrics["reward"][-5:].mean()


def test_imitation_makes_what_is_shown_certain():
    shown, mask = jnp.tile(jnp.array([[2, 0, 1, 1]]), (4, 1)), jnp.tile(jnp.array([[0.0, 1.0, 1.0, 1.0]]), (4, 1))
    policy = TableLM(jnp.zeros((3, 3, 2)))
    fast = Optimiser(learning_rate=0.3)
    run = eqx.filter_jit(lambda key: imitate(policy, shown, mask, steps=60, batch=4, key=key, optimiser=fast))
    learnt, losses = run(KEY)
    np.testing.assert_allclose(losses[0], np.log(2), rtol=1e-5)
    assert learnt.probabilities[2, jnp.arange(3), jnp.array([0, 1, 1])].min() > 0.99
    np.testing.assert_array_equal(learnt.table[:2], 0)


def test_a_trainer_gets_only_the_methods_that_were_asked_for():
    class Trainer:
        def _calculate_rewards(self):
            return 1

        def _generate_and_score_completions(self, inputs):
            return {}

    assert set(vars(with_terms(Trainer, loss=reinforce))) >= {"_compute_loss"}
    assert "_calculate_rewards" not in vars(with_terms(Trainer, loss=reinforce))
    assert "_compute_loss" not in vars(with_terms(Trainer, advantage=lambda rewards, group: rewards[:, 0]))
    with pytest.raises(PolyactError, match="a loss, an advantage or both"):
        with_terms(Trainer)


def test_plain_descent_steps_by_the_gradient():
    table = TableLM(jnp.zeros((1, 1, 2)))
    rule = GradientDescent(0.5)
    moved, state = rule.step(TableLM(jnp.array([[[1.0, -2.0]]])), rule.init(table, 1), table)
    np.testing.assert_array_equal(moved.table, [[[-0.5, 1.0]]])
    assert state is None
    with pytest.raises(PolyactError, match="negative"):
        GradientDescent(-1.0)
