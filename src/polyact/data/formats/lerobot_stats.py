"""Statistics as LeRobot keeps them: for every feature and episode min, max, mean, std, count and, since v3.0, quantiles.

Quantiles are exact (LeRobot's own are read off histograms and averaged over episodes).
"""

from __future__ import annotations

from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}

_BLOCK = 1 << 24  # numbers sorted at a time


def episode_stats(column: np.ndarray, lengths: np.ndarray, image: bool) -> dict[str, np.ndarray]:
    """Statistics of each episode, by name, each [E, *row shape] ([E, 1] for scalars). column: [N, ...].

    image: pixels [N, H, W, C] of 0 .. 255, whose statistics are per channel, [E, C, 1, 1], on a scale from 0 to 1.
    """
    ends = np.cumsum(lengths)
    each = [_stats(column[end - length : end], image) for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)]
    return {name: np.stack([stats[name] for stats in each]) for name in each[0]}


def total_stats(column: np.ndarray, image: bool) -> dict[str, Any]:
    """Statistics of all rows, as lists."""
    return {name: value.tolist() for name, value in _stats(column, image).items()}


def _stats(rows: np.ndarray, image: bool) -> dict[str, np.ndarray]:
    if image:
        return _image_stats(rows)
    flat = rows.reshape(len(rows), -1)
    width = max(1, _BLOCK // len(rows))
    blocks = [_vector_stats(flat[:, start : start + width]) for start in range(0, max(1, flat.shape[1]), width)]
    shape = rows.shape[1:] or (1,)
    joined = {name: np.concatenate([block[name] for block in blocks]).reshape(shape) for name in blocks[0]}
    return {**joined, "count": np.array([len(rows)])}


def _vector_stats(rows: np.ndarray) -> dict[str, np.ndarray]:
    ordered = np.sort(rows.astype(np.float64), axis=0)
    with np.errstate(over="ignore", invalid="ignore"):  # infos may hold anything
        stats = {"min": ordered[0], "max": ordered[-1], "mean": ordered.mean(0), "std": ordered.std(0)}
    for name, quantile in QUANTILES.items():
        place = quantile * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        stats[name] = ordered[low] + (place - low) * (ordered[high] - ordered[low])
    return stats


def _image_stats(images: np.ndarray) -> dict[str, np.ndarray]:
    levels = np.arange(256) / 255
    names = ("min", "max", "mean", "std", *QUANTILES)
    stats = {name: np.empty((images.shape[-1], 1, 1)) for name in names}
    for channel in range(images.shape[-1]):
        counts = np.bincount(images[..., channel].reshape(-1), minlength=256)
        seen, below = np.flatnonzero(counts), np.cumsum(counts)
        mean = counts @ levels / below[-1]
        values = [levels[seen[0]], levels[seen[-1]], mean, np.sqrt(counts @ (levels - mean) ** 2 / below[-1])]
        values += [levels[np.searchsorted(below, quantile * (below[-1] - 1), "right")] for quantile in QUANTILES.values()]
        for name, value in zip(names, values, strict=True):
            stats[name][channel] = value
    return {**stats, "count": np.array([len(images)])}
