"""Sampling: every way of cutting a batch against a loop over episodes, and the same rows on device and host."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyact.data import Episodes, Mixture, Source
from polyact.data.sampling import Chunks, NStep, Relabelled, Steps, Transitions, Windows, draw_from, weighted_draw
from polyact.data.table import build_table
from polyact.errors import DataError, PolyactError

NEEDS = ("observation", "action", "reward")


def episodes(lengths, offset=0.0, width=1):
    """Step t of episode e has observation 100 e + t, action and reward 100 e + t + 0.5."""
    lengths = np.asarray(lengths)
    seen = np.concatenate([100.0 * e + np.arange(n + 1) for e, n in enumerate(lengths)]) + offset
    done = np.concatenate([100.0 * e + np.arange(n) for e, n in enumerate(lengths)]) + offset + 0.5
    terminated = np.concatenate([np.arange(n) == n - 1 for n in lengths]) & np.repeat(np.arange(len(lengths)) % 2 == 0, lengths)
    return Episodes(
        lengths, np.repeat(seen[:, None], width, 1).astype(np.float32), done[:, None].astype(np.float32), done, terminated
    )


def batch_of(data, sampling, size=2000, budget=1 << 30, seed=0, **options):
    mixture = data if isinstance(data, Mixture) else Mixture((Source(data),))
    table, _ = build_table(mixture, NEEDS, budget=budget, **options)
    draw = draw_from(table, sampling)
    key = jax.random.key(seed)
    rows = jax.jit(lambda i, k: sampling.rows(i, draw.steps(k, size), k))(table.index, key)
    if not table.resident:
        rows = jax.tree.map(np.asarray, rows)
    return jax.tree.map(np.asarray, sampling.gather(table.columns, rows))


def test_transitions_join_each_step_with_its_true_successor():
    batch = batch_of(episodes([3, 1, 4]), Transitions())
    np.testing.assert_array_equal(batch.next_observation[:, 0], batch.observation[:, 0] + 1)
    np.testing.assert_array_equal(batch.action[:, 0], batch.observation[:, 0] + 0.5)
    ends = np.isin(batch.observation[:, 0], [2.0, 203.0])
    np.testing.assert_array_equal(batch.bootstrap, 1.0 - ends)
    assert set(batch.observation[:, 0]) == {0, 1, 2, 100, 200, 201, 202, 203}


def test_a_repeated_final_observation_is_never_bootstrapped_from():
    data = episodes([3, 2])
    source = Source(data, metadata={"final_observation": "repeated"})
    batch = batch_of(Mixture((source,)), Transitions())
    assert set(batch.observation[:, 0]) == {0, 1, 2, 100}  # 2 terminated; 101 ends a truncated episode
    assert set(batch_of(Mixture((source,)), Steps()).observation[:, 0]) == {0, 1, 2, 100, 101}


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_n_step_returns_equal_a_loop(n):
    data, discount = episodes([3, 1, 5]), 0.9
    batch = batch_of(data, NStep(n, discount), size=300)
    for seen, reward, following, bootstrap in zip(
        batch.observation[:, 0], batch.reward, batch.next_observation[:, 0], batch.bootstrap, strict=True
    ):
        episode, time = divmod(int(seen), 100)
        steps = range(time, min(time + n, data.lengths[episode]))
        assert reward == pytest.approx(sum(discount**k * (100 * episode + t + 0.5) for k, t in enumerate(steps)), rel=1e-5)
        assert following == 100 * episode + steps[-1] + 1
        ended = episode % 2 == 0 and steps[-1] == data.lengths[episode] - 1
        assert bootstrap == pytest.approx(0.0 if ended else discount ** (len(steps) - 1))


def test_chunks_pad_beyond_the_ends_of_an_episode():
    batch = batch_of(episodes([3, 1, 4]), Chunks(horizon=3, history=2), size=300)
    for past, actions, mask in zip(batch.observation[:, :, 0], batch.action[:, :, 0], batch.mask, strict=True):
        episode, time = divmod(int(past[-1]), 100)
        length = [3, 1, 4][episode]
        assert past[0] == 100 * episode + max(time - 1, 0)
        np.testing.assert_array_equal(actions, 100 * episode + np.minimum(time + np.arange(3), length - 1) + 0.5)
        np.testing.assert_array_equal(mask, time + np.arange(3) < length)


def test_windows_hold_whole_sub_trajectories():
    batch = batch_of(episodes([3, 5]), Windows(4, start="episode"), size=50)
    assert set(batch.observation[:, 0, 0]) == {0, 100}
    first = batch.observation[:, 0, 0] == 0
    np.testing.assert_array_equal(batch.mask[first][0], [True, True, True, False])
    np.testing.assert_array_equal(batch.reward[~first][0], 100.5 + np.arange(4))
    np.testing.assert_array_equal(batch.time[~first][0], np.arange(4))


def test_relabelled_goals_lie_ahead_in_the_same_episode():
    batch = batch_of(episodes([30, 20]), Relabelled(current=0.3, future=0.7), size=3000)
    ahead = batch.goal[:, 0] - batch.observation[:, 0]
    assert np.all(ahead >= 1)
    assert np.all(batch.goal[:, 0] // 100 == batch.observation[:, 0] // 100)
    np.testing.assert_array_equal(batch.reward, -(ahead != 1).astype(np.float32))
    np.testing.assert_array_equal(batch.bootstrap, ahead != 1)
    assert np.mean(ahead == 1) > 0.3


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=12).filter(lambda w: sum(w) > 0.1))
def test_weighted_draws_have_the_shares_asked_for(weights):
    weights = np.array(weights)
    counts = np.bincount(np.asarray(weighted_draw(weights).steps(jax.random.key(0), 20000)), minlength=len(weights))
    share = weights / weights.sum()
    assert np.all(counts[weights == 0] == 0)
    assert np.all(np.abs(counts / 20000 - share) <= 5 * np.sqrt(share * (1 - share) / 20000) + 1e-9)


def test_the_shares_of_sources_do_not_depend_on_their_sizes():
    sources = (Source(episodes([50]), name="big"), Source(episodes([5], offset=5000), name="small"))
    batch = batch_of(Mixture(sources, (0.25, 0.75)), Transitions(), size=20000)
    assert np.mean(batch.source == 1) == pytest.approx(0.75, abs=0.02)
    np.testing.assert_array_equal(batch.source == 1, batch.observation[:, 0] >= 5000)


def test_episode_weights_spread_over_their_steps():
    batch = batch_of(episodes([2, 4]), Transitions(), size=20000, weights=np.array([1.0, 0.0]))
    assert set(batch.observation[:, 0]) == {0, 1}


def test_sources_of_different_widths_are_padded_with_zeros():
    sources = (Source(episodes([4], width=1), name="a", embodiment="a"), Source(episodes([4], width=3), name="b", embodiment="b"))
    batch = batch_of(Mixture(sources), Transitions(), size=100)
    assert batch.observation.shape == (100, 3)
    assert np.all(batch.observation[batch.source == 0][:, 1:] == 0)
    assert np.all(np.ptp(batch.observation[batch.source == 1], axis=1) == 0)


@pytest.mark.parametrize("sampling", [Transitions(), NStep(3), Chunks(3, 2), Windows(3), Relabelled()])
def test_host_and_device_give_the_same_batches(sampling, tmp_path):
    data = episodes([7, 2, 9], width=2)
    path = tmp_path / "observation.npy"
    np.save(path, data.observation)
    mapped = Episodes(data.lengths, np.load(path, mmap_mode="r"), data.action, data.reward, data.terminated)
    sources = (Source(mapped, name="mapped"), Source(episodes([4], offset=1000, width=2), name="other"))
    device = batch_of(Mixture(sources), sampling, size=64)
    host = batch_of(Mixture(sources), sampling, size=64, budget=0)
    assert jax.tree.structure(device) == jax.tree.structure(host)
    for one, other in zip(jax.tree.leaves(device), jax.tree.leaves(host), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6 if isinstance(sampling, NStep) else 0)


def test_sources_without_a_needed_column_are_named_and_left_out():
    mute = Source(episodes([4]).without("action"), name="mute")
    with pytest.warns(UserWarning, match="'mute' \\(no action\\)"):
        table, used = build_table(Mixture((mute, Source(episodes([3]), name="full"))), NEEDS, budget=1 << 20)
    assert [s.name for s in used.sources] == ["full"]
    assert table.index.steps == 3
    with pytest.raises(DataError, match="'mute' lacks action"):
        build_table(Mixture((mute,)), NEEDS, budget=1 << 20)


def test_impossible_draws_say_why():
    with pytest.raises(PolyactError, match="at least one of them positive"):
        weighted_draw(np.zeros(3))
    one = Source(episodes([1, 1]), metadata={"final_observation": "repeated"}, name="stub")
    one = Source(one.episodes.select([1]), metadata=one.metadata, name="stub")
    with pytest.raises(PolyactError, match="nothing can be drawn from source stub"):
        batch_of(Mixture((one,)), Transitions())


def test_goals_come_from_the_source_they_are_set_in():
    sources = [Source(episodes([n, n]), name=name) for n, name in ((5, "a"), (9, "b"), (7, "c"))]
    table, _ = build_table(Mixture(tuple(sources)), ("observation",), budget=1 << 30)
    sampling = Relabelled(current=0.0, future=0.0)
    steps = draw_from(table, sampling).steps(jax.random.key(0), 2000)
    rows = sampling.rows(table.index, steps, jax.random.key(1))
    ends = np.cumsum([s.episodes.steps + s.episodes.count for s in sources])
    np.testing.assert_array_equal(np.searchsorted(ends, np.asarray(rows["goal"]), side="right"), rows["source"])
    assert len(np.unique(rows["goal"])) == table.index.steps


def test_a_discount_of_one_has_no_geometric_goals():
    with pytest.raises(PolyactError, match="between 0 and 1"):
        Relabelled(discount=1.0)


def test_what_never_says_that_it_ended_is_taken_as_cut_off():
    with pytest.warns(UserWarning, match="no terminated column in data: their episodes are taken as cut off"):
        batch = batch_of(episodes([3]).without("terminated"), Transitions(), size=20)
    assert np.all(batch.bootstrap == 1)
