"""Is A better than B: paired differences, probability of improvement, and what many comparisons at once do to p-values.

Differences are always "A minus B". Where both met the same initial states (or share seeds, or tasks), the pairing removes what they
have in common. Difference intervals use Student's t: the difference of two similar distributions is nearly symmetric, and t then holds
its coverage from 3 pairs on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy import stats

from polyact.errors import PolyactError, unknown
from polyact.evaluation.statistics.designs import (
    UNITS,
    Design,
    Units,
    check_units,
    describe,
    score_table,
    variance,
    variance_of_difference,
)
from polyact.evaluation.statistics.estimate import Estimate, check_level, named
from polyact.evaluation.statistics.functionals import Statistic
from polyact.evaluation.statistics.success import paired_rate_difference


@dataclass(frozen=True)
class Comparison:
    """A against B. difference: A minus B. p_value: two-sided, that there is none; p_holm: corrected for all comparisons made together.

    improvement: probability that A scores higher than B (ties count half).
    """

    first: str
    second: str
    difference: Estimate
    p_value: float
    p_holm: float
    improvement: Estimate


def difference(
    first: object,
    second: object,
    statistic: Statistic | str = "mean",
    *,
    design: Design = "crossed",
    units: Units | None = None,
    level: float = 0.95,
) -> tuple[Estimate, float]:
    """Statistic of the first minus that of the second, and the two-sided p-value of no difference.

    Scores [n] or [runs, columns]. Equal numbers of rows are paired row by row (common seeds; independent rows are a special case),
    different numbers are taken as independent rows over common columns. Raises PolyactError when columns do not match, or when the
    rows to resample number fewer than two.
    """
    statistic = named(statistic)
    check_level(level)
    units = units or UNITS[design]
    a, b = score_table(first, "scores of the first"), score_table(second, "scores of the second")
    check_units(a.shape, units, "scores of the first")
    check_units(b.shape, units, "scores of the second")
    if a.shape[1] != b.shape[1] and design != "nested":
        raise PolyactError(f"columns are paired ({units[1]}), but there are {a.shape[1]} and {b.shape[1]} of them")
    if statistic.influence is None:
        raise PolyactError(f"differences of the {statistic.name} are not supported; use mean or iqm")
    design = "nested" if a.shape[1] == b.shape[1] == 1 else design
    parts = [statistic.influence(table.reshape(-1)).reshape(table.shape) for table in (a, b)]
    value = float(statistic.value(a.reshape(-1)) - statistic.value(b.reshape(-1)))
    if a.shape == b.shape:
        spread, free = variance(parts[0] - parts[1], design)
        resampled = f"paired {describe(a.shape, design, units)}"
    else:
        spread, free = variance_of_difference(parts[0], parts[1], design)
        resampled = f"and {len(b)} independent {describe(a.shape, design, units)}"
    interval, p_value = _t_interval(value, math.sqrt(spread), max(float(free), 1.0), level)
    note = "the difference is the same everywhere: its zero width says nothing about what was not seen" if spread == 0 else ""
    return Estimate(value, *interval, level, len(a), statistic.name, resampled, "Student's t", note), p_value


def probability_of_improvement(
    first: object, second: object, *, units: Units = UNITS["stratified"], level: float = 0.95
) -> Estimate:
    """Probability that a run of the first scores higher than a run of the second, ties 1/2; the mean over tasks for [runs, tasks].

    Interval per task: score method for the Mann-Whitney statistic (Newcombe 2006, method 5), which holds 94-97% from 5 against 5
    runs on, also when all runs of one side win; tasks are combined by recovering variances (Zou & Donner 2008).
    """
    check_level(level)
    a, b = score_table(first, "scores of the first"), score_table(second, "scores of the second")
    check_units(a.shape, units, "scores of the first")
    check_units(b.shape, units, "scores of the second")
    if a.shape[1] != b.shape[1]:
        raise PolyactError(
            f"the two sides were scored on {a.shape[1]} and {b.shape[1]} {units[1]}; they must be the same {units[1]}"
        )
    ranks = stats.rankdata(np.concatenate([a, b]), axis=0)[: len(a)]
    wins = (ranks.mean(0) - (len(a) + 1) / 2) / len(b)
    low, high = mann_whitney_interval(wins, len(a), len(b), level)
    value, tasks = float(wins.mean()), len(wins)
    reach = [math.sqrt(float(((wins - end) ** 2).sum())) / tasks for end in (low, high)]
    resampled = f"and {len(b)} independent {describe(a.shape, 'stratified', units)}"
    ends = max(value - reach[0], 0.0), min(value + reach[1], 1.0)
    return Estimate(value, *ends, level, len(a), "probability of improvement", resampled, "Newcombe's score interval")


def share_of_wins(first: object, second: object, *, unit: str = "initial states", level: float = 0.95) -> Estimate:
    """Probability that the first scores higher than the second on the same unit, ties 1/2, from paired scores [n]. Wilson's interval."""
    check_level(level)
    a, b = score_table(first, "scores of the first"), score_table(second, "scores of the second")
    if a.shape != b.shape or a.shape[1] != 1:
        raise PolyactError(f"paired scores need two vectors of one length, got shapes {a.shape} and {b.shape}")
    check_units(a.shape, (unit, unit))
    value, n = float((np.sign(a - b).mean() + 1) / 2), len(a)
    ends = wilson(np.array([value]), n, level)
    method = "Wilson's score interval"
    return Estimate(value, float(ends[0][0]), float(ends[1][0]), level, n, "probability of improvement", f"paired {unit}", method)


def holm(p_values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """p-values corrected for being n tests together, step-down (Holm 1979). NaN stays NaN and does not count."""
    corrected = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    corrected[order] = np.minimum(np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1)), 1)
    return corrected


def benjamini_hochberg(p_values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """p-values corrected so that rejecting those up to q leaves a share q of false ones among the rejected, on average.

    Holds for independent and positively dependent tests (Benjamini & Hochberg 1995). NaN stays NaN and does not count.
    """
    corrected = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    falling = known[np.argsort(-p_values[known], kind="stable")]
    scaled = p_values[falling] * len(falling) / np.arange(len(falling), 0, -1)
    corrected[falling] = np.minimum(np.minimum.accumulate(scaled), 1)
    return corrected


def compare(
    scores: Mapping[str, object],
    reference: str | None = None,
    *,
    statistic: Statistic | str = "mean",
    design: Design = "crossed",
    units: Units | None = None,
    level: float = 0.95,
) -> tuple[Comparison, ...]:
    """Every entry minus the reference (the first entry unless named), p-values Holm-corrected together.

    Scores [n] or [runs, columns]. Where one side is a single run it is not resampled: the statement then holds for that run only, and
    says so; where both are, the columns are resampled (by the Agresti-Min interval where scores are zeros and ones).
    """
    names = list(scores)
    reference = reference if reference is not None else "".join(names[:1])
    if reference not in scores:
        raise unknown("reference", reference, names)
    tables = {name: score_table(values, f"scores of '{name}'") for name, values in scores.items()}
    units = units or UNITS[design]
    found = [
        _compare_two(n, reference, tables[n], tables[reference], statistic, design, units, level) for n in names if n != reference
    ]
    corrected = holm(np.array([comparison.p_value for comparison in found]))
    return tuple(replace(comparison, p_holm=float(p)) for comparison, p in zip(found, corrected, strict=True))


def wilson(share: Float[np.ndarray, " k"], n: int, level: float) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Wilson's score interval of each share seen among n."""
    z2 = float(stats.norm.ppf((1 + level) / 2)) ** 2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    reach = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    return np.clip(centre - reach, 0, share), np.clip(centre + reach, share, 1)


def mann_whitney_interval(
    wins: Float[np.ndarray, " k"], n: int, m: int, level: float
) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Newcombe's (2006) method 5 for each share of wins of n against m: both solutions t of |wins - t| = z * sd(t), by bisection."""
    half, z = (n + m) / 2 - 1, float(stats.norm.ppf((1 + level) / 2))

    def outside(t: np.ndarray) -> np.ndarray:
        return (t - wins) ** 2 > z**2 * t * (1 - t) * (1 + half * ((1 - t) / (2 - t) + t / (1 + t))) / (n * m)

    ends = []
    for extreme in (0.0, 1.0):
        outer, inner = np.full_like(wins, extreme), wins.copy()
        for _ in range(60):
            middle = (outer + inner) / 2
            out = outside(middle)
            outer, inner = np.where(out, middle, outer), np.where(out, inner, middle)
        ends.append(inner)
    return ends[0], ends[1]


def _compare_two(
    first: str,
    second: str,
    a: np.ndarray,
    b: np.ndarray,
    statistic: Statistic | str,
    design: Design,
    units: Units,
    level: float,
) -> Comparison:
    single = [name for name, table in ((first, a), (second, b)) if len(table) == 1]
    if len(single) == 2 and a.shape != b.shape and design != "nested":
        counts = f"{a.shape[1]} and {b.shape[1]} of them"
        raise PolyactError(f"'{first}' minus '{second}': columns are paired ({units[1]}), but there are {counts}")
    if len(single) == 2:
        a, b, units, design = a.T, b.T, (units[1], units[0]), "nested"
    elif single:
        a, b = (np.broadcast_to(t, (max(len(a), len(b)), t.shape[1])) for t in (a, b))
    try:
        if (
            len(single) == 2
            and a.shape == b.shape
            and len(a) > 1
            and np.isin((a, b), (0, 1)).all()
            and named(statistic).name == "mean"
        ):
            gap, p_value = paired_rate_difference(a[:, 0], b[:, 0], level=level, unit=units[0])
        else:
            gap, p_value = difference(a, b, statistic, design=design, units=units, level=level)
    except PolyactError as error:
        raise PolyactError(f"'{first}' minus '{second}': {error}") from error
    if len(single) == 1:
        gap = replace(gap, note="; ".join(filter(None, [gap.note, f"{single[0]}: one run, not resampled"])))
    if len(single) == 2 and len(a) != len(b):
        wins = probability_of_improvement(a, b, units=units, level=level)
    elif single:
        wins = share_of_wins(a.mean(1), b.mean(1), unit=units[0], level=level)
    elif design == "stratified":
        wins = probability_of_improvement(a, b, units=units, level=level)
    else:
        wins = probability_of_improvement(a.mean(1), b.mean(1), units=units, level=level)
    return Comparison(first, second, gap, p_value, p_value, wins)


def _t_interval(value: float, error: float, free: float, level: float) -> tuple[tuple[float, float], float]:
    reach = error * float(stats.t.ppf((1 + level) / 2, free))
    p_value = 2 * float(stats.t.sf(abs(value) / error, free)) if error > 0 else float(value == 0)
    return (value - reach, value + reach), p_value
