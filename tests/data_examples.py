"""Data sets for tests, random and small, exact comparison of two, and how a damaged one is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from polyact.data.episodes import Episodes, leaves
from polyact.data.source import Source
from polyact.errors import DataError

_NAMES = st.text(min_size=1, max_size=6)
_DTYPES = st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.uint8, np.int8, np.bool_, np.float16])
_SHAPES = st.sampled_from([(), (1,), (3,), (2, 2), (2, 1, 3)])
_WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _WORDS
_JSON = st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=2))


@st.composite
def column(draw, rows, nested=True):
    """An array [rows, ...], or a dict of them."""
    if nested and draw(st.booleans()):
        return draw(st.dictionaries(_NAMES, column(rows, nested=False), min_size=1, max_size=3))
    dtype = np.dtype(draw(_DTYPES))
    elements = arrays.from_dtype(dtype, allow_nan=False, allow_infinity=False) if dtype.kind == "f" else arrays.from_dtype(dtype)
    return draw(arrays.arrays(dtype, (rows, *draw(_SHAPES)), elements=elements))


@st.composite
def episodes(draw):
    """Episodes with any columns missing."""
    lengths = np.array(draw(st.lists(st.integers(1, 4), max_size=4)), np.int64)
    steps, real = int(lengths.sum()), st.floats(-10, 10)
    vector = arrays.arrays(np.float32, steps, elements=st.floats(-10, 10, width=32))
    flag = arrays.arrays(bool, steps)
    discrete = arrays.arrays(np.int64, steps, elements=st.integers(0, 4))
    text = st.lists(_WORDS, min_size=steps, max_size=steps).map(lambda words: np.array([*words, None], object)[:-1])
    kinds = {
        "observation": column(steps + len(lengths)),
        "action": discrete | column(steps),
        "reward": vector | arrays.arrays(np.float64, steps, elements=real),
        "terminated": flag,
        "truncated": flag,
        "cost": vector,
        "return_to_go": vector,
        "log_prob": vector,
        "goal": column(steps),
        "text": text,
    }
    columns = {name: draw(kind) for name, kind in kinds.items() if draw(st.booleans())}
    return Episodes(lengths, info=draw(st.dictionaries(_NAMES, column(steps), max_size=2)), **columns)


@st.composite
def sources(draw):
    """A source of random episodes, labels and metadata."""
    labels = [draw(_WORDS) for _ in range(4)]
    hz = draw(st.none() | st.floats(0.1, 1000))
    metadata = draw(st.dictionaries(_WORDS.filter(lambda name: name != "origin"), _JSON, max_size=2))
    return Source(draw(episodes()), labels[0] or "data", None, None, *labels[1:], control_hz=hz, metadata=metadata)


def same_source(one: Source, other: Source) -> None:
    """Assert that two sources are equal, but for where they were read from."""
    for name in ("name", "observation_space", "action_space", "behaviour", "embodiment", "control_mode", "control_hz"):
        assert getattr(one, name) == getattr(other, name), name
    both = [{key: value for key, value in source.metadata.items() if key != "origin"} for source in (one, other)]
    assert both[0] == both[1]
    same_episodes(one.episodes, other.episodes)


def same_episodes(one: Episodes, other: Episodes) -> None:
    """Assert that two sets of episodes have the same columns, types and values."""
    np.testing.assert_array_equal(one.lengths, other.lengths)
    flat = [dict(leaf for name, part, _ in e.columns() for leaf in leaves(part, name)) for e in (one, other)]
    assert flat[0].keys() == flat[1].keys()
    for name, array in flat[0].items():
        same_column(array, flat[1][name], name)


def same_column(found: np.ndarray, expected: np.ndarray, name: str) -> None:
    """Assert that two arrays have the same type and values."""
    assert found.dtype == expected.dtype, name
    np.testing.assert_array_equal(found, expected, err_msg=name)


def small_columns(lengths: np.ndarray, actions: int) -> dict[str, np.ndarray]:
    """The usual columns of episodes of two observed numbers and `actions` done ones; every episode terminates."""
    steps = int(lengths.sum())
    rng = np.random.default_rng(0)
    return {
        "observation": rng.normal(size=(steps + len(lengths), 2)).astype(np.float32),
        "action": rng.uniform(-1, 1, (steps, actions)).astype(np.float32),
        "reward": rng.normal(size=steps),
        "terminated": np.isin(np.arange(steps), np.cumsum(lengths) - 1),
        "truncated": np.zeros(steps, bool),
    }


def refused_in_one_line(attempt: Callable[[], object], path: Path, message: str) -> None:
    """Assert that a call is refused with a DataError whose one line names the path and matches the message."""
    with pytest.raises(DataError, match=message) as caught:
        attempt()
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
