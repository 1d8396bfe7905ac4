"""Along which dimensions do effects differ? The part of their variance that covariates explain, and bounds on the rest.

Var(effect) = systematic + idiosyncratic. The systematic part is a projection on covariates that randomisation alone identifies; the other
is only bounded, because nobody is seen under both policies. Source: Ding, Feller & Miratrix (2019).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from polyact.evaluation.experiments.trial import Trial
from polyact.evaluation.statistics.compare import benjamini_hochberg


@dataclass(frozen=True)
class Systematic:
    """effect = intercept + slopes . (x - mean x) + rest. slopes [d] with their covariance [d, d]; variance: of the explained part, less
    what the slopes' sampling error adds to it (it may come out negative); p_value: Wald test that all slopes are 0."""

    slopes: Float[np.ndarray, " d"]
    covariance: Float[np.ndarray, "d d"]
    variance: float
    p_value: float


@dataclass(frozen=True)
class Dimension:
    """One covariate on its own. variance: of effects along it; slope with standard error; p_value; q_value: after Benjamini-Hochberg."""

    name: str
    variance: float
    slope: float
    error: float
    p_value: float
    q_value: float


@dataclass(frozen=True)
class Explained:
    """systematic variance (not below 0), the bounds of the idiosyncratic one, and the share that is explained, as an interval."""

    systematic: float
    idiosyncratic: tuple[float, float]
    share: tuple[float, float]


def systematic(trial: Trial) -> Systematic:
    """Slopes Sxx^-1 (mean_1(x Y) - mean_0(x Y)), x centred over all, Y centred in its arm so that a constant changes nothing."""
    x = trial.covariates - trial.covariates.mean(0)
    inverse = np.linalg.pinv(x.T @ x / len(x))
    parts, spread = [], np.zeros_like(inverse)
    for arm in (trial.treated, ~trial.treated):
        product = x[arm] * (trial.outcome[arm] - trial.outcome[arm].mean())[:, None]
        parts.append(product.mean(0))
        spread += np.cov(product.T, ddof=1).reshape(spread.shape) / arm.sum()
    slopes, covariance = inverse @ (parts[0] - parts[1]), inverse @ spread @ inverse
    explained = float((x @ slopes).var() - np.trace(np.cov(x.T, ddof=0).reshape(spread.shape) @ covariance))
    wald = float(slopes @ np.linalg.pinv(covariance) @ slopes)
    return Systematic(slopes, covariance, explained, float(stats.chi2.sf(wald, len(slopes))))


def dimensions(trial: Trial) -> tuple[Dimension, ...]:
    """Every covariate on its own, the one along which effects vary most first."""
    alone = [systematic(only(trial, (k,))) for k in range(len(trial.names))]
    corrected = benjamini_hochberg(np.array([one.p_value for one in alone]))
    found = [
        Dimension(name, one.variance, float(one.slopes[0]), float(np.sqrt(one.covariance[0, 0])), one.p_value, float(q))
        for name, one, q in zip(trial.names, alone, corrected, strict=True)
    ]
    return tuple(sorted(found, key=lambda dimension: -dimension.variance))


def forward_selection(trial: Trial, level: float = 0.05) -> tuple[str, ...]:
    """Covariates in the order in which they add most systematic variance, as long as the added slope passes level / (candidates)."""
    chosen: tuple[int, ...] = ()
    while left := [k for k in range(len(trial.names)) if k not in chosen]:
        fits = {k: systematic(only(trial, (*chosen, k))) for k in left}
        best = max(left, key=lambda k: fits[k].variance)
        z = fits[best].slopes[-1] / np.sqrt(fits[best].covariance[-1, -1])
        if 2 * stats.norm.sf(abs(z)) > level / len(left):
            break
        chosen = (*chosen, best)
    return tuple(trial.names[k] for k in chosen)


def explained(trial: Trial) -> Explained:
    """How much of the variance of effects all covariates together explain linearly, between the bounds that the margins allow."""
    part = max(systematic(trial).variance, 0.0)
    design = np.column_stack([np.ones(len(trial.outcome)), trial.covariates])
    rest = []
    for arm in (trial.treated, ~trial.treated):
        coefficients = np.linalg.lstsq(design[arm], trial.outcome[arm], rcond=None)[0]
        rest.append(trial.outcome[arm] - design[arm] @ coefficients)
    low, high = variance_bounds(rest[0], rest[1])
    share = [part / (part + other) if part + other > 0 else 0.0 for other in (high, low)]
    return Explained(part, (low, high), (share[0], share[1]))


def variance_bounds(treated: Float[np.ndarray, " n"], control: Float[np.ndarray, " m"]) -> tuple[float, float]:
    """Smallest and largest variance of effects with these margins: quantile against equal, and against opposite quantile."""
    comonotone, antitone = coupled(treated, control)
    widths = np.diff(_breaks(len(treated), len(control)))
    low, high = (float(widths @ (part - widths @ part) ** 2) for part in (comonotone, antitone))
    return low, high


def coupled(
    treated: Float[np.ndarray, " n"], control: Float[np.ndarray, " m"]
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Effects F1^-1(u) - F0^-1(u) and F1^-1(u) - F0^-1(1 - u) of the empirical margins, one for each piece of u where they are constant.

    The pieces are those of `piece_widths`.
    """
    breaks = _breaks(len(treated), len(control))
    middle = (breaks[1:] + breaks[:-1]) / 2
    first, second = (np.sort(sample) for sample in (treated, control))
    upper = first[np.minimum((middle * len(first)).astype(int), len(first) - 1)]
    lower, opposite = (second[np.minimum((u * len(second)).astype(int), len(second) - 1)] for u in (middle, 1 - middle))
    return upper - lower, upper - opposite


def piece_widths(n: int, m: int) -> Float[np.ndarray, " k"]:
    """How much of u each piece of `coupled` has for samples of n and m."""
    return np.diff(_breaks(n, m))


def only(trial: Trial, columns: tuple[int, ...]) -> Trial:
    """The trial with some of its covariates."""
    names = tuple(trial.names[k] for k in columns)
    return Trial(trial.outcome, trial.treated, trial.covariates[:, list(columns)], names)


def _breaks(n: int, m: int) -> Float[np.ndarray, " k"]:
    """Where either empirical quantile function jumps, 1 - u included (the grids are symmetric)."""
    merged = np.concatenate([np.arange(n + 1) / n, np.arange(m + 1) / m])
    ordered = np.sort(merged)
    return ordered[np.concatenate([[True], np.diff(ordered) > 1e-12])]
