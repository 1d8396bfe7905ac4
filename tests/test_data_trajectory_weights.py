"""Weights of trajectories: their limits, what they sum to, and the policy that data look like under them."""

import numpy as np
import pytest

from polyact.data.episodes import Episodes
from polyact.data.sampling import Transitions, draw_from
from polyact.data.source import Mixture, Source
from polyact.data.table import build_table
from polyact.data.trajectory_weights import (
    advantages,
    best_trajectories,
    half_and_half,
    positive_sided_variance,
    predicted_returns,
    trajectory_weights,
)
from polyact.errors import DataError, PolyactError
from polyact.spaces import Box


def episodes(returns=(0.0, 1.0, 4.0), lengths=(2, 3, 5), starts=None) -> Episodes:
    lengths = np.asarray(lengths)
    reward = np.concatenate([np.eye(1, n, n - 1)[0] * g for n, g in zip(lengths, returns, strict=True)])
    rows = np.zeros((lengths.sum() + len(lengths), 1), np.float32)
    if starts is not None:
        rows[np.cumsum(lengths) - lengths + np.arange(len(lengths)), 0] = starts
    return Episodes(lengths, rows, np.zeros((lengths.sum(), 1), np.float32), reward)


def step_shares(data: Episodes, weights: np.ndarray) -> np.ndarray:
    """The probability of each step, from the thresholds that `fit` draws with."""
    source = Source(data, observation_space=Box(-9, 9, (1,)), action_space=Box(-1, 1, (1,)))
    table, _ = build_table(Mixture((source,)), ("observation", "action"), budget=1 << 30, weights=weights)
    draw = draw_from(table, Transitions())
    steps = np.arange(data.steps) if draw.eligible is None else np.asarray(draw.eligible)
    shares = np.zeros(data.steps)
    if draw.thresholds is None:
        shares[steps] = 1 / len(steps)
    else:
        shares[steps] = np.diff(np.concatenate([[0.0], np.asarray(draw.thresholds, np.float64) / 2.0**32, [1.0]]))
    return shares


def test_probabilities_are_those_of_the_paper_and_equal_inside_a_trajectory():
    data = episodes()
    found = step_shares(data, trajectory_weights(data.returns, 0.5))
    weights = np.exp(np.array([0.0, 0.25, 1.0]) / 0.5)
    expected = np.repeat(weights / (data.lengths @ weights), data.lengths)
    np.testing.assert_allclose(found, expected, atol=1e-8)
    assert found.sum() == pytest.approx(1)


def test_large_alpha_is_uniform_over_steps_and_small_alpha_the_best_trajectory():
    data = episodes()
    np.testing.assert_allclose(step_shares(data, trajectory_weights(data.returns, 1e9)), 0.1, atol=1e-8)
    np.testing.assert_allclose(step_shares(data, trajectory_weights(data.returns, 1e-3))[5:], 0.2, atol=1e-8)


def test_shift_and_scale_of_returns_change_nothing():
    returns = np.array([3.0, -1.0, 7.0])
    np.testing.assert_allclose(trajectory_weights(returns), trajectory_weights(100 * returns - 5), rtol=1e-10)
    np.testing.assert_array_equal(trajectory_weights(np.full(4, 2.0)), np.ones(4))


def test_advantages_take_out_what_the_start_explains():
    start = np.array([0.0, 1.0, 2.0, 3.0])
    data = episodes(2 * start + 1, (2, 2, 2, 2), start)
    np.testing.assert_allclose(advantages(data), 0, atol=1e-9)
    lucky = episodes(2 * start + np.array([0, 0, 0, 1.0]), (2, 2, 2, 2), start)
    residual = advantages(lucky)
    assert residual.sum() == pytest.approx(0)
    assert residual @ start == pytest.approx(0)


def test_discrete_starts_are_names_so_the_regression_is_their_mean():
    rows = np.array([7, 0, 3, 0, 7, 0])
    data = Episodes(np.array([1, 1, 1]), rows, np.zeros(3, np.int64), np.array([1.0, 5.0, 3.0]))
    np.testing.assert_allclose(predicted_returns(data, data.returns), [2, 5, 2], atol=1e-9)


def test_the_best_and_half_of_them():
    data = episodes()
    assert best_trajectories(data.returns, 0.1).tolist() == [0, 0, 1]
    shares = step_shares(data, half_and_half(data, 0.1))
    np.testing.assert_allclose(shares, [0.05] * 5 + [0.15] * 5, atol=1e-8)


def test_positive_sided_variance_by_hand():
    assert positive_sided_variance(np.array([0.0, 0.0, 3.0])) == pytest.approx(4 / 3)
    assert positive_sided_variance(np.full(3, 5.0)) == 0


def test_what_makes_no_sense_is_refused():
    with pytest.raises(PolyactError, match="alpha must be positive, got 0"):
        trajectory_weights(np.zeros(2), 0)
    with pytest.raises(DataError, match="finite"):
        trajectory_weights(np.array([np.nan]))
    with pytest.raises(PolyactError, match="share"):
        best_trajectories(np.zeros(2), 0)
    with pytest.raises(DataError, match="need observations"):
        advantages(Episodes(np.array([1]), reward=np.ones(1)))
