"""For one randomised experiment: do effects differ, along which dimensions, and how are they spread (arXiv 2211.01547).

Three steps in this order. Detect: a randomisation test of equal effects that uses no covariates. Surface: how much of the variance
of effects each covariate explains, corrected for sampling error and for looking at many. Characterise: the distribution of effects as
a mixture over the segments that were surfaced. The paper fixes the steps; the statistics are those of Ding, Feller and Miratrix (2016,
2019), in `evaluation/experiments/`. `heterogeneity` runs all three and says what it found as a report.

Measured on 200 data sets: at 5% the test rejects equal effects in 2.5% (Kolmogorov-Smirnov without the shift in all), effects 0 and 2
in all, but effects 0.5 and 1.5 only in 21%; that adjusting for covariates helps there was not shown (26%, interval of the gain -4 to
13%). The covariate behind the effects ranks first in all; 4% of the named ones are wrong, 20% without the correction, 22% by hand.
Segments' effects are off by 0.046 on average, against 0.5 for one average.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray
from scipy import stats

from polyact.claims.card import Card
from polyact.claims.claim import Arm, Beats, Budget, Claim, Experiment, Scale, Within
from polyact.evaluation.experiments.characterise import Spread, dr_learner, spread
from polyact.evaluation.experiments.detect import Detection, detect, plain_ks_p, rejects
from polyact.evaluation.experiments.surface import Dimension, Explained, dimensions, explained, forward_selection
from polyact.evaluation.experiments.trial import Trial
from polyact.evaluation.report.report import Distributions, Group, Report, Section, Table

SEGMENTED = 2  # dimensions that segments are made of: each doubles their number


@dataclass(frozen=True)
class Heterogeneity:
    """What the three steps found. segment [n]: the label of each unit; single [n]: cross-fitted effect of each unit."""

    detection: Detection
    dimensions: tuple[Dimension, ...]
    selected: tuple[str, ...]
    explained: Explained
    segment: Int[np.ndarray, " n"]
    spread: Spread
    single: Float[np.ndarray, " n"]


def analyse(trial: Trial, *, draws: int = 999, seed: int = 0) -> Heterogeneity:
    """Detect on outcomes adjusted for covariates, surface, and characterise by median splits of the selected dimensions."""
    adjusted = trial.adjusted()
    selected = forward_selection(trial)
    segment = segments(trial, selected[:SEGMENTED])
    return Heterogeneity(
        detect(adjusted, draws=draws, seed=seed),
        dimensions(trial),
        selected,
        explained(trial),
        segment,
        spread(adjusted, segment),
        dr_learner(trial, seed=seed),
    )


def segments(trial: Trial, names: tuple[str, ...]) -> Int[np.ndarray, " n"]:
    """Cells of median splits: the first name is the lowest bit, 1 above the median. Without names everybody is in segment 0."""
    label = np.zeros(len(trial.outcome), int)
    for bit, name in enumerate(names):
        column = trial.covariates[:, trial.names.index(name)]
        label += (column > np.median(column)).astype(int) << bit
    return label


def heterogeneity(trial: Trial, *, draws: int = 999, seed: int = 0) -> Report:
    """`analyse` as a report: prints, JSON, one page."""
    found = analyse(trial, draws=draws, seed=seed)
    units = f"{trial.treated.sum()} treated and {(~trial.treated).sum()} control units"
    return Report(
        "Heterogeneous effects", f"Average effect {trial.effect:.3g} (standard error {trial.effect_error:.2g}), {units}."
    ).with_section(_detected(found), _surfaced(found), _characterised(found))


def _detected(found: Heterogeneity) -> Section:
    detection = found.detection
    row = detection.statistic, detection.p_value, detection.p_at_effect
    table = Table("Equal effects", ("distance", "p (any common effect)", "p (the effect observed)"), (row,))
    differ = "Effects differ." if detection.p_value <= 0.05 else "That everybody has the same effect is not ruled out."
    return Section("Detect", differ, (table,))


def _surfaced(found: Heterogeneity) -> Section:
    rows = tuple((d.name, d.variance, d.slope, d.error, d.p_value, d.q_value) for d in found.dimensions)
    columns = ("dimension", "variance of effects", "slope", "standard error", "p", "q (Benjamini-Hochberg)")
    known = found.explained
    text = (
        f"Covariates explain {100 * known.share[0]:.0f}% to {100 * known.share[1]:.0f}% of the variance of effects: {known.systematic:.3g} "
        f"against {known.idiosyncratic[0]:.3g} to {known.idiosyncratic[1]:.3g} that they don't. "
        f"Selected: {', '.join(found.selected) or 'none'}."
    )
    return Section("Surface", text, (Table("Dimensions", columns, rows),))


def _characterised(found: Heterogeneity) -> Section:
    rows = tuple((s.label, s.share, s.mean, s.error, *s.harmed) for s in found.spread.segments)
    columns = ("segment", "share", "mean effect", "standard error", "harmed if ranks agree", "harmed if ranks oppose")
    quantiles = Table("Quantiles of effects", ("probability", "if ranks agree", "if ranks oppose"), found.spread.quantiles)
    histogram = Distributions("Estimated single effects", "effect", (Group("units", tuple(found.single.tolist())),))
    note = "Estimated single effects are narrower or wider than the effects themselves; quantiles between the couplings are what is known."
    return Section("Characterise", "", (Table("Segments", columns, rows), quantiles), (histogram,), notes=(note,))


CARD = Card(
    slug="hte-paradigm",
    name="HTE paradigm",
    title="A Systematic Paradigm for Detecting, Surfacing, and Characterizing Heterogeneous Treatment Effects (HTE)",
    arxiv="2211.01547",
    family="society",
    kind="judge",
    summary="for a randomised comparison of two policies: do effects differ between users, along what, and how are they spread",
    usage="""
from polyact.evaluation.experiments.trial import Trial
from polyact.systems.society.hte_paradigm import heterogeneity
trial = Trial(outcome, treated, covariates, names=("age", "tenure"))
heterogeneity(trial).to_html("effects.html")
""",
)


@dataclass(frozen=True)
class Block:
    """datasets of n units for one seed; draws and points of the detection test."""

    datasets: int
    n: int
    draws: int
    points: int
    covariates: int = 10


LEVEL = 0.05


def simulated(n: int, covariates: int, difference: float, generator: np.random.Generator) -> Trial:
    """Y = x2 + 0.7 noise + W (1 + difference sign(x1)), half of the units treated."""
    x, treated = generator.normal(size=(n, covariates)), generator.permutation(n) < n // 2
    outcome = x[:, 1] + 0.7 * generator.normal(size=n) + treated * (1 + difference * np.sign(x[:, 0]))
    return Trial(outcome, treated, x)


def _datasets(key: PRNGKeyArray, sizes: Block) -> dict[float, list[Trial]]:
    generator = np.random.default_rng(int(jax.random.randint(key, (), 0, 2**30)))
    count = range(sizes.datasets)
    return {d: [simulated(sizes.n, sizes.covariates, d, generator) for _ in count] for d in (0.0, 0.5, 1.0)}


def _rejections(key: PRNGKeyArray, how: str, sizes: Block, prepared: dict[float, list[Trial]]) -> Mapping[str, Any]:
    """Share of the seed's data sets in which equal effects are rejected, by the true half-difference of effects."""

    def rejected(trial: Trial) -> bool:
        if how == "plain":
            return plain_ks_p(trial) <= LEVEL
        return rejects(trial.adjusted() if how == "adjusted" else trial, LEVEL, draws=sizes.draws, points=sizes.points)

    names = {"rejected_equal": 0.0, "rejected_half": 0.5, "rejected_one": 1.0}
    return {name: float(np.mean([rejected(trial) for trial in prepared[d]])) for name, d in names.items()}


Ranking = Literal["paradigm", "uncorrected", "cells", "outcome"]


def _surfacing(key: PRNGKeyArray, how: Ranking, sizes: Block, prepared: dict[float, list[Trial]]) -> Mapping[str, Any]:
    """At half-difference 0.5. first: share of data sets in which x1 ranks first; false: mean share of the named covariates that are
    wrong (0 when none is named); found: share in which x1 is named."""
    ranked = [_named(trial, how) for trial in prepared[0.5]]
    wrong = [sum(name != "x1" for name in named) / max(len(named), 1) for _, named in ranked]
    return {
        "first": float(np.mean([order[0] == "x1" for order, _ in ranked])),
        "found": float(np.mean(["x1" in named for _, named in ranked])),
        "false": float(np.mean(wrong)),
    }


def _named(trial: Trial, how: Ranking) -> tuple[list[str], list[str]]:
    """Covariates in the order of importance, and those called important."""
    match how:
        case "paradigm":
            found = dimensions(trial)
            return [d.name for d in found], [d.name for d in found if d.q_value <= LEVEL]
        case "uncorrected":
            found = dimensions(trial)
            return [d.name for d in found], [d.name for d in found if d.p_value <= LEVEL]
        case "cells":
            p_values = [_cells_p(trial, name) for name in trial.names]
        case "outcome":
            p_values = [float(stats.pearsonr(column, trial.outcome)[1]) for column in trial.covariates.T]  # pyright: ignore[reportArgumentType]
    order = np.argsort(p_values, kind="stable")
    return [trial.names[k] for k in order], [trial.names[k] for k in order if p_values[k] <= LEVEL]


def _cells_p(trial: Trial, name: str) -> float:
    """What an analyst does by hand: effects above and below the median, and a z-test of their difference."""
    cells = spread(trial, segments(trial, (name,))).segments
    z = (cells[1].mean - cells[0].mean) / np.hypot(cells[0].error, cells[1].error)
    return float(2 * stats.norm.sf(abs(z)))


def _mixtures(key: PRNGKeyArray, how: str, sizes: Block, prepared: dict[float, list[Trial]]) -> Mapping[str, Any]:
    """error: mean absolute error of the effects of the two true segments, x1 below and above 0, at half-difference 0.5."""
    return {"error": float(np.mean([_mixture_error(trial, how) for trial in prepared[0.5]]))}


def _mixture_error(trial: Trial, how: str) -> float:
    if how == "average":
        return float(np.mean(np.abs(trial.effect - np.array([0.5, 1.5]))))
    best = dimensions(trial)[0].name if how == "paradigm" else _named(trial, "outcome")[0][0]
    label = segments(trial, (best,))
    means = np.array([segment.mean for segment in spread(trial.adjusted(), label).segments])
    return float(np.mean(np.abs(means[label] - (1 + 0.5 * np.sign(trial.covariates[:, 0])))))


_SCALES = {"smoke": Scale(2, Block(2, 300, 19, 3)), "laptop": Scale(20, Block(10, 2000, 99, 5))}
_TESTBED = (
    "Y = x2 + .7 noise + W (1 + d sign x1), 2000 units, 10 covariates; one seed is a block of 10 independent data sets for each d"
)
_BUDGET = Budget(
    data="the same 2000 units",
    steps="99 random assignments, 5 common effects",
    network="none: least squares",
    tuning="none: level 5%",
)

DETECT = Experiment(
    measure=_rejections,
    prepare=_datasets,
    arms={
        "shifted": Arm("system", "randomisation test of the shifted distance", "shifted"),
        "adjusted": Arm("system", "the same on outcomes adjusted for covariates", "adjusted"),
        "plain": Arm("ablation", "Kolmogorov-Smirnov without removing the mean difference", "plain"),
    },
    scales=_SCALES,
    testbed=_TESTBED,
    budget=_BUDGET,
    runner="threads",
)

SURFACE = Experiment(
    measure=_surfacing,
    prepare=_datasets,
    arms={
        "paradigm": Arm("system", "systematic variance by covariate, Benjamini-Hochberg", "paradigm"),
        "uncorrected": Arm("ablation", "the same without correcting for many covariates", "uncorrected"),
        "cells": Arm("baseline", "effects above and below each median compared by hand, uncorrected", "cells"),
        "outcome": Arm("baseline", "covariates ranked by correlation with the outcome", "outcome"),
    },
    scales=_SCALES,
    testbed=_TESTBED,
    budget=_BUDGET,
    runner="threads",
)

CHARACTERISE = Experiment(
    measure=_mixtures,
    prepare=_datasets,
    arms={
        "paradigm": Arm("system", "a mixture over the median split of the covariate that was surfaced first", "paradigm"),
        "outcome": Arm("ablation", "a mixture over the split of the covariate that predicts outcomes best", "outcome"),
        "average": Arm("baseline", "the average effect for everybody", "average"),
    },
    scales=_SCALES,
    testbed=_TESTBED,
    budget=_BUDGET,
    runner="threads",
)

CLAIMS = (
    Claim(
        "level",
        "with equal effects the test rejects in at most 8% of data sets",
        DETECT,
        "rejected_equal",
        Within("shifted", high=0.08),
        "lower",
    ),
    Claim("power", "with effects 0 and 2 it rejects in at least 90%", DETECT, "rejected_one", Within("shifted", low=0.9)),
    Claim(
        "the-shift-is-needed",
        "without removing the mean difference equal effects are rejected far more often",
        DETECT,
        "rejected_equal",
        Beats("shifted", {"plain": 0.5}),
        "lower",
    ),
    Claim(
        "adjusting-sharpens",
        "adjusting for covariates finds effects 0.5 and 1.5 more often",
        DETECT,
        "rejected_half",
        Beats("adjusted", {"shifted": 0.0}),
    ),
    Claim(
        "right-dimension",
        "the covariate behind the effects ranks first in at least 95%",
        SURFACE,
        "first",
        Within("paradigm", low=0.95),
    ),
    Claim(
        "few-false",
        "at most a tenth of the named covariates are wrong",
        SURFACE,
        "false",
        Within("paradigm", high=0.1),
        "lower",
    ),
    Claim(
        "correction-pays",
        "fewer are wrong than without the correction, and than by hand",
        SURFACE,
        "false",
        Beats("paradigm", {"uncorrected": 0.05, "cells": 0.05}),
        "lower",
    ),
    Claim(
        "outcomes-mislead",
        "ranking by correlation with the outcome finds it first in at most 5%",
        SURFACE,
        "first",
        Within("outcome", high=0.05),
        "lower",
    ),
    Claim(
        "mixture-means",
        "the segments' effects are within 0.15 on average",
        CHARACTERISE,
        "error",
        Within("paradigm", high=0.15),
        "lower",
    ),
    Claim(
        "mixture-beats-average",
        "that is far closer than one average for all, or segments of what predicts outcomes",
        CHARACTERISE,
        "error",
        Beats("paradigm", {"average": 0.25, "outcome": 0.25}),
        "lower",
    ),
)
