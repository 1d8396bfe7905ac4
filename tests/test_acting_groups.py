"""Groups of answers: what the world wrote is not the policy's, and what was sampled is what the policy says it was."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.acting.groups import questions, sample_groups, turns
from polyact.envs.language.searchqa import SearchQA
from polyact.envs.language.tables import Match
from polyact.nets.transformer import Transformer
from polyact.policies.language.base import log_probs
from polyact.policies.language.table import TableLM
from polyact.policies.language.transformer import TransformerLM

KEY = jax.random.key(0)
SAMPLE = eqx.filter_jit(sample_groups)


@pytest.fixture(scope="module")
def searched():
    world = SearchQA(entities=3, calls=2)
    policy = eqx.filter_jit(TransformerLM.create)(
        world.vocabulary, Transformer(width=8, depth=1, heads=2, context=world.length), KEY
    )
    favoured = policy.out.bias.at[world.search].set(2.0).at[world.answer].set(1.0)
    policy = eqx.tree_at(lambda p: p.out.bias, policy, favoured)
    asked = eqx.filter_jit(questions)(world, 6, KEY)
    return world, policy, asked, SAMPLE(policy, world, asked, 16, KEY)


def test_recorded_log_probabilities_are_those_of_the_whole_sequence(searched):
    _, policy, _, rollouts = searched
    logp, entropy = eqx.filter_jit(log_probs)(policy, rollouts.tokens)
    np.testing.assert_allclose(rollouts.logp_old, logp * rollouts.action_mask, atol=1e-5)
    np.testing.assert_allclose(rollouts.entropy, entropy * rollouts.action_mask, atol=1e-5)


def test_only_what_the_policy_wrote_is_an_action(searched):
    world, _, asked, rollouts = searched
    tokens, mask = np.asarray(rollouts.tokens), np.asarray(rollouts.action_mask)
    assert not mask[:, :2].any()
    searching = (tokens[:, 2] == world.search) & (mask[:, 2] == 1)
    known = searching & (tokens[:, 3] < world.entities)
    assert known.sum() > 3
    assert not mask[searching, 4].any()
    facts = np.repeat(np.asarray(asked.facts), 16, 0)
    np.testing.assert_array_equal(tokens[known, 4], facts[known, tokens[known, 3]])
    np.testing.assert_array_equal(rollouts.group_id, np.repeat(np.arange(6), 16))
    np.testing.assert_array_equal(rollouts.written(world.search), ((tokens == world.search) * mask).sum(1))


def test_turns_begin_where_the_policy_writes_again():
    np.testing.assert_array_equal(turns(jnp.array([0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.0])), [0, 0, 0, 0, 1, 1, 1])


def test_samples_have_the_probabilities_of_the_table():
    table = TableLM(jnp.log(jnp.array([[[0.6, 0.3, 0.1]], [[0.1, 0.1, 0.8]]])))
    world = Match(jnp.array([[0], [2]]), 3)
    rollouts = SAMPLE(table, world, world.every, 4000, KEY)
    np.testing.assert_allclose(rollouts.reward.reshape(2, -1).mean(1), [0.6, 0.8], atol=0.03)


def test_temperature_is_part_of_what_was_sampled_from():
    table, world = TableLM(jnp.array([[[1.0, 0.0]]])), Match(jnp.array([[0]]), 2)
    hot = SAMPLE(table, world, world.every, 3000, KEY, 2.0)
    np.testing.assert_allclose(jnp.exp(hot.logp_old[:, 1]), jnp.where(hot.tokens[:, 1] == 0, 0.62246, 0.37754), rtol=1e-4)
    np.testing.assert_allclose(hot.reward.mean(), 0.62246, atol=0.03)
    assert SAMPLE(table, world, world.every, 5, KEY, 0.0).reward.all()
