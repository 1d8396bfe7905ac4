"""Cross-fitting: what is predicted for a unit comes from a model that never saw it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from polyact.errors import PolyactError

Predict = Callable[[Float[np.ndarray, "n d"]], Float[np.ndarray, " n"]]


def folds(groups: Shaped[np.ndarray, " n"], count: int, seed: int = 0) -> Int[np.ndarray, " n"]:
    """A fold 0 .. count - 1 for each unit, at random and balanced within each group (arm). PolyactError when a group is too small."""
    generator, found = np.random.default_rng(seed), np.zeros(len(groups), int)
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        if len(rows) < count or count < 2:
            raise PolyactError(
                f"cross-fitting needs 2 folds or more and as many units in every group, got {count} folds, {len(rows)} units"
            )
        found[generator.permutation(rows)] = np.arange(len(rows)) % count
    return found


def cross_fitted(
    fold: Int[np.ndarray, " n"], fit: Callable[[Bool[np.ndarray, " n"]], Predict], inputs: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, " n"]:
    """Predictions for all units, those of a fold by fit(mask of all the other folds)."""
    found = np.full(len(fold), np.nan)
    for number in np.unique(fold):
        here = fold == number
        found[here] = fit(~here)(inputs[here])
    return found


def ridge(inputs: Float[np.ndarray, "n d"], target: Float[np.ndarray, " n"], penalty: float = 1.0) -> Predict:
    """Least squares with penalty * |slopes|^2 on standardised inputs; the intercept is free. penalty 0 is plain least squares."""
    centre, scale = inputs.mean(0), inputs.std(0)
    scale = np.where(scale > 0, scale, 1.0)
    x, mean = (inputs - centre) / scale, target.mean()
    slopes = np.linalg.lstsq(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ (target - mean), rcond=None)[0]
    return lambda new: mean + (new - centre) / scale @ slopes


def inverse(probability: Float[np.ndarray, " n"], least: float = 0.05) -> Float[np.ndarray, " n"]:
    """1 / probability, with the denominator kept at `least` or more; where a probability is not a denominator it stays as it is."""
    return 1 / np.maximum(probability, least)
