"""Single steps hold the same transitions as the episodes they come from."""

import numpy as np
import pytest

from polyact.data.episodes import Episodes
from polyact.data.single_steps import single_steps
from polyact.errors import DataError


def episodes() -> Episodes:
    rows = np.arange(7.0)[:, None]
    return Episodes(np.array([2, 3]), rows, np.arange(5), np.arange(5.0), np.array([0, 1, 0, 0, 0]), info={"x": np.arange(5)})


def test_every_step_keeps_its_successor():
    one = single_steps(episodes())
    assert one.lengths.tolist() == [1] * 5
    assert one.observation[:, 0].tolist() == [0, 1, 1, 2, 3, 4, 4, 5, 5, 6]
    assert one.action.tolist() == one.info["x"].tolist() == [0, 1, 2, 3, 4]
    assert one.terminated.tolist() == [False, True, False, False, False]
    assert one.truncated.tolist() == [True, False, True, True, True]


def test_the_first_steps_only_and_never_more_than_there_are():
    assert single_steps(episodes(), 3).observation[:, 0].tolist() == [0, 1, 1, 2, 3, 4]
    with pytest.raises(DataError, match="asked for 6 single steps of episodes with 5"):
        single_steps(episodes(), 6)
