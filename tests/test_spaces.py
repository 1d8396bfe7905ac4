"""Spaces: values that hash, convert to gymnasium and JSON and back, and sample from themselves."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyact import spaces
from polyact.errors import PolyactError
from polyact.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple

leaf = st.one_of(
    st.builds(Discrete, st.integers(1, 9), st.integers(-3, 3)),
    st.builds(MultiDiscrete, st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)),
    st.builds(MultiBinary, st.integers(1, 4)),
    st.builds(
        lambda low, extent, shape: Box(low, low + extent, shape),
        st.floats(-9, 9, width=32),
        st.floats(0, 9, width=32),
        st.sampled_from([(), (3,), (2, 2)]),
    ),
)
anything = st.recursive(
    leaf,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, min_size=1).map(Dict),
        st.lists(inner, min_size=1, max_size=3).map(tuple).map(Tuple),
    ),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None)
@given(anything)
def test_json_and_gymnasium_give_the_same_space_back(space):
    assert spaces.from_json(spaces.to_json(space)) == space
    assert spaces.from_gymnasium(spaces.to_gymnasium(space)) == space
    assert hash(spaces.from_json(spaces.to_json(space))) == hash(space)


@settings(max_examples=20, deadline=None)
@given(anything, st.integers(0, 99))
def test_samples_lie_inside(space, seed):
    assert spaces.contains(space, jax.tree.map(np.asarray, spaces.sample(space, jax.random.key(seed))))


def test_unbounded_boxes_sample_on_their_side():
    box = Box([-np.inf, 0, -np.inf, -1], [np.inf, np.inf, 2, 1])
    drawn = np.stack([spaces.sample(box, jax.random.key(seed)) for seed in range(50)])
    assert np.all((drawn >= box.low) & (drawn <= box.high))
    assert drawn[:, 0].min() < 0 < drawn[:, 0].max()


def test_width_counts_classes_and_parts():
    space = Dict({"x": Box(0, 1, (2, 3)), "n": Discrete(4), "both": Tuple((MultiBinary(2), MultiDiscrete((3, 2))))})
    assert spaces.width(space) == 6 + 4 + 2 + 5


def test_equal_bounds_make_equal_spaces():
    assert Box(-0.0, 1.0, (2,)) == Box(0.0, 1.0, (2,))
    assert Box(0, 1, (2,)) != Box(0, 1, (2,), np.float64)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"type": "Cube"}, "unknown space type 'Cube'"),
        ({"type": "Box", "low": 0}, "malformed space description"),
        ({"type": "Box", "low": [[1], [2, 3]], "high": 1, "shape": [2], "dtype": "float32"}, "malformed space description"),
        ({"type": "Discrete", "n": 0}, "needs n >= 1"),
        ({"type": "MultiDiscrete", "nvec": [2], "start": [1]}, "do not start at 0"),
    ],
)
def test_malformed_descriptions_are_refused(value, message):
    with pytest.raises(PolyactError, match=message):
        spaces.from_json(value)


def test_bounds_that_do_not_fit_are_named():
    with pytest.raises(PolyactError, match="do not fit shape"):
        Box([0, 0], [1, 1], (3,))
    with pytest.raises(PolyactError, match="low <= high"):
        Box(1, 0, (2,))
    with pytest.raises(PolyactError, match="no fixed width"):
        spaces.width(Text(5))


def test_fractions_are_no_members_of_discrete_spaces():
    assert spaces.contains(spaces.Discrete(3), 2.0)
    assert not spaces.contains(spaces.Discrete(3), 1.5)
    assert not spaces.contains(spaces.MultiDiscrete((2, 2)), np.array([0.0, 0.5]))


@pytest.mark.parametrize("make", [lambda: MultiDiscrete((2, 0)), lambda: MultiDiscrete(()), lambda: MultiBinary(0)])
def test_empty_discrete_spaces_are_refused(make):
    with pytest.raises(PolyactError, match="needs"):
        make()
