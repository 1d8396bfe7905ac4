"""Random numbers as inputs: what a function draws, that the same numbers give the same result, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.errors import PolyactError
from polyact.exporting.noise import drawn, draws_of, with_noise

KEY = jax.random.key(3)


def same(function, *arguments):
    """The draws of a function, after checking that it gives with them what it gives with the key."""
    draws = draws_of(function, *arguments)
    noise = {draw: drawn(draw, KEY) for draw in draws}
    found, wanted = with_noise(function, noise, *arguments), function(KEY, *arguments)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), found, wanted)
    return draws


def kinds(draws):
    return [(draw.kind, draw.shape) for draw in draws]


def test_normal_and_uniform_numbers_are_inputs():
    def function(key, x):
        one, two = jax.random.split(key)
        return x + jax.random.normal(one, (3,)) * jax.random.uniform(two, (2, 1), minval=-1.0, maxval=x[0])

    assert kinds(same(function, jnp.ones(3))) == [("normal", (3,)), ("uniform", (2, 1))]


def test_classes_and_truth_values_come_from_uniform_numbers():
    def function(key, logits):
        return jax.random.categorical(key, logits), jax.random.bernoulli(jax.random.fold_in(key, 1), 0.3)

    assert kinds(same(function, jnp.arange(4.0))) == [("uniform", (4,)), ("uniform", ())]


def test_integers_are_as_likely_as_each_other():
    def function(key):
        return jax.random.randint(key, (3,), jnp.array([0, 5, -2]), jnp.array([4, 6, 3]))

    (draw,) = same(function)
    grid = np.linspace(0, 1, 1000, endpoint=False, dtype=np.float32)[:, None] * np.ones(3, np.float32)
    found = np.asarray(jax.vmap(lambda u: with_noise(function, {draw: u}))(jnp.asarray(grid)))
    assert [len(np.unique(column)) for column in found.T] == [4, 1, 5]
    assert np.ptp(np.unique(found[:, 0], return_counts=True)[1]) <= 1


def test_one_key_drawn_from_twice_is_one_input():
    def function(key):
        return jax.random.normal(key, (2,)) - jax.random.normal(key, (2,)), jax.random.normal(key, (3,))

    assert kinds(same(function)) == [("normal", (2,)), ("normal", (3,))]


def test_every_step_of_a_loop_has_numbers_of_its_own():
    def function(key):
        def step(total, inputs):
            own, other = inputs
            return total + jax.random.normal(own, (2,)) + jax.random.normal(key, (2,)) * jax.random.uniform(other[1]), None

        first, second = jax.random.split(key)
        rows = jax.random.split(first, 5), jax.random.split(second, (5, 2))
        return jax.lax.scan(step, jnp.zeros(2), rows)[0]

    assert kinds(same(function)) == [("normal", (2,)), ("normal", (5, 2)), ("uniform", (5,))]


def test_loops_within_loops_stack_twice():
    def function(key):
        def inner(total, key):
            return total + jax.random.normal(key), None

        def outer(total, key):
            return jax.lax.scan(inner, total, jax.random.split(key, 3))[0], None

        return jax.lax.scan(outer, 0.0, jax.random.split(key, 2))[0]

    assert kinds(same(function)) == [("normal", (2, 3))]


def test_branches_share_what_they_draw_from_the_same_key():
    def function(key, which):
        one = lambda: jax.random.normal(key, (2,))  # noqa: E731
        return jax.lax.cond(which, one, lambda: 2 * jax.random.normal(key, (2,)) + jax.random.uniform(key))

    assert kinds(same(function, jnp.asarray(True))) == [("normal", (2,)), ("uniform", ())]
    same(function, jnp.asarray(False))


def test_keys_that_are_moved_about_are_followed():
    def function(key):
        keys = jnp.concatenate([jax.random.split(key, 3)[::-1], key[None]])
        return jax.vmap(lambda k: jax.random.normal(k, (2,)))(keys)

    assert kinds(same(function)) == [("normal", (4, 2))]


def walk(key):
    def step(key, _):
        key, own = jax.random.split(key)
        return key, jax.random.normal(own)

    return jax.lax.scan(step, key, None, 3)[1]


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda key: jax.random.permutation(key, 4), "permutations"),
        (lambda key: jax.random.split(key), "remembers random keys"),
        (walk, "from step to step"),
        (
            lambda key: jax.lax.while_loop(
                lambda s: s < 1, lambda s: s + jax.random.uniform(jax.random.fold_in(key, s.astype(int))), 0.0
            ),
            "unknown length",
        ),
    ],
)
def test_what_no_input_can_stand_for_is_refused_in_one_line(function, says):
    with pytest.raises(PolyactError, match=says):
        draws_of(function)
