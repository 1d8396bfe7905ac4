"""Branches under vmap: the same values as one by one, and the costly side only when somebody wants it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from polyact.branching import when_any

KEYS = jax.random.split(jax.random.key(0), 4)
NUMBERS = jnp.arange(4.0)


def chosen(wanted, number, key):
    return when_any(wanted, lambda n, k: (2 * n + jax.random.normal(k), n), lambda n, k: (n, 3 * n), number, key)


@pytest.mark.parametrize("wanted", [[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
def test_values_are_those_of_one_by_one(wanted):
    wanted = jnp.array(wanted, bool)
    expected = [chosen(*own) for own in zip(wanted, NUMBERS, KEYS, strict=True)]
    for found in (jax.vmap(chosen)(wanted, NUMBERS, KEYS), jax.jit(jax.vmap(chosen))(wanted, NUMBERS, KEYS)):
        np.testing.assert_allclose(np.stack(found, 1), np.array(expected), rtol=1e-6)
    square = [own.reshape(2, 2) for own in (wanted, NUMBERS, KEYS)]
    np.testing.assert_allclose(np.stack(jax.vmap(jax.vmap(chosen))(*square), -1).reshape(4, 2), np.array(expected), rtol=1e-6)


def test_one_wish_for_all():
    found = jax.vmap(chosen, (None, 0, 0))(jnp.asarray(False), NUMBERS, KEYS)
    np.testing.assert_array_equal(np.stack(found), [NUMBERS, 3 * NUMBERS])


@pytest.mark.parametrize(("wanted", "computed"), [([0, 0, 0, 0], 0), ([0, 1, 0, 0], 4)])
def test_the_costly_side_is_computed_only_when_wanted(wanted, computed):
    calls = []

    def costly(number):
        jax.debug.callback(calls.append, number)
        return number

    jax.jit(jax.vmap(lambda w, n: when_any(w, costly, lambda n: -n, n)))(jnp.array(wanted, bool), NUMBERS)[0].block_until_ready()
    jax.effects_barrier()
    assert len(calls) == computed
