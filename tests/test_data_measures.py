"""Quality and coverage of data against counting by hand, and HyperLogLog against exact counts."""

import numpy as np
import pytest

from polyact.data.episodes import Episodes, concatenate
from polyact.data.hyperloglog import HyperLogLog
from polyact.data.measures import (
    Grid,
    count_pairs,
    coverage_ratio,
    log_coverage_ratio,
    trajectory_quality,
    unique_pairs,
)
from polyact.errors import DataError, PolyactError


def walk(seed: int, count: int = 20, length: int = 7, states: int = 9) -> Episodes:
    generator, steps = np.random.default_rng(seed), count * length
    ended = np.zeros(steps, bool)
    ended[length - 1 :: length] = True
    rows = generator.integers(states, size=steps + count)
    actions, reward = generator.integers(3, size=steps), generator.random(steps)
    return Episodes(np.full(count, length), rows, actions, reward, ended, np.zeros(steps, bool))


def pairs(episodes: Episodes) -> set:
    rows = np.arange(episodes.steps) + np.repeat(np.arange(episodes.count), episodes.lengths)
    return set(zip(episodes.observation[rows].tolist(), episodes.action.tolist(), strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_the_exact_count_is_the_size_of_the_set(seed):
    data = walk(seed, count=4)
    assert unique_pairs(data, Grid.of(data)) == len(pairs(data))


def test_saco_of_the_reference_is_one_and_repetition_changes_nothing():
    data, reference = walk(1, 3), walk(0)
    assert coverage_ratio(reference, reference) == log_coverage_ratio(reference, reference) == 1
    twice = concatenate([data, data])
    assert coverage_ratio(twice, reference) == coverage_ratio(data, reference) < 1
    assert trajectory_quality(twice, 0.0, 5.0) == pytest.approx(trajectory_quality(data, 0.0, 5.0))
    assert coverage_ratio(concatenate([data, reference]), data) > 1


def test_another_trajectory_never_lowers_the_count():
    data, more = walk(0, 2), walk(1, 10)
    grid = Grid.of(data)
    counts = [unique_pairs(concatenate([data, more.select(np.arange(n))]), grid) for n in range(1, 11)]
    assert counts == sorted(counts)


def test_quality_is_zero_at_random_and_one_at_best():
    data = walk(0)
    mean = data.returns.mean()
    assert trajectory_quality(data, mean, mean + 1) == pytest.approx(0)
    assert trajectory_quality(data, mean - 3, mean) == pytest.approx(1)


def test_a_trajectory_that_was_cut_off_does_not_count():
    data = walk(0, 3)
    open_end = Episodes(data.lengths, data.observation, data.action, data.reward, data.terminated.copy(), data.truncated)
    open_end.terminated[-1] = False
    expected = trajectory_quality(data.select([0, 1]), 0.0, 1.0)
    assert trajectory_quality(open_end, 0.0, 1.0) == pytest.approx(expected)


def test_continuous_cells_are_the_references_and_new_places_are_new_cells():
    def made(states):
        steps = len(states)
        rows = np.append(states, 0.0)[:, None].astype(np.float64)
        return Episodes(np.array([steps]), rows, np.zeros((steps, 1), np.float64), np.zeros(steps))

    reference = made(np.linspace(0, 1, 11))
    grid = Grid.of(reference, bins=10)
    assert unique_pairs(reference, grid) == 10
    assert unique_pairs(made([0.01, 0.09, 0.11]), grid) == 2
    assert unique_pairs(made([0.95, 1.0]), grid) == 1
    assert unique_pairs(made([-0.01, 0.01, 1.05, 2.0]), grid) == 4


@pytest.mark.parametrize("count", [1, 10, 1000, 20_000, 60_000, 300_000])
def test_hyperloglog_is_within_two_percent(count):
    numbers = np.random.default_rng(count).integers(2**63, size=count, dtype=np.uint64)
    data = Episodes(np.array([count]), np.zeros(count + 1, np.int64), numbers.view(np.int64), np.zeros(count))
    hashes = Grid.of(data).hashes(concatenate([data, data]))
    assert HyperLogLog.empty(15).add(hashes).count() == pytest.approx(count, rel=0.02)


def test_merged_counters_are_one_counter():
    first, second = (np.random.default_rng(s).integers(2**63, size=900, dtype=np.uint64) * np.uint64(2) for s in (0, 1))
    both = HyperLogLog.empty(10).add(np.concatenate([first, second]))
    merged = HyperLogLog.empty(10).add(first).merge(HyperLogLog.empty(10).add(second))
    np.testing.assert_array_equal(merged.registers, both.registers)
    assert HyperLogLog.empty().count() == 0
    with pytest.raises(PolyactError, match="precision 10 and 14 can't be merged"):
        merged.merge(HyperLogLog.empty())


def test_registers_hold_the_longest_run_of_zeros():
    hashes = np.array([0, 1 << 63, (1 << 59) | (5 << 60)], np.uint64)
    registers = HyperLogLog.empty(4).add(hashes).registers
    assert registers[0] == 61
    assert registers[8] == 61
    assert registers[5] == 1


def test_an_estimate_of_the_pairs_agrees_with_the_exact_count():
    data = walk(3, 400, 30, 4000)
    assert count_pairs(data, Grid.of(data), 15) == pytest.approx(unique_pairs(data, Grid.of(data)), rel=0.02)


def test_what_makes_no_sense_is_refused():
    data = walk(0)
    with pytest.raises(PolyactError, match="must earn more than the random one"):
        trajectory_quality(data, 1.0, 1.0)
    with pytest.raises(DataError, match="needs observations and actions"):
        unique_pairs(data.without("action"), Grid.of(data))
    with pytest.raises(PolyactError, match="precision must lie between 4 and 18, got 3"):
        HyperLogLog.empty(3)
    with pytest.raises(DataError, match="at least one complete"):
        trajectory_quality(Episodes(np.array([1]), reward=np.ones(1), terminated=np.zeros(1, bool)), 0.0, 1.0)
