"""Nearest neighbours against brute force in float64 and SciPy's KD-tree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import cKDTree

from polyact.data.neighbours import nearest
from polyact.errors import PolyactError


def points(seed: int, count: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


@pytest.mark.parametrize(("width", "count", "block"), [(1, 1, 64), (3, 1, 1000), (6, 4, 128), (2, 5, 3)])
def test_the_same_as_a_tree_and_as_brute_force(width, count, block):
    keys, queries = points(0, 500, width), points(1, 40, width)
    distance, place = nearest(jnp.asarray(queries), jnp.asarray(keys), count, block)
    expected, where = cKDTree(keys.astype(np.float64)).query(queries.astype(np.float64), [*range(1, count + 1)])
    np.testing.assert_array_equal(place, where)
    np.testing.assert_allclose(distance, expected, rtol=1e-5)
    table = np.linalg.norm(queries[:, None].astype(np.float64) - keys[None], axis=2)
    np.testing.assert_array_equal(place, np.argsort(table, 1, kind="stable")[:, :count])


def test_among_equals_the_first_row_is_taken_across_blocks():
    keys = jnp.asarray([[1.0], [0.0], [0.0], [5.0], [0.0], [1.0]])
    for block in (1, 2, 4, 6):
        assert nearest(jnp.zeros((1, 1)), keys, 1, block)[1].tolist() == [[1]]
        assert nearest(jnp.zeros((1, 1)), keys, 4, block)[1].tolist() == [[1, 2, 4, 0]]


def test_small_distances_survive_far_from_the_origin():
    """100 apart from the origin, points differ by 0.001: expanding the square would not see that in 32 bits."""
    keys = 100 + 1e-3 * jnp.arange(50.0)[:, None] * jnp.ones((1, 4))
    queries = 100 + 1e-3 * (jnp.arange(50.0)[:, None] + 0.2) * jnp.ones((1, 4))
    assert nearest(queries, keys)[1][:, 0].tolist() == list(range(50))


def test_a_stored_point_finds_itself_inside_a_compiled_program():
    keys = jnp.asarray(points(2, 300, 3))
    distance, place = jax.jit(lambda q: nearest(q, keys, block=70))(keys[::7])
    np.testing.assert_array_equal(distance, 0)
    np.testing.assert_array_equal(place[:, 0], np.arange(0, 300, 7))


def test_more_neighbours_than_points_are_refused():
    with pytest.raises(PolyactError, match="count must lie between 1 and the number of keys, 2, got 3"):
        nearest(jnp.zeros((1, 1)), jnp.zeros((2, 1)), 3)
