"""Steps as episodes of their own: data of exactly as many steps as asked for, from episodes of any lengths."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np

from polyact.data.episodes import Column, Episodes
from polyact.errors import DataError


def single_steps(episodes: Episodes, count: int | None = None) -> Episodes:
    """The first `count` steps (default: all), each an episode of length 1 that is truncated unless it terminated.

    For learners of transitions: what they see is the same, and data sets of equal `count` share compiled programs. Returns and time
    within an episode are lost. Raises DataError when there are fewer steps.
    """
    count = episodes.steps if count is None else count
    if not 1 <= count <= episodes.steps:
        raise DataError(f"asked for {count} single steps of episodes with {episodes.steps}")
    kept = np.arange(count)
    rows = kept + np.repeat(np.arange(episodes.count), episodes.lengths)[:count]
    both = np.stack([rows, rows + 1], 1).reshape(-1)
    columns: dict[str, Any] = {
        name: _take(column, both if name == "observation" else kept) for name, column, _ in episodes.columns()
    }
    info = {name.removeprefix("info/"): columns.pop(name) for name in list(columns) if name.startswith("info/")}
    single = Episodes(lengths=np.ones(count, np.int64), info=info, **columns)
    return single if single.terminated is None else replace(single, truncated=~single.terminated)


def _take(column: Column, rows: np.ndarray) -> Column:
    return jax.tree.map(lambda leaf: leaf[rows], column)
