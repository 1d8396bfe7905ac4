"""How are individual effects spread? Cross-fitted estimates of single effects, and the distribution as a mixture over segments.

The histogram of estimated effects is shrunk and is not the distribution of effects. What the data say about that are margins within
segments: means are known, and two couplings of the margins (equal ranks, opposite ranks) stand beside each other for the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from polyact.errors import PolyactError
from polyact.evaluation.experiments.cross_fit import Predict, cross_fitted, folds, inverse, ridge
from polyact.evaluation.experiments.surface import coupled, piece_widths
from polyact.evaluation.experiments.trial import Trial

Effects = Float[np.ndarray, " n"]


@dataclass(frozen=True)
class Segment:
    """label; share of all units; mean effect and its standard error; harmed: share of negative effects if ranks are equal in both arms,
    and if they are opposite."""

    label: int
    share: float
    mean: float
    error: float
    harmed: tuple[float, float]


@dataclass(frozen=True)
class Spread:
    """segments; mean effect; quantiles: (probability, with equal ranks, with opposite ranks) of the mixture over segments."""

    segments: tuple[Segment, ...]
    mean: float
    quantiles: tuple[tuple[float, float, float], ...]


def t_learner(trial: Trial, *, count: int = 5, penalty: float = 1.0, seed: int = 0) -> Effects:
    """A ridge regression in each arm; the difference of their predictions."""
    fold = folds(trial.treated, count, seed)
    first, second = (_arm_predictions(trial, fold, arm, penalty) for arm in (True, False))
    return first - second


def x_learner(trial: Trial, *, count: int = 5, penalty: float = 1.0, seed: int = 0) -> Effects:
    """Imputed effects of each arm, from the other arm's regression, regressed anew and mixed by the share treated (Künzel et al. 2019)."""
    fold, share = folds(trial.treated, count, seed), float(trial.treated.mean())

    def fit(train: np.ndarray) -> Predict:
        parts = []
        for arm in (True, False):
            own, other = train & (trial.treated == arm), train & (trial.treated != arm)
            imputed = trial.outcome[own] - ridge(trial.covariates[other], trial.outcome[other], penalty)(trial.covariates[own])
            parts.append(ridge(trial.covariates[own], imputed if arm else -imputed, penalty))
        return lambda new: (1 - share) * parts[0](new) + share * parts[1](new)

    return cross_fitted(fold, fit, trial.covariates)


def dr_learner(trial: Trial, *, count: int = 5, penalty: float = 1.0, seed: int = 0) -> Effects:
    """Doubly robust scores, their regressions cross-fitted, regressed on covariates and cross-fitted again (Kennedy 2023)."""
    fold, scores = folds(trial.treated, count, seed), doubly_robust_scores(trial, count=count, penalty=penalty, seed=seed + 1)
    return cross_fitted(fold, lambda train: ridge(trial.covariates[train], scores[train], penalty), trial.covariates)


def doubly_robust_scores(trial: Trial, *, count: int = 5, penalty: float = 1.0, seed: int = 0) -> Effects:
    """One unbiased and noisy effect for each unit; the propensity is the share treated, as randomised."""
    fold, share = folds(trial.treated, count, seed), np.full(len(trial.outcome), trial.treated.mean())
    first, second = (_arm_predictions(trial, fold, arm, penalty) for arm in (True, False))
    gain = np.where(trial.treated, (trial.outcome - first) * inverse(share), -(trial.outcome - second) * inverse(1 - share))
    return first - second + gain


def spread(trial: Trial, segment: Int[np.ndarray, " n"], probabilities: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 0.9)) -> Spread:
    """The distribution of effects as a mixture over segments (labels per unit, from covariates, never from outcomes)."""
    labels, found, effects, weights = np.unique(segment), [], ([], []), []
    for label in labels:
        inside = segment == label
        first, second = trial.outcome[inside & trial.treated], trial.outcome[inside & ~trial.treated]
        if min(len(first), len(second)) < 2:
            raise PolyactError(f"segment {label} needs two units in each arm, got {len(first)} and {len(second)}")
        share, widths, pair = float(inside.mean()), piece_widths(len(first), len(second)), coupled(first, second)
        error = float(np.sqrt(first.var(ddof=1) / len(first) + second.var(ddof=1) / len(second)))
        harmed = float(widths @ (pair[0] < 0)), float(widths @ (pair[1] < 0))
        found.append(Segment(int(label), share, float(first.mean() - second.mean()), error, harmed))
        weights.append(share * widths)
        for collected, part in zip(effects, pair, strict=True):
            collected.append(part)
    weight = np.concatenate(weights)
    equal, opposite = (_quantiles(np.concatenate(part), weight, probabilities) for part in effects)
    mean = sum(one.share * one.mean for one in found)
    rows = tuple(zip(probabilities, equal.tolist(), opposite.tolist(), strict=True))
    return Spread(tuple(found), float(mean), rows)


def _arm_predictions(trial: Trial, fold: Int[np.ndarray, " n"], arm: bool, penalty: float) -> Effects:
    def fit(train: np.ndarray) -> Predict:
        own = train & (trial.treated == arm)
        return ridge(trial.covariates[own], trial.outcome[own], penalty)

    return cross_fitted(fold, fit, trial.covariates)


def _quantiles(values: np.ndarray, weights: np.ndarray, probabilities: tuple[float, ...]) -> np.ndarray:
    """Inverse of the weighted distribution function."""
    order = np.argsort(values)
    upto = np.cumsum(weights[order]) / weights.sum()
    return values[order][np.minimum(np.searchsorted(upto, np.array(probabilities) - 1e-12), len(values) - 1)]
