"""Episodes refuse what would go wrong silently later, and select the way NumPy does."""

import numpy as np
import pytest

from polyact.data.episodes import Episodes
from polyact.errors import DataError, PolyactError

LENGTHS = np.array([2, 1, 3])


def made(**columns):
    return Episodes(LENGTHS, observation=np.arange(9.0)[:, None], reward=np.arange(6.0), **columns)


@pytest.mark.parametrize(
    ("index", "numbers"),
    [([0, 2], [0, 2]), ([-1], [2]), ([-1, 0], [2, 0]), (np.array([True, False, True]), [0, 2]), ([], [])],
)
def test_episodes_are_selected_by_number_from_either_end_or_by_mask(index, numbers):
    chosen = made().select(index)
    rows = [np.arange(9)[start : start + n + 1] for start, n in ((0, 2), (3, 1), (5, 3))]
    expected = np.concatenate([rows[i] for i in numbers]) if numbers else np.zeros(0)
    np.testing.assert_array_equal(chosen.observation[:, 0], expected)
    np.testing.assert_array_equal(chosen.lengths, LENGTHS[numbers])


@pytest.mark.parametrize("index", [[3], [-4], np.array([True, False])])
def test_numbers_no_episode_has_are_one_line(index):
    with pytest.raises(DataError, match="no such episodes among 3"):
        made().select(index)


def test_lengths_are_whole_numbers():
    for lengths in (np.array([2.5, 1.0]), np.array([[1, 2]]), np.array([0, 3])):
        with pytest.raises(DataError, match="vector of positive integers"):
            Episodes(lengths)


@pytest.mark.parametrize("name", ["cost", "terminated", "return_to_go", "log_prob"])
def test_one_value_per_step_has_one_axis(name):
    with pytest.raises(DataError, match=rf"column '{name}' has shape \(6, 1\), expected one value per step"):
        made(**{name: np.zeros((6, 1))})


def test_flags_of_zeros_and_ones_become_booleans():
    episodes = made(terminated=np.array([0, 1, 0, 0, 0, 1.0]), truncated=np.zeros(6, np.uint8))
    assert episodes.terminated.dtype == bool
    assert episodes.truncated.dtype == bool
    np.testing.assert_array_equal(np.flatnonzero(episodes.terminated), [1, 5])
    with pytest.raises(DataError, match="column 'truncated'"):
        made(truncated=np.array([0, 2, 0, 0, 0, 1]))


def test_only_columns_can_be_removed():
    assert made().without("reward").missing[:2] == ("action", "reward")
    with pytest.raises(PolyactError, match="did you mean 'reward'"):
        made().without("rewards")
