"""Counts of tabular episodes against counting by hand."""

import numpy as np

from polyact.data.episodes import Episodes
from polyact.data.trajectory_counts import PADDING, Trajectories


def test_counts_by_hand():
    """Two episodes in three states with two actions: (0 a1 r0 1)(1 a0 r1 2) and (0 a1 r0 0)(0 a1 r0 1)."""
    rows, action = np.array([0, 1, 2, 0, 0, 1]), np.array([1, 0, 1, 1])
    data = Trajectories.of(Episodes(np.array([2, 2]), rows, action, np.array([0.0, 1, 0, 0])), 3, 2)
    assert np.asarray(data.taken).tolist() == [[0, 1, 1, 0, 0, 0], [0, 2, 0, 0, 0, 0]]
    assert np.asarray(data.outcome).tolist() == [[0, 1], [1, 0]]
    assert data.returns.tolist() == [0, 1]
    assert data.start.tolist() == [0, 0]
    assert (float(data.steps), data.results) == (4, 6)
    happened = np.asarray(data.reached).sum(0)
    seen = {(int(p), int(x)): n for p, x, n in zip(data.pair, data.result, happened, strict=True) if n}
    assert seen == {(1, 0): 1, (1, 1): 2, (2, 5): 1}  # result: 3 times the number of the reward, plus the next state
    assert data.reached.shape == (2, PADDING)
