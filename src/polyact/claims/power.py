"""How sure a verdict can be with so many seeds: the chance that a repetition would come out as `holds`, by simulation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from polyact.claims.claim import Beats
from polyact.claims.verdict import ONE_SIDED, Finding, Values, differences, margin_of

TIMES = 2000


@dataclass(frozen=True)
class Power:
    """measured: chance of `holds` in a repetition if the truth is what was measured. detectable: the smallest true effect against every
    rival (beyond its margin, in standard deviations of the paired differences) that would come out as `holds` in 80% of repetitions."""

    measured: float
    detectable: float


def power(finding: Finding, values: Values) -> Power | None:
    """Of a comparison with at least two seeds; None for other tests, which have no rival."""
    test = finding.claim.test
    if not isinstance(test, Beats) or finding.seeds < 2:
        return None
    ours = np.asarray(values[test.arm][finding.claim.metric], np.float64)
    apart = [differences(finding.claim, ours, np.asarray(values[rival][finding.claim.metric], np.float64)) for rival in test.rivals]
    margins = np.array([margin_of(test, rival) for rival in test.rivals])
    means = np.array([d.mean() for d in apart]) - margins
    spreads = np.array([d.std(ddof=1) for d in apart])
    draws = np.random.default_rng(0).standard_normal((TIMES, len(apart), finding.seeds))
    lost = [i for i, spread in enumerate(spreads) if spread == 0 and means[i] <= 0]
    shifts = np.divide(means, spreads, out=np.full(len(means), 1e6), where=spreads > 0)
    measured = 0.0 if lost else share_shown(shifts, draws)
    return Power(measured, _detectable(draws))


def share_shown(shifts: Float[np.ndarray, " rivals"], draws: Float[np.ndarray, "times rivals seeds"]) -> float:
    """Share of repetitions in which every rival is beaten after Holm's correction; shifts in standard deviations beyond the margin."""
    moved, seeds = draws + shifts[:, None], draws.shape[2]
    t = moved.mean(2) / (moved.std(2, ddof=1) / np.sqrt(seeds))
    p_values = stats.t.sf(t, seeds - 1)
    return float((p_values.max(1) < ONE_SIDED).mean()) if draws.shape[1] == 1 else float(_all_shown(p_values).mean())


def _all_shown(p_values: Float[np.ndarray, "times rivals"]) -> np.ndarray:
    """Holm's step-down rejects all hypotheses when the k-th smallest p-value is below alpha / (n - k + 1) for every k."""
    ordered, n = np.sort(p_values, axis=1), p_values.shape[1]
    return (ordered < ONE_SIDED / np.arange(n, 0, -1)).all(1)


def _detectable(draws: Float[np.ndarray, "times rivals seeds"]) -> float:
    low, high = 0.0, 64.0
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (low, middle) if share_shown(np.full(draws.shape[1], middle), draws) >= 0.8 else (middle, high)
    return high
