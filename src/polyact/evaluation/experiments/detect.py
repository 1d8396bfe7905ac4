"""Do effects differ at all? A randomisation test of "everybody has the same effect" that needs no model and no covariates.

Under the hypothesis Y(1) = Y(0) + c every outcome without treatment is known, so treatment can be drawn again. The statistic compares
the arms' distributions after removing the mean difference, in every draw anew: without that the test rejects whenever there is an
effect. c is not known, so the largest p over a confidence interval for c counts. Source: Ding, Feller & Miratrix (2016), section 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from polyact.errors import PolyactError
from polyact.evaluation.experiments.trial import Trial

SPENT = 0.001  # chance that the interval for c misses it, added to p
TIE = 1e-9  # distances this close are equal but for rounding


@dataclass(frozen=True)
class Detection:
    """statistic: the shifted Kolmogorov-Smirnov distance. p_value: that all effects are equal, valid whatever their size; p_at_effect:
    the same as if the average effect were known to be the one observed."""

    statistic: float
    p_value: float
    p_at_effect: float


def detect(trial: Trial, *, draws: int = 999, points: int = 15, seed: int = 0) -> Detection:
    """Test that all effects are equal. On `trial.adjusted()` it is sharper where covariates predict outcomes.

    points: how many values of c in its 99.9% interval are tried (odd, so that the estimate is one). The same draws serve all of them.
    """
    p_values = [randomisation_p(trial.outcome, trial.treated, c, draws, seed) for c in _common_effects(trial, points)]
    distance = shifted_distance(trial.outcome[trial.treated], trial.outcome[~trial.treated])
    return Detection(distance, min(max(p_values) + SPENT, 1.0), p_values[0])


def rejects(trial: Trial, level: float = 0.05, *, draws: int = 999, points: int = 15, seed: int = 0) -> bool:
    """Whether p_value of `detect` is at most `level`: the same draws, but no more of them once that can't be any more."""
    allowed = int(np.floor((level - SPENT) * (draws + 1) + 1e-9)) - 1
    return all(
        _at_most(allowed, _distances(trial.outcome - c * trial.treated, _assignments(trial.treated, draws, seed)))
        for c in _common_effects(trial, points)
    )


def shifted_distance(treated: Float[np.ndarray, " n"], control: Float[np.ndarray, " m"]) -> float:
    """sup over y of |F1(y + difference of means) - F0(y)|."""
    return _distance(np.sort(treated) - treated.mean(), np.sort(control) - control.mean())


def randomisation_p(
    outcome: Float[np.ndarray, " n"], treated: Bool[np.ndarray, " n"], shift: float, draws: int, seed: int = 0
) -> float:
    """p of "everybody's effect is `shift`", from random assignments of the same sizes; the observed one counts as a draw."""
    found = np.array(list(_distances(outcome - shift * treated, _assignments(treated, draws, seed))))
    return float(np.mean(found >= found[0] - TIE))


def exact_p(outcome: Float[np.ndarray, " n"], treated: Bool[np.ndarray, " n"], shift: float) -> float:
    """The same from all assignments of the same sizes: for a dozen units at most."""
    every = (np.array(rows) for rows in combinations(range(len(outcome)), int(treated.sum())))
    observed = shifted_distance(outcome[treated], outcome[~treated])
    return float(np.mean(np.array(list(_distances(outcome - shift * treated, every))) >= observed - TIE))


def plain_ks_p(trial: Trial) -> float:
    """p of equal distributions in both arms (Kolmogorov-Smirnov): what rejects for any effect, equal for everybody or not."""
    return float(stats.ks_2samp(trial.outcome[trial.treated], trial.outcome[~trial.treated], method="asymp")[1])  # pyright: ignore[reportArgumentType]


def _common_effects(trial: Trial, points: int) -> list[float]:
    """The observed effect, and then the others of its 99.9% interval from the middle outwards."""
    if points < 1 or points % 2 == 0:
        raise PolyactError(f"points must be odd, so that the estimate is one of them, got {points}")
    reach = float(stats.norm.ppf(1 - SPENT / 2)) * trial.effect_error
    steps = np.linspace(-1, 1, points) if points > 1 else np.zeros(1)
    return [trial.effect + reach * float(step) for step in sorted(steps, key=abs)]


def _assignments(treated: Bool[np.ndarray, " n"], draws: int, seed: int) -> Iterator[Int[np.ndarray, " k"]]:
    """Who is treated: as observed, and then at random."""
    generator = np.random.default_rng(seed)
    yield np.flatnonzero(treated)
    for _ in range(draws):
        yield generator.permutation(len(treated))[: treated.sum()]


def _at_most(allowed: int, distances: Iterator[float]) -> bool:
    """Whether at most so many of the later distances are as large as the first."""
    first, as_far = next(distances), 0
    for distance in distances:
        as_far += distance >= first - TIE
        if as_far > allowed:
            return False
    return allowed >= 0


def _distances(untreated: Float[np.ndarray, " n"], assignments: Iterable[Int[np.ndarray, " k"]]) -> Iterator[float]:
    """Shifted distances under a hypothesis that gives everybody's outcome without treatment (up to a constant), sorted only once."""
    order = np.argsort(untreated, kind="stable")
    ranked, rank = untreated[order], np.argsort(order, kind="stable")
    for rows in assignments:
        chosen = np.zeros(len(ranked), bool)
        chosen[rank[rows]] = True
        first, second = ranked[chosen], ranked[~chosen]
        yield _distance(first - first.mean(), second - second.mean())


def _distance(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " m"]) -> float:
    """Kolmogorov-Smirnov distance of two sorted samples: the largest gap is at a jump of the first's distribution."""
    n, m = len(first), len(second)
    upto, before = (np.searchsorted(second, first, side) / m for side in ("right", "left"))
    steps = np.arange(n + 1) / n
    return float(max((steps[1:] - upto).max(), (before - steps[:-1]).max()))
