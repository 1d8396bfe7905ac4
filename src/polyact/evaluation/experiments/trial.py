"""The data of a randomised comparison of two policies over users."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from polyact.errors import PolyactError


@dataclass(frozen=True)
class Trial:
    """outcome [n], treated [n], covariates [n, d] measured before treatment (what treatment changes must not be among them), names [d].

    Raises PolyactError when lengths differ, numbers are not finite, an arm has fewer than 4 units or a covariate never varies.
    """

    outcome: Float[np.ndarray, " _"]
    treated: Bool[np.ndarray, " _"]
    covariates: Float[np.ndarray, "_ d"]
    names: tuple[str, ...] = ()

    def __post_init__(self):
        n, dimensions = self.covariates.shape
        if not len(self.outcome) == len(self.treated) == n:
            raise PolyactError(f"a trial needs one row per unit, got {len(self.outcome)}, {len(self.treated)} and {n} rows")
        names = self.names or tuple(f"x{k + 1}" for k in range(dimensions))
        object.__setattr__(self, "names", names)
        if len(names) != dimensions:
            raise PolyactError(f"{dimensions} covariates need as many names, got {len(names)}")
        if not (np.isfinite(self.outcome).all() and np.isfinite(self.covariates).all()):
            raise PolyactError("a trial has outcomes or covariates that are not finite")
        if min(self.treated.sum(), (~self.treated).sum()) < 4:
            raise PolyactError(f"each arm needs at least 4 units, got {self.treated.sum()} treated of {n}")
        for name, column in zip(names, self.covariates.T, strict=True):
            if np.ptp(column) == 0:
                raise PolyactError(f"covariate '{name}' is the same for everybody")

    @property
    def effect(self) -> float:
        """Difference of the arms' means: the average effect."""
        return float(self.outcome[self.treated].mean() - self.outcome[~self.treated].mean())

    @property
    def effect_error(self) -> float:
        """Its standard error (Neyman 1923)."""
        arms = (self.outcome[self.treated], self.outcome[~self.treated])
        return float(np.sqrt(sum(arm.var(ddof=1) / len(arm) for arm in arms)))

    def adjusted(self) -> Trial:
        """The same with outcomes less what covariates predict, by least squares on (1, treated, covariates)."""
        centred = self.covariates - self.covariates.mean(0)
        design = np.column_stack([np.ones(len(centred)), self.treated, centred])
        slopes = np.linalg.lstsq(design.T @ design, design.T @ self.outcome, rcond=None)[0][2:]
        return replace(self, outcome=self.outcome - centred @ slopes)
