"""Curves with bands: learning curves over training steps, scores over latency, performance profiles. Bands hold pointwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from polyact.errors import PolyactError
from polyact.evaluation.statistics.compare import wilson
from polyact.evaluation.statistics.designs import UNITS, Design, Units, score_table
from polyact.evaluation.statistics.estimate import Estimate, check_level, estimates
from polyact.evaluation.statistics.functionals import Statistic


@dataclass(frozen=True)
class Curve:
    """An estimate at each x. Plain tuples, so that it is a value that can be compared and written as JSON."""

    label: str
    x: tuple[float, ...]
    estimates: tuple[Estimate, ...]

    def __post_init__(self):
        if len(self.x) != len(self.estimates) or not self.x:
            raise PolyactError(
                f"curve '{self.label}' has {len(self.x)} positions and {len(self.estimates)} estimates; it needs as many"
            )


def curve(
    label: str,
    x: object,
    scores: object,
    statistic: Statistic | str = "mean",
    *,
    design: Design = "crossed",
    units: Units | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Curve:
    """A curve through scores [runs, T] or [runs, columns, T] at positions x [T] (steps, seconds of latency, ...)."""
    positions = tuple(float(v) for v in np.asarray(x, np.float64).reshape(-1))
    table = np.asarray(scores, np.float64)
    if table.ndim not in (2, 3) or table.shape[-1] != len(positions):
        raise PolyactError(
            f"curve '{label}': scores have shape {table.shape}, expected [runs, {len(positions)}] or [runs, columns, ...]"
        )
    score_table(table.reshape(-1, len(positions)), f"scores of curve '{label}'")
    points = np.moveaxis(table.reshape(len(table), -1, len(positions)), -1, 0)
    return Curve(label, positions, tuple(estimates(points, statistic, design=design, units=units, level=level, seed=seed)))


def performance_profile(
    label: str, scores: object, thresholds: object, *, units: Units = UNITS["stratified"], level: float = 0.95
) -> Curve:
    """Share of the runs (over all tasks) that score above each threshold, from scores [runs] or [runs, tasks] (Agarwal et al. 2021).

    Wilson's interval on runs x tasks independent scores; conservative where tasks differ in difficulty.
    """
    check_level(level)
    table = score_table(scores)
    positions = np.asarray(thresholds, np.float64).reshape(-1)
    above: Float[np.ndarray, " T"] = (table.reshape(-1, 1) > positions).mean(0)
    low, high = wilson(above, table.size, level)
    resampled = units[0] if table.shape[1] == 1 else f"{units[0]} × {units[1]}"
    points = tuple(
        Estimate(float(v), float(a), float(b), level, table.size, "share above", resampled, "Wilson's score interval")
        for v, a, b in zip(above, low, high, strict=True)
    )
    return Curve(label, tuple(float(t) for t in positions), points)


def curves(
    x: object, scores: Mapping[str, object], statistic: Statistic | str = "mean", *, level: float = 0.95
) -> tuple[Curve, ...]:
    """One curve per entry: {label: scores [runs, T] or [runs, initial states, T]}."""
    return tuple(curve(label, x, table, statistic, level=level) for label, table in scores.items())
