"""Random data sets with spaces of every kind (those of `data_examples` leave them to be inferred)."""

import numpy as np
from hypothesis import strategies as st

from polyact import spaces
from polyact.data.episodes import Episodes
from polyact.data.source import Source

NUMBERS = (np.float32, np.float64, np.float16, np.int32, np.int64, np.uint8, np.int8)
NAMES = st.text("abcxyz_0189 é~/.-", min_size=1, max_size=6).filter(lambda name: name.strip(" .-_/~") != "")
WORDS = st.text("abc XYZ 0é\n\"'", max_size=8)


@st.composite
def spaced_column(draw, rows: int):
    """An array with its space: numbers of any small shape, classes, bits or text."""
    kind = draw(st.sampled_from(["numbers", "numbers", "classes", "several classes", "bits", "image"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    match kind:
        case "numbers":
            shape = tuple(draw(st.lists(st.integers(1, 3), max_size=3)))
            dtype = np.dtype(draw(st.sampled_from(NUMBERS)))
            whole = dtype.kind in "iu"
            bounds = (np.iinfo(dtype).min, np.iinfo(dtype).max) if whole else (-np.inf, np.inf)
            low = rng.integers(0, 100, (rows, *shape)) if whole else rng.normal(size=(rows, *shape))
            return low.astype(dtype), spaces.Box(*bounds, shape, dtype)
        case "classes":
            start = draw(st.integers(0, 3))
            return rng.integers(start, start + 4, rows).astype(draw(st.sampled_from([np.int32, np.int64]))), spaces.Discrete(
                4, start
            )
        case "several classes":
            return rng.integers(0, [2, 3], (rows, 2)), spaces.MultiDiscrete((2, 3))
        case "bits":
            return rng.integers(0, 2, (rows, 3)).astype(np.int8), spaces.MultiBinary(3)
    return rng.integers(0, 256, (rows, 4, 5, 3)).astype(np.uint8), spaces.Box(0, 255, (4, 5, 3), np.uint8)


@st.composite
def spaced_tree(draw, rows: int):
    """A column or a dictionary of columns, with its space."""
    if draw(st.booleans()):
        return draw(spaced_column(rows))
    parts = {name: draw(spaced_column(rows)) for name in draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))}
    return {name: column for name, (column, _) in parts.items()}, spaces.Dict({name: space for name, (_, space) in parts.items()})


@st.composite
def spaced_sources(draw):
    """A source of one to four episodes; any column may be missing."""
    lengths = np.array(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    steps = int(lengths.sum())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    observation, observation_space = draw(spaced_tree(steps + len(lengths)))
    action, action_space = draw(spaced_tree(steps))
    ends = np.isin(np.arange(steps), np.cumsum(lengths) - 1)
    optional = {
        "action": action,
        "reward": rng.normal(size=steps).astype(draw(st.sampled_from([np.float32, np.float64]))),
        "terminated": ends & rng.integers(0, 2, steps).astype(bool),
        "truncated": ends & rng.integers(0, 2, steps).astype(bool),
        "cost": rng.random(steps).astype(np.float32),
        "return_to_go": rng.normal(size=steps),
        "log_prob": rng.normal(size=steps).astype(np.float32),
        "goal": rng.normal(size=(steps, 2)).astype(np.float32),
        "text": np.array(draw(st.lists(WORDS, min_size=steps, max_size=steps)), object),
    }
    given = {name: column for name, column in optional.items() if draw(st.booleans())}
    info = {name: draw(spaced_column(steps))[0] for name in draw(st.lists(NAMES, max_size=2, unique=True))}
    seen = draw(st.booleans()) or not given
    return Source(
        Episodes(lengths, observation if seen else None, info=info, **given),
        draw(st.sampled_from(["data", "hopper/medium-v2", "a b"])),
        observation_space if seen else None,
        action_space if "action" in given else None,
        behaviour=draw(st.sampled_from(["", "expert"])),
        embodiment=draw(st.sampled_from(["default", "so100"])),
        control_hz=draw(st.sampled_from([None, 1.0, 10.0, 12.5])),
        metadata=draw(st.sampled_from([{}, {"note": [1, None, {"a": 0.5}]}])),
    )
