"""Advantages and losses of language models: closed forms, limit cases, and the same numbers from NumPy and from JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from token_examples import random_rewards, random_terms

from polyact.errors import PolyactError
from polyact.learning.language import advantages, arrays, surrogates
from polyact.learning.language.surrogates import AGGREGATIONS, Terms
from polyact.systems.language import bnpo, cov_entropy, stratified_grpo

ADVANTAGES = {
    "centred": lambda reward, group, structure: advantages.centred(reward, group),
    "group_relative": lambda reward, group, structure: advantages.group_relative(reward, group),
    "leave_one_out": lambda reward, group, structure: advantages.leave_one_out(reward, group),
    "batch_relative": lambda reward, group, structure: advantages.batch_relative(reward),
    "beta_normalised": lambda reward, group, structure: bnpo.beta_normalised(reward, group),
    "stratified": stratified_grpo.stratified,
}
LOSSES = {
    "unclipped": lambda terms: surrogates.token_mean(surrogates.unclipped(terms), terms.mask),
    "clipped": lambda terms: surrogates.sequence_mean(surrogates.clipped(terms, 0.2, 0.28), terms.mask),
    "dual_clipped": lambda terms: surrogates.sequence_sum(surrogates.dual_clipped(terms, 0.2, 0.28, 1.5), terms.mask),
    "k1": lambda terms: surrogates.token_mean(surrogates.kl_k1(terms.logp, terms.logp_ref), terms.mask),
    "k2": lambda terms: surrogates.token_mean(surrogates.kl_k2(terms.logp, terms.logp_ref), terms.mask),
    "k3": lambda terms: surrogates.token_mean(surrogates.kl_k3(terms.logp, terms.logp_ref), terms.mask),
    "kl_cov": lambda terms: cov_entropy.kl_cov(terms, share=0.2),
    "clip_cov": lambda terms: cov_entropy.clip_cov(terms, share=0.2, band=cov_entropy.Quantiles(0.3, 0.95)),
}


@pytest.mark.parametrize("name", ADVANTAGES)
def test_advantages_are_the_same_numbers_in_numpy_and_jax(name):
    reward, group, structure = random_rewards()
    ours = ADVANTAGES[name](jnp.asarray(reward), jnp.asarray(group), jnp.asarray(structure))
    np.testing.assert_allclose(ours, ADVANTAGES[name](reward.astype(np.float64), group, structure), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_agree_in_numpy_and_jax_and_their_gradients_with_finite_differences(name):
    loss, terms = LOSSES[name], random_terms()
    single = Terms(*(jnp.asarray(column, jnp.float32) for column in terms))
    value, gradient = jax.jit(jax.value_and_grad(lambda logp: loss(single._replace(logp=logp))))(single.logp)
    np.testing.assert_allclose(value, loss(terms), rtol=1e-4)
    differences = np.zeros_like(terms.logp)
    for place in np.ndindex(terms.logp.shape):
        move = np.zeros_like(terms.logp)
        move[place] = 1e-7
        differences[place] = (loss(terms._replace(logp=terms.logp + move)) - loss(terms._replace(logp=terms.logp - move))) / 2e-7
    np.testing.assert_allclose(gradient, differences, atol=1e-4)


def test_the_namespace_is_that_of_the_arrays():
    assert arrays.array_namespace(np.zeros(1), None) is np
    assert arrays.array_namespace(np.zeros(1), jnp.zeros(1)) is jnp
    assert jax.jit(lambda x: x * (arrays.array_namespace(x) is jnp))(1.0) == 1.0
    with pytest.raises(PolyactError, match="got list"):
        arrays.array_namespace([1.0])


def test_ranks_count_from_the_largest_and_break_ties_in_order():
    for library in (np, jnp):
        np.testing.assert_array_equal(arrays.ranks(library.asarray([1.0, 3.0, 1.0, 2.0])), [2, 0, 3, 1])


def test_groups_may_stand_in_any_order_and_differ_in_size():
    reward, group = np.array([1.0, 0.0, 0.5, 1.0, 0.25]), np.array([7, 3, 7, 3, 9])
    np.testing.assert_array_equal(advantages.centred(reward, group), [0.25, -0.5, -0.25, 0.5, 0.0])
    np.testing.assert_array_equal(advantages.leave_one_out(reward, group), [0.5, -1.0, -0.5, 1.0, 0.0])
    np.testing.assert_allclose(advantages.group_relative(reward, group), [1, -1, -1, 1, 0], atol=1e-5)


def test_leave_one_out_subtracts_the_mean_of_the_others():
    reward = np.random.default_rng(0).random(6)
    others = [np.delete(reward, i).mean() for i in range(6)]
    np.testing.assert_allclose(advantages.leave_one_out(reward, np.zeros(6, int)), reward - others)


def test_equal_rewards_teach_nothing_whatever_rounding_leaves():
    reward = jnp.full(7, 0.1)
    assert not np.any(advantages.group_relative(reward, jnp.zeros(7, jnp.int32)))


def test_batch_relative_is_group_relative_of_one_group():
    reward, _, _ = random_rewards()
    np.testing.assert_allclose(
        advantages.batch_relative(reward), advantages.group_relative(reward, 0 * reward.astype(int)), atol=1e-5
    )


def test_clipping_by_hand():
    ratios, advantage = np.array([[1.5, 0.5, 1.5, 0.5]]), np.array([[1.0, 1.0, -1.0, -1.0]])
    terms = Terms(np.log(ratios), np.zeros((1, 4)), advantage, np.ones((1, 4)))
    np.testing.assert_allclose(surrogates.clipped(terms, 0.2, 0.28), [[-1.28, -0.5, 1.5, 0.8]])
    np.testing.assert_allclose(surrogates.dual_clipped(terms, 0.2, 0.28, 1.2), [[-1.28, -0.5, 1.2, 0.8]])
    np.testing.assert_array_equal(surrogates.is_clipped(terms, 0.2, 0.28), [[True, False, False, True]])


def test_estimators_of_the_divergence_have_its_mean_and_a_quadratic_limit():
    p, q = np.array([[0.7, 0.2, 0.1]]), np.array([[0.5, 0.3, 0.2]])
    exact = (p * np.log(p / q)).sum()
    for estimator in (surrogates.kl_k1, surrogates.kl_k3):
        np.testing.assert_allclose((p * estimator(np.log(p), np.log(q))).sum(), exact)
    near = np.full((1, 1), 1e-3)
    np.testing.assert_allclose(surrogates.kl_k3(near, 0 * near), surrogates.kl_k2(near, 0 * near), rtol=1e-3)


def test_aggregations_by_hand_and_nothing_written():
    values, mask = np.array([[1.0, 3.0, 9.0], [5.0, 9.0, 9.0]]), np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    found = {name: float(aggregate(values, mask)) for name, aggregate in AGGREGATIONS.items()}
    assert found == {"token-mean": 3.0, "seq-mean-token-mean": 3.5, "seq-mean-token-sum": 4.5}
    assert all(aggregate(values, 0 * mask) == 0 for aggregate in AGGREGATIONS.values())
