"""A number with its uncertainty: `estimate` summarises scores and says how sure that is, by resampling which axis.

What the intervals are worth was measured by simulation, and tests/test_evaluation_coverage.py keeps it true. 95% intervals hold 93-97%:
of a mean from 5 scores on, for distributions from uniform to exponential (not for log-normal scores or two far modes: 88-92% below 20
scores); of runs by initial states from 5 runs on (91-97% at 3) and of runs by tasks from 3 runs on, for near-normal run effects.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from scipy import stats

from polyact.errors import PolyactError, unknown
from polyact.evaluation.statistics import bootstrap
from polyact.evaluation.statistics.designs import UNITS, Design, Units, check_units, describe, score_table, variance
from polyact.evaluation.statistics.functionals import BY_NAME, Statistic
from polyact.evaluation.statistics.quantiles import quantile_limits

Method = Literal["auto", "t", "studentised", "standard_error", "bca", "percentile"]

SMALL, LARGE = 5, 2000  # the studentised bootstrap knows nothing below, and says the same as Student's t above


@dataclass(frozen=True)
class Estimate:
    """A value between its limits.

    level: what share of such intervals holds the truth. n: units on the resampled axis, named by `resampled` ("runs × 64 initial
    states" after n = 5 reads "5 runs × 64 initial states"). statistic: what was estimated. method: how the interval was made.
    note: why to be careful, if there is a reason. A limit that the data can't give is NaN.
    """

    value: float
    low: float
    high: float
    level: float
    n: int
    statistic: str
    resampled: str
    method: str = ""
    note: str = ""

    @property
    def sample(self) -> str:
        """What was resampled, with its number: '5 runs × 64 initial states'."""
        return f"{self.n} {self.resampled}"

    def __str__(self) -> str:
        return f"{self.text} {self.interval_text} ({100 * self.level:g}%, {self.sample})"

    @property
    def text(self) -> str:
        """The value, with as many digits as its interval deserves."""
        return show(self.value, self.decimals)

    @property
    def interval_text(self) -> str:
        return f"[{show(self.low, self.decimals)}, {show(self.high, self.decimals)}]"

    @property
    def decimals(self) -> int:
        """Decimals that show two digits of the interval's width."""
        width = self.high - self.low
        if not (math.isfinite(width) and width > 0):
            width = abs(self.value) / 10 if math.isfinite(self.value) else 1.0
        return min(max(1 - math.floor(math.log10(width)), 0), 6) if width > 0 else 0


def show(value: float, decimals: int) -> str:
    """A number for people: a real minus sign, a dash for what is not known."""
    return f"{value:.{decimals}f}".replace("-", "−") if math.isfinite(value) else "–"


def estimate(
    scores: object,
    statistic: Statistic | str = "mean",
    *,
    design: Design = "crossed",
    units: Units | None = None,
    level: float = 0.95,
    method: Method = "auto",
    times: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Summarise scores [n] or [runs, columns] with an interval.

    design: what the columns are (`statistics.designs`); a vector has none. units: names of the two axes, by default those of the
    design; only the first matters for a vector. method 'auto' takes what held its coverage in simulation: studentised bootstrap for
    vectors of 5 to 2000 scores, order statistics for quantiles, Student's t on the bootstrap's standard error for interquartile means
    of vectors and of runs by tasks, else Student's t on the design's standard error. times: bootstrap replicates, drawn from `seed`.
    Raises PolyactError on non-finite scores and when the axis to resample has fewer than two units.
    """
    table = score_table(scores)[None]
    return estimates(table, statistic, design=design, units=units, level=level, method=method, times=times, seed=seed)[0]


def estimates(
    tables: Float[np.ndarray, "batch rows columns"],
    statistic: Statistic | str = "mean",
    *,
    design: Design = "crossed",
    units: Units | None = None,
    level: float = 0.95,
    method: Method = "auto",
    times: int = 2000,
    seed: int = 0,
) -> list[Estimate]:
    """`estimate` for a batch of tables at once (one per training step, say)."""
    statistic = named(statistic)
    check_level(level)
    units = units or UNITS[design]
    check_units(tables.shape[1:], units)
    design = "nested" if tables.shape[2] == 1 else design
    values = statistic.value(tables.reshape(len(tables), -1))
    lows, highs, how, notes = _intervals(tables, statistic, design, level, method, times, seed)
    resampled, size = describe(tables.shape[1:], design, units), tables[0].size
    flat = f"all {size} scores are equal: the zero width says nothing about what was not seen"
    notes = [flat if np.ptp(table) == 0 else note for table, note in zip(tables, notes, strict=True)]
    return [
        Estimate(float(value), float(low), float(high), level, tables.shape[1], statistic.name, resampled, how, note)
        for value, low, high, note in zip(values, lows, highs, notes, strict=True)
    ]


def named(statistic: Statistic | str) -> Statistic:
    """The statistic of that name."""
    if isinstance(statistic, Statistic):
        return statistic
    if statistic not in BY_NAME:
        raise unknown("statistic", statistic, BY_NAME)
    return BY_NAME[statistic]()


def check_level(level: float) -> None:
    if not 0 < level < 1:
        raise PolyactError(f"the level of an interval lies between 0 and 1, got {level}")


def _intervals(
    tables: np.ndarray, statistic: Statistic, design: Design, level: float, method: str, times: int, seed: int
) -> tuple[np.ndarray, np.ndarray, str, list[str]]:
    """Both limits [batch], how they were made, and a note for each."""
    quiet = [""] * len(tables)
    if method == "auto":
        if statistic.probability is not None:
            return quantile_limits(tables, statistic.probability, design, level)
        method = _default(tables, statistic, design)
    match method:
        case "t":
            error, free = _standard_error(tables, statistic, design)
            lost = statistic.trimmed(tables.shape[1]) if tables.shape[2] == 1 else 0
            return *_around(tables, statistic, error, free - lost, level), "Student's t", quiet
        case "standard_error":
            error, free = (
                bootstrap.standard_error(tables, statistic, design, times, seed),
                _standard_error(tables, statistic, design)[1],
            )
            return (
                *_around(tables, statistic, error, free, level),
                f"Student's t, bootstrap standard error ({times} replicates)",
                quiet,
            )
        case "studentised":
            return (
                *bootstrap.studentised(tables, statistic, design, level, times, seed),
                f"studentised bootstrap, {times} replicates",
                quiet,
            )
        case "bca":
            return *bootstrap.bca(tables, statistic, design, level, times, seed), f"BCa bootstrap, {times} replicates", quiet
        case "percentile":
            return (
                *bootstrap.percentile(tables, statistic, design, level, times, seed),
                f"percentile bootstrap, {times} replicates",
                quiet,
            )
    raise unknown("interval method", method, get_args(Method))


def _default(tables: np.ndarray, statistic: Statistic, design: Design) -> str:
    vector, few = tables.shape[2] == 1, tables.shape[1] <= LARGE
    if statistic.trimmed(tables.shape[1]):
        return "standard_error" if few and (vector or design == "stratified") else "t"
    return "studentised" if vector and few and tables.shape[1] >= SMALL else "t"


def _standard_error(tables: np.ndarray, statistic: Statistic, design: Design) -> tuple[np.ndarray, np.ndarray]:
    """Standard errors of the statistic of tables under a design, and their degrees of freedom."""
    if statistic.influence is None:
        raise PolyactError(f"the {statistic.name} has no standard error formula; use method 'bca' or 'percentile'")
    spread, free = variance(statistic.influence(tables.reshape(len(tables), -1)).reshape(tables.shape), design)
    return np.sqrt(spread), free


def _around(
    tables: np.ndarray, statistic: Statistic, error: np.ndarray, free: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray]:
    value, reach = statistic.value(tables.reshape(len(tables), -1)), error * stats.t.ppf((1 + level) / 2, np.maximum(free, 1.0))
    return value - reach, value + reach
