"""Stratified GRPO: the paper's identities on random data, its limit cases, and a control that keeps the sizes of strata."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from token_examples import random_rewards

from polyact.acting.groups import sample_groups
from polyact.envs.language.tables import SEARCH, GuessOrSearch, search_logits
from polyact.learning.language.advantages import centred, group_relative
from polyact.policies.language.base import log_probs
from polyact.policies.language.table import TableLM
from polyact.systems.language.stratified_grpo import at_random, by_calls, strata, stratified


def prompt(seed):
    """Rewards and structures of 24 answers to one prompt."""
    reward, _, structure = random_rewards(seed, kind=np.float64)
    return reward, np.zeros(len(reward), int), structure


@pytest.mark.parametrize("seed", range(5))
def test_the_bias_between_strata_is_the_difference_of_means(seed):
    reward, group, structure = prompt(seed)
    cells = strata(group, structure)
    bias = centred(reward, group) - centred(reward, cells)
    means = {cell: reward[cells == cell].mean() for cell in set(cells)}
    np.testing.assert_allclose(bias, [means[cell] - reward.mean() for cell in cells], atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_strata_lower_the_variance_by_that_between_them(seed):
    reward, group, structure = prompt(seed)
    cells = strata(group, structure)
    between = np.mean([(reward[cells == cell].mean() - reward.mean()) ** 2 for cell in cells])
    np.testing.assert_allclose(centred(reward, group).var() - centred(reward, cells).var(), between)


@pytest.mark.parametrize("seed", range(3))
def test_inside_a_stratum_mean_zero_and_variance_one(seed):
    reward, group, structure = prompt(seed)
    alone, cells = stratified(reward, group, structure, share=1.0), strata(group, structure)
    for cell in set(cells):
        own = alone[cells == cell]
        np.testing.assert_allclose(own.mean(), 0, atol=1e-9)
        np.testing.assert_allclose(own.var(), 1.0 if len(own) > 1 else 0.0, rtol=1e-3)


def test_one_stratum_or_no_share_is_grpo():
    reward, group, structure = random_rewards(kind=np.float64)
    grpo = group_relative(reward, group)
    np.testing.assert_allclose(stratified(reward, group, 0 * structure, share=0.8), grpo)
    np.testing.assert_allclose(stratified(reward, group, structure, share=0.0), grpo)


def test_strata_never_cross_prompts_and_many_calls_share_one():
    np.testing.assert_array_equal(strata(np.array([0, 1, 1, 1]), np.array([2, 2, 3, 9])), [2, 6, 7, 7])


@pytest.fixture(scope="module")
def rollouts():
    world = GuessOrSearch(jnp.arange(4) % 3, vocabulary=3)
    return eqx.filter_jit(sample_groups)(TableLM(search_logits(world, 0.4)), world, world.every, 32, jax.random.key(0))


def test_strata_alone_put_no_pressure_on_the_choice_between_them(rollouts):
    advantage = by_calls(SEARCH, 1.0, rollouts)
    world = GuessOrSearch(jnp.arange(4) % 3, vocabulary=3)

    def objective(table):
        logp = log_probs(table, rollouts.tokens)[0] * rollouts.action_mask
        return (logp * advantage[:, None]).sum()

    gradient = jax.jit(jax.grad(objective))(TableLM(search_logits(world, 0.4))).table
    np.testing.assert_allclose(gradient[:, 0], 0, atol=1e-4)
    assert np.abs(gradient[:, 1]).max() > 0.1


def test_random_strata_have_the_same_sizes(rollouts):
    calls = np.asarray(rollouts.written(SEARCH)).reshape(4, 32)
    moved = np.roll(calls, -1, axis=1).reshape(-1).astype(int)
    expected = stratified(np.asarray(rollouts.reward), np.asarray(rollouts.group_id), moved, 0.8)
    np.testing.assert_allclose(at_random(SEARCH, 0.8, rollouts), expected, atol=1e-5)
