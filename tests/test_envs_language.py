"""Token worlds: verifiers by hand, exact expectations against enumeration, demonstrations that the world itself accepts."""

from itertools import product

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from polyact.acting.groups import questions
from polyact.envs.language import tables, verifiers
from polyact.envs.language.base import FREE, OVER
from polyact.envs.language.modchain import Chain, ModChain
from polyact.envs.language.searchqa import Asked, SearchQA
from polyact.errors import PolyactError

KEY = jax.random.key(0)
ASK = eqx.filter_jit(questions)
PAD = verifiers.PAD


def test_verifiers_by_hand():
    target = jnp.array([3, 3, 1, PAD])
    assert verifiers.exact_match(target, target) == 1
    assert verifiers.exact_match(jnp.array([3, 3, PAD, PAD]), target) == 0
    np.testing.assert_allclose(verifiers.token_f1(jnp.array([3, 1, 1, 1]), target), 2 * 2 / 7)
    assert verifiers.token_f1(target, target) == 1
    assert verifiers.token_f1(jnp.full(2, PAD), jnp.full(3, PAD)) == 1
    assert verifiers.set_match(jnp.array([1, 3]), target) == 1
    assert verifiers.set_match(jnp.array([1, 3, 2]), target) == 0


def test_the_answer_follows_the_last_marker_of_the_policy_itself():
    tokens, written = jnp.array([9, 1, 9, 2, 9, 3]), jnp.array([True, True, True, True, False, False])
    np.testing.assert_array_equal(verifiers.answer_after(tokens, written, 9, 2), [2, 9])
    np.testing.assert_array_equal(verifiers.answer_after(tokens, written, 7, 2), [PAD, PAD])
    np.testing.assert_array_equal(verifiers.answer_after(tokens, jnp.ones(6, bool), 9, 3), [3, PAD, PAD])


def enumerated(world, table, draws=400):
    """Expected reward of every question, by its probability under the table, over all answers."""
    value, p = np.zeros(world.questions), np.asarray(jax.nn.softmax(table))
    reward = jax.jit(jax.vmap(world.reward, (None, None, None, 0)))
    for question, answer in product(range(world.questions), product(range(world.vocabulary), repeat=world.length - 1)):
        tokens = jnp.array([question, *answer])
        mean = reward(question, tokens, jnp.arange(world.length) > 0, jax.random.split(KEY, draws)).mean()
        value[question] += mean * np.prod(p[question, np.arange(world.length - 1), answer])
    return value


@pytest.mark.parametrize(
    ("world", "places", "tolerance"),
    [
        (tables.Match(jnp.array([[0, 1], [2, 2]]), 3), 2, 1e-6),
        (tables.Decoy(jnp.array([0, 1]), jnp.array([2, 0]), 4), 1, 0.03),
        (tables.GuessOrSearch(jnp.array([3, 0]), vocabulary=4, luck=0.4), 2, 0.03),
    ],
)
def test_exact_expectations_equal_enumeration(world, places, tolerance):
    table = jax.random.normal(KEY, (2, places, world.vocabulary))
    np.testing.assert_allclose(world.expected(jax.nn.softmax(table)), enumerated(world, table), atol=tolerance)


def test_priors_have_the_chances_that_were_asked_for():
    target = jnp.array([[0, 2], [1, 1]])
    table = tables.logits_with(target, jnp.array([[0.9, 0.5], [0.25, 0.25]]), 4)
    np.testing.assert_allclose(logsumexp(table, axis=-1), 0, atol=1e-6)
    np.testing.assert_allclose(tables.Match(target, 4).expected(jnp.exp(table)), [0.45, 0.0625], rtol=1e-5)
    decoy = tables.Decoy(jnp.array([5]), jnp.array([1]), 16)
    np.testing.assert_allclose(decoy.expected(jnp.exp(tables.decoy_logits(decoy))), 0.02 + 0.25, rtol=1e-5)
    world = tables.GuessOrSearch(jnp.array([6]))
    np.testing.assert_allclose(world.expected(jax.nn.softmax(tables.search_logits(world, 0.25))), 0.3 + 0.25 / 8, rtol=1e-5)


@eqx.filter_jit
def told(world, question, tokens):
    """What the world says at every position of a conversation."""
    places = jnp.arange(world.length)
    return jax.vmap(lambda place: world.forced(question, jnp.where(places < place, tokens, 0), place))(places)


@eqx.filter_jit
def shown(world, asked, tokens, mask):
    """What the world says at every position of many conversations, and their rewards."""
    return jax.vmap(told, (None, 0, 0))(world, asked, tokens), jax.vmap(world.reward, (0, 0, 0, None))(asked, tokens, mask > 0, KEY)


def test_a_guess_ends_the_question():
    world = tables.GuessOrSearch(jnp.array([3, 3]))
    np.testing.assert_array_equal(told(world, jnp.array(1), jnp.array([1, tables.GUESS, 0])), [1, FREE, OVER])
    np.testing.assert_array_equal(told(world, jnp.array(1), jnp.array([1, tables.SEARCH, 3])), [1, FREE, FREE])


def test_chains_by_hand():
    world = ModChain(modulus=7, fewest=1, most=3)
    question = Chain(jnp.array(5), jnp.array([False, True, True]), jnp.array([4, 3, 2]), jnp.array(2))
    np.testing.assert_array_equal(world.solution(question), [2, 6, 5])
    tokens, mask = world.demonstration(question)
    np.testing.assert_array_equal(tokens, [5, 7, 4, 8, 3, 9, 2, 6, 0, 0, 0])
    np.testing.assert_array_equal(mask, [0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0])
    np.testing.assert_array_equal(told(world, question, tokens), [5, 7, 4, 8, 3, 9, FREE, FREE, OVER, OVER, OVER])
    assert world.reward(question, tokens, mask > 0, KEY) == 1
    assert world.reward(question, tokens.at[6].set(0), mask > 0, KEY) == 1  # only the last result counts
    assert world.reward(question, tokens.at[7].set(0), mask > 0, KEY) == 0
    with pytest.raises(PolyactError, match="3 to 2"):
        ModChain(fewest=3, most=2)


def test_demonstrated_chains_are_what_the_world_asks_and_rewards():
    world = ModChain()
    asked = ASK(world, 50, KEY)
    tokens, mask = eqx.filter_jit(jax.vmap(world.demonstration))(asked)
    said, reward = shown(world, asked, tokens, mask)
    assert set(np.asarray(asked.count)) == {2, 3, 4}
    assert reward.all()
    np.testing.assert_array_equal(said == FREE, mask)
    np.testing.assert_array_equal(np.where(said >= 0, said, 0), np.where(mask, 0, tokens))


def test_a_search_is_answered_by_the_world():
    world = SearchQA(entities=4, calls=2)
    question = Asked(jnp.array(2), jnp.array(1), jnp.array([0, 3, 0, 2]))
    search, answer, nothing = world.search, world.answer, 8
    tokens = jnp.array([7, 1, search, 1, 3, search, 3, 2, answer, 2])
    np.testing.assert_array_equal(told(world, question, tokens), [7, 1, FREE, FREE, 3, FREE, FREE, 2, FREE, FREE])
    written = jnp.array([0, 0, 1, 1, 0, 1, 1, 0, 1, 1]) > 0
    assert world.truth(question) == 2
    assert world.reward(question, tokens, written, KEY) == 1
    early = told(world, question, jnp.array([7, 1, answer, 2, 0, 0, 0, 0, 0, 0]))
    np.testing.assert_array_equal(early, [7, 1, FREE, FREE] + [OVER] * 6)
    np.testing.assert_array_equal(told(world, question, jnp.array([7, 1, search, search, nothing, 0, 0, 0, 0, 0]))[4], nothing)
    np.testing.assert_array_equal(told(world, question, jnp.array([7, 1, 2, 0, 0, 0, 0, 0, 0, 0]))[3:], [OVER] * 7)


def test_demonstrated_searches_are_what_the_world_asks():
    world = SearchQA()
    asked = ASK(world, 60, KEY)
    show = eqx.filter_jit(jax.vmap(lambda q, k: world.demonstration(q, k, (0.3, 0.3, 0.4), 1.0)))
    tokens, mask = show(asked, jax.random.split(KEY, 60))
    said, reward = shown(world, asked, tokens, mask)
    np.testing.assert_array_equal(said == FREE, mask)
    np.testing.assert_array_equal(np.where(said >= 0, said, 0), np.where(mask, 0, tokens))
    calls = ((tokens == world.search) * mask).sum(-1)
    assert set(np.asarray(calls)) == {0, 1, 2}
    assert reward[calls == asked.hops].all()
