"""What is estimated: mean, interquartile mean, quantiles, optimality gap, each with its influence values.

The influence values of a statistic are what its average error is made of: the variance of any of these statistics under any design
(runs by initial states, runs within tasks, ...) is the variance of a mean of influence values. So one set of variance formulas serves all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from polyact.errors import PolyactError

Number = np.ndarray | np.floating


@dataclass(frozen=True)
class Statistic:
    """A summary of n scores.

    value: [..., n] -> [...]. influence: [..., n] -> [..., n], values whose mean moves as the statistic does (None for quantiles,
    whose influence needs a density). trimmed: number of scores of n that the statistic leaves out, which cost degrees of freedom.
    """

    name: str
    value: Callable[[np.ndarray], Any]
    influence: Callable[[np.ndarray], np.ndarray] | None = None
    trimmed: Callable[[int], int] = lambda n: 0
    probability: float | None = None


def mean() -> Statistic:
    """The average score."""
    return Statistic("mean", lambda x: x.mean(-1), lambda x: x)


def iqm() -> Statistic:
    """Interquartile mean: the mean without the lowest and the highest quarter (Agarwal et al. 2021; rounds as scipy's trim_mean).

    Influence: the winsorised scores (Tukey & McLaughlin 1963).
    """
    return Statistic("IQM", _trimmed_mean, _winsorised, lambda n: 2 * (n // 4))


def quantile(probability: float) -> Statistic:
    """The score that a share `probability` of the scores does not exceed."""
    if not 0 < probability < 1:
        raise PolyactError(f"a quantile needs a probability between 0 and 1, got {probability}")
    name = "median" if probability == 0.5 else f"{100 * probability:g}% quantile"
    return Statistic(name, lambda x: np.quantile(x, probability, axis=-1), probability=probability)


def median() -> Statistic:
    """The middle score."""
    return quantile(0.5)


def optimality_gap(target: float = 1.0) -> Statistic:
    """How far scores fall short of `target` on average; what exceeds the target does not count (Agarwal et al. 2021). Lower is better."""

    def gap(x: np.ndarray) -> np.ndarray:
        return target - np.minimum(x, target)

    return Statistic(f"optimality gap to {target:g}", lambda x: gap(x).mean(-1), gap)


def lower_tail_mean(share: float) -> Statistic:
    """The mean of the worst `share` of the scores (conditional value at risk)."""
    if not 0 < share < 1:
        raise PolyactError(f"a tail needs a share between 0 and 1, got {share}")

    def value(x: np.ndarray) -> Number:
        edge = np.quantile(x, share, axis=-1, keepdims=True)
        return (edge - np.maximum(edge - x, 0) / share).mean(-1)

    def influence(x: np.ndarray) -> np.ndarray:
        edge = np.quantile(x, share, axis=-1, keepdims=True)
        return edge - np.maximum(edge - x, 0) / share

    return Statistic(f"mean of the worst {100 * share:g}%", value, influence)


BY_NAME: dict[str, Callable[[], Statistic]] = {"mean": mean, "iqm": iqm, "median": median, "optimality_gap": optimality_gap}


def _trimmed_mean(x: np.ndarray) -> Number:
    cut = x.shape[-1] // 4
    return np.sort(x, axis=-1)[..., cut : x.shape[-1] - cut].mean(-1)


def _winsorised(x: np.ndarray) -> np.ndarray:
    n = x.shape[-1]
    cut = n // 4
    if cut == 0:
        return x
    ends = np.partition(x, (cut, n - cut - 1), axis=-1)
    return np.clip(x, ends[..., cut, None], ends[..., n - cut - 1, None]) * (n / (n - 2 * cut))
