"""What an inspection says, against data made so that the answer is known."""

import io
import json
from typing import Any

import numpy as np
import pytest
from data_examples import sources as random_sources
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyact import spaces
from polyact.data import formats
from polyact.data.coverage import coverage
from polyact.data.episodes import Episodes, concatenate
from polyact.data.feeds import Needs
from polyact.data.hashing import episode_hashes, fingerprint, row_hashes, share_of_duplicates, transition_hashes
from polyact.data.inspect import distribution, inspect
from polyact.data.pictures import pictures
from polyact.data.source import Source

NEEDS = {
    "bc": Needs(("observation", "action")),
    "iql": Needs(("observation", "action", "reward", "terminated")),
    "vae": Needs(("observation",)),
}

pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # beartype does, while examples are drawn


def walk(lengths=(3, 2), seed=0, **columns) -> Episodes:
    lengths, rng = np.array(lengths), np.random.default_rng(seed)
    steps = int(lengths.sum())
    full: dict[str, Any] = {
        "observation": rng.normal(size=(steps + len(lengths), 2)),
        "action": rng.uniform(-1, 1, (steps, 1)),
        "reward": np.ones(steps),
        "terminated": np.zeros(steps, bool),
    }
    return Episodes(lengths, **(full | columns))


def report(episodes: Episodes, **labels):
    return inspect([Source(episodes, **labels)], NEEDS).sources[0]


def test_counts_returns_and_lengths():
    r: Any = report(walk((3, 1, 2), reward=np.array([1, 1, 1, 5.0, 0, 1])))
    assert (r.episodes, r.steps) == (3, 6)
    assert (r.returns.mean, r.returns.min, r.returns.max) == (3, 1, 5)
    assert r.returns.quantiles == tuple(np.quantile([3, 5, 1], [0.1, 0.25, 0.5, 0.75, 0.9]))
    assert (r.lengths.mean, r.lengths.quantiles[2]) == (2, 2)


def test_missing_columns_and_what_can_be_fed():
    whole = report(walk())
    assert whole.learners == ("bc", "iql", "vae")
    assert whole.lacks == {}
    action_free = report(walk(action=None))
    assert action_free.learners == ("vae",)
    assert action_free.lacks == {"bc": ("action",), "iql": ("action",)}
    assert "action" in action_free.missing
    assert action_free.coverage == ()
    assert report(walk(reward=None)).returns is None


def test_how_episodes_end():
    ended, cut = np.array([0, 0, 1, 0, 0, 0], bool), np.array([0, 0, 0, 0, 1, 0], bool)
    r = report(walk((3, 2, 1), terminated=ended, truncated=cut))
    assert r.ends == {"terminated": 1 / 3, "truncated": 1 / 3, "open": 1 / 3}


def test_numbers_that_are_not_finite_are_counted():
    r = report(walk(info={"seen": np.array([1, np.nan, np.inf, 0, 0]), "fine": np.ones(5)}))
    assert r.nan == {"info/seen": 2}


def test_duplicates_are_found():
    episodes = walk((4, 3))
    assert report(episodes).duplicate_transitions == 0
    twice: Any = report(concatenate([episodes, episodes.episode(1)]))
    assert twice.duplicate_transitions == pytest.approx(3 / 10)
    assert twice.duplicate_episodes == 1


def test_an_episode_in_another_order_is_not_a_duplicate():
    one = Episodes(np.array([2]), observation=np.array([[0.0], [1], [0]]), action=np.zeros((2, 1)))
    other = Episodes(np.array([2]), observation=np.array([[1.0], [0], [1]]), action=np.zeros((2, 1)))
    both: Any = report(concatenate([one, other]))
    assert both.duplicate_transitions == 0.5
    assert both.duplicate_episodes == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=30), st.sampled_from([np.float64, np.int8]))
def test_rows_hash_alike_exactly_when_they_are_alike(rows, dtype):
    array = np.array(rows, dtype)
    hashes = row_hashes(array)
    assert len(np.unique(hashes)) == len(np.unique(array, axis=0))
    assert (hashes[:, None] == hashes[None]).tolist() == (array[:, None] == array[None]).all(2).tolist()


def test_whole_numbers_on_a_grid_do_not_collide():
    grid = np.stack(np.meshgrid(*[np.arange(-15.0, 15)] * 3), -1).reshape(-1, 3)
    assert share_of_duplicates(row_hashes(grid)) == 0


def test_hashes_do_not_depend_on_the_block_size(monkeypatch):
    array = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    whole = row_hashes(array)
    monkeypatch.setattr("polyact.data.hashing._CHUNK", 64)
    np.testing.assert_array_equal(row_hashes(array), whole)


def test_empty_data():
    none = walk().select(np.zeros(0, np.int64))
    assert len(transition_hashes(none)) == len(episode_hashes(none, transition_hashes(none))) == 0
    r = report(none)
    assert (r.episodes, r.lengths, r.returns, r.ends) == (0, None, None, {})
    assert distribution(np.array([np.nan])) is None


def test_fingerprints_name_the_content(tmp_path):
    episodes = walk()
    formats.write(Source(episodes), tmp_path / "d")
    assert fingerprint(formats.read(tmp_path / "d")[0].episodes) == fingerprint(episodes)
    assert fingerprint(episodes.without("reward")) != fingerprint(episodes)
    assert fingerprint(walk((2, 3))) != fingerprint(episodes)
    assert fingerprint(walk()) == "f50e8fefdbd524dcc52470a9acac8d59"


def test_uniform_actions_cover_the_box_and_constant_ones_do_not():
    box = spaces.Box(-1, 1, (2,))
    spread = np.random.default_rng(0).uniform(-1, 1, (5000, 2))
    (full,) = coverage(spread, box)
    assert (full.visited, full.per_dimension, full.relative_to) == (1, (1, 1), "space")
    assert full.entropy > 0.99
    assert full.at_bounds == pytest.approx(0.002, abs=0.001)
    (still,) = coverage(np.full((100, 2), 1.0), box)
    assert (still.visited, still.per_dimension, still.at_bounds, still.entropy) == (0.01, (0.1, 0.1), 1, 0)


def test_unbounded_actions_are_measured_against_the_data():
    (part,) = coverage(np.array([[0.0], [10.0]]), spaces.Box(-np.inf, np.inf, (1,)))
    assert (part.visited, part.at_bounds, part.relative_to) == (0.2, None, "data")


def test_discrete_actions_are_counted():
    (part,) = coverage(np.array([2, 2, 3, 3]), spaces.Discrete(4, start=1))
    assert part.counts == (0, 2, 2, 0)
    assert part.visited == 0.5
    assert part.entropy == pytest.approx(0.5)
    (parts,) = coverage(np.array([[0, 1], [0, 2]]), spaces.MultiDiscrete((2, 3)))
    assert parts.per_dimension == (0.5, 2 / 3)


def test_actions_among_billions_are_counted_by_those_that_occur():
    (part,) = coverage(np.array([5, 5, 323_786_590_926]), spaces.Discrete(323_786_590_927))
    assert part.visited == 2 / 323_786_590_927
    assert part.counts == ()


def test_parts_of_an_action_are_covered_apart():
    action = {"arm": np.zeros((3, 2)), "grip": np.array([0, 1, 0])}
    space = spaces.Dict({"arm": spaces.Box(-1, 1, (2,)), "grip": spaces.Discrete(2)})
    assert [part.part for part in coverage(action, space)] == ["action/arm", "action/grip"]


def test_control_rate_is_stated_or_estimated():
    stated = report(walk(), control_hz=50.0)
    assert (stated.control_hz, stated.control_hz_estimated) == (50, False)
    stamps = np.array([0, 0.1, 0.2, 0, 0.1])
    estimated = report(walk(info={"timestamp": stamps}))
    assert (estimated.control_hz, estimated.control_hz_estimated) == (10, True)
    assert report(walk()).control_hz is None


def test_origin_and_notes(tmp_path):
    np.savez(tmp_path / "d.npz", obs=np.zeros((3, 2)), actions=np.zeros((3, 1)), dones=[0, 1, 1])
    r = inspect(formats.read(tmp_path)).sources[0]
    assert (r.format, r.path) == ("npz", str(tmp_path / "d.npz"))
    assert any("'done' was read as terminated" in note for note in r.notes)
    assert any("the last one is repeated" in note for note in r.notes)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(random_sources(), min_size=1, max_size=3))
def test_any_source_can_be_inspected(sources):
    inspection = inspect(sources, NEEDS)
    assert len(json.loads(json.dumps(inspection.to_json(), allow_nan=False))["sources"]) == len(sources)
    assert all(isinstance(cell, str) for row in inspection.rows() for cell in row.values())


def test_it_prints_as_a_table():
    from rich.console import Console

    console = Console(width=200, record=True, file=io.StringIO())
    console.print(inspect([Source(walk(), "medium", behaviour="half-trained"), Source(walk(action=None), "videos")], NEEDS))
    text = console.export_text()
    for word in ("medium", "half-trained", "videos", "5 steps", "none", "iql"):
        assert word in text


def test_pictures_are_self_contained_svg_and_reproducible():
    grid = Source(walk(action=np.array([0, 1, 2, 1, 0])), "grid $x$")
    plane = Source(walk(action=np.random.default_rng(0).normal(size=(5, 3))), "plane <&>")
    hand = Source(walk(action={"arm": np.zeros((5, 1)), "word": np.array(["a"] * 5)}), "hand")
    once, again = (pictures([grid, plane, hand, Source(walk(reward=None), "videos")]) for _ in range(2))
    assert once == again
    assert list(once) == ["Returns", "Lengths", "Actions"]
    for text in once.values():
        assert text.startswith("<svg")
        assert text.rstrip().endswith("</svg>")
    assert "plane &lt;&amp;&gt;" in once["Returns"]
    assert list(pictures([Source(Episodes(np.array([2]), observation=np.zeros((3, 1))))])) == ["Lengths"]
