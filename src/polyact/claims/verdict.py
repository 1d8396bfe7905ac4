"""Verdicts: does what was measured show what was claimed.

`holds`: the paired 95% interval of arm minus each rival lies beyond the smallest effect of interest (several rivals: Holm's step-down
keeps the chance of a false `holds` for the whole claim). `fails`: for some rival it lies on the wrong side of zero. Else `not shown`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from polyact.claims.claim import Always, Beats, Claim, Within
from polyact.errors import PolyactError
from polyact.evaluation.statistics.compare import holm
from polyact.evaluation.statistics.estimate import Estimate, estimate

Verdict = Literal["holds", "fails", "not shown"]
Scores = Float[np.ndarray, " seeds"]
Values = Mapping[str, Mapping[str, Scores]]  # arm -> metric -> one number per seed

LEVEL = 0.95
ONE_SIDED = (1 - LEVEL) / 2


@dataclass(frozen=True)
class Effect:
    """Arm against one rival (or the arm itself against its bounds, rival '').

    estimate: of the paired differences, turned so that more is better (on a log scale where the claim is a ratio). margin: the
    smallest effect of interest on that scale. p_holm: one-sided, that the effect is not beyond the margin, corrected for all rivals.
    """

    rival: str
    margin: float
    estimate: Estimate
    p_value: float
    p_holm: float


@dataclass(frozen=True)
class Finding:
    """What a claim came out as, with the effects it rests on."""

    claim: Claim
    verdict: Verdict
    effects: tuple[Effect, ...]
    seeds: int


def judge(claim: Claim, values: Values) -> Finding:
    """The verdict on a claim. Raises PolyactError when an arm lacks the metric, or a number is not finite."""
    test = claim.test
    ours = _scores(claim, values, test.arm)
    if isinstance(test, Always):
        inside = (ours >= (-math.inf if test.low is None else test.low)) & (ours <= (math.inf if test.high is None else test.high))
        return Finding(claim, "holds" if inside.all() else "fails", (_mean_effect(ours),), len(ours))
    if isinstance(test, Within):
        effect = _mean_effect(ours)
        return Finding(claim, _inside(test, effect.estimate), (effect,), len(ours))
    effects = [_effect(claim, test, ours, _scores(claim, values, rival), rival) for rival in test.rivals]
    corrected = holm(np.array([effect.p_value for effect in effects]))
    effects = [Effect(e.rival, e.margin, e.estimate, e.p_value, float(p)) for e, p in zip(effects, corrected, strict=True)]
    return Finding(claim, _verdict(effects), tuple(effects), len(ours))


def differences(claim: Claim, ours: Scores, theirs: Scores) -> Scores:
    """Paired differences on the scale of the claim, turned so that more is better."""
    ratio = isinstance(claim.test, Beats) and claim.test.ratio
    if ratio and min(ours.min(), theirs.min()) <= 0:
        raise PolyactError(f"claim '{claim.name}' compares factors of {claim.metric}, which must be positive everywhere")
    first, second = (np.log(ours), np.log(theirs)) if ratio else (ours, theirs)
    return first - second if claim.better == "higher" else second - first


def margin_of(test: Beats, rival: str) -> float:
    """The smallest effect of interest on the scale of the differences."""
    return math.log(test.rivals[rival]) if test.ratio else test.rivals[rival]


def _effect(claim: Claim, test: Beats, ours: Scores, theirs: Scores, rival: str) -> Effect:
    apart, margin = differences(claim, ours, theirs), margin_of(test, rival)
    p_value = one_sided(apart, margin)
    return Effect(rival, margin, _interval(apart), p_value, p_value)


def _verdict(effects: list[Effect]) -> Verdict:
    if all(effect.p_holm < ONE_SIDED for effect in effects):
        return "holds"
    if any(effect.estimate.high < min(0.0, effect.margin) for effect in effects):
        return "fails"
    return "not shown"


def one_sided(apart: Scores, margin: float) -> float:
    """The one-sided p-value that the mean is not beyond `margin`: the level at which the interval's lower limit reaches it."""
    if len(apart) < 2:
        return math.nan
    if np.ptp(apart) == 0:
        return 0.0 if apart[0] > margin else 1.0
    if _interval(apart).value <= margin:
        return 1.0
    low, high = 0.0, 1.0 - 1e-6
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if _interval(apart, middle).low > margin else (low, middle)
    return (1 - (low + high) / 2) / 2


def _interval(apart: Scores, level: float = LEVEL) -> Estimate:
    if len(apart) < 2:
        value = float(apart[0])
        return Estimate(value, math.nan, math.nan, level, 1, "mean", "seeds", note="one seed has no interval")
    return estimate(apart, units=("seeds", "seeds"), level=level)


def _mean_effect(ours: Scores) -> Effect:
    return Effect("", 0.0, _interval(ours), math.nan, math.nan)


def _inside(test: Within, found: Estimate) -> Verdict:
    low, high = -math.inf if test.low is None else test.low, math.inf if test.high is None else test.high
    if found.low >= low and found.high <= high:
        return "holds"
    return "fails" if found.high < low or found.low > high else "not shown"


def _scores(claim: Claim, values: Values, arm: str) -> Scores:
    if claim.metric not in values[arm]:
        raise PolyactError(f"claim '{claim.name}' reads the metric '{claim.metric}', '{arm}' measured {', '.join(values[arm])}")
    scores = np.asarray(values[arm][claim.metric], np.float64)
    if not np.isfinite(scores).all():
        raise PolyactError(f"{claim.metric} of '{arm}' is not finite at seed number {int(np.argmin(np.isfinite(scores)))}")
    return scores
