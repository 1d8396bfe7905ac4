"""From scores to report: who is how good, who is better than whom, and what the numbers rest on.

Scores are tables [runs, episodes] per policy. By default column j is the same initial state for all (paired evaluation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from polyact.errors import PolyactError
from polyact.evaluation.off_policy.estimators import OffPolicyEstimate
from polyact.evaluation.report.report import Cell, Distributions, Effect, Forest, Group, Lines, Report, Section, Table
from polyact.evaluation.statistics.compare import Comparison, compare
from polyact.evaluation.statistics.curves import Curve
from polyact.evaluation.statistics.designs import UNITS, Design, Units, score_table
from polyact.evaluation.statistics.estimate import Estimate, estimate
from polyact.evaluation.statistics.functionals import Statistic
from polyact.evaluation.statistics.success import success_rate


def score_report(
    scores: Mapping[str, object],
    *,
    title: str = "Evaluation",
    measure: str = "return",
    successes: Mapping[str, object] | None = None,
    reference: str | None = None,
    statistic: Statistic | str = "mean",
    design: Design = "crossed",
    units: Units | None = None,
    distinct: int | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Report:
    """A report of estimates per policy and paired differences against a reference (the first policy unless named).

    scores: {policy: [runs, episodes] or [episodes]}; columns are paired unless design is 'nested'. successes: the same shapes, true or
    false. distinct: number of distinct initial states, where it is less than the number of columns. Add curves, pictures and other
    worlds with `Report.with_section`. Raises PolyactError when tables do not match.
    """
    units = units or UNITS[design]
    tables = _tables(scores, design, units)
    found = {
        name: _estimate(table, statistic, design=design, units=units, level=level, seed=seed) for name, table in tables.items()
    }
    succeeded = None if successes is None else _success_tables(successes, tables)
    report = Report(title, sections=(_scores(tables, found, measure, succeeded, design, units, distinct, level),))
    if len(tables) < 2:
        return report
    compared = compare(tables, reference, statistic=statistic, design=design, units=units, level=level)
    report = report.with_section(difference_section(compared, measure))
    if succeeded is None:
        return report
    compared = compare(succeeded, reference, design=design, units=units, level=level)
    return report.with_section(difference_section(compared, "success rate", "Differences in success"))


def difference_section(compared: Sequence[Comparison], measure: str = "return", title: str = "Differences") -> Section:
    """Differences with their intervals, Holm-corrected p-values and probabilities of improvement, as a table and a forest plot."""
    rows: list[tuple[Cell, ...]] = [
        (f"{c.first} minus {c.second}", c.difference, _p_text(c.p_holm), c.improvement) for c in compared
    ]
    effects = tuple(Effect(f"{c.first} minus {c.second}", c.difference) for c in compared)
    statistic = compared[0].difference.statistic
    name = measure if statistic == measure else f"{statistic} {measure}"
    columns = ("A minus B", f"difference in {name}", "p (Holm)", "P(A > B)")
    notes = [
        "An interval that excludes 0 shows a difference at its level; p-values are corrected for all rows together, intervals are not.",
        "P(A > B) is the probability that A scores higher than B, ties counting half.",
        *_estimate_notes({f"{c.first} minus {c.second}": c.difference for c in compared}),
    ]
    forest = Forest(f"Difference in {name}", f"A minus B ({measure})", effects)
    return Section(title, tables=(Table("", columns, tuple(rows)),), plots=(forest,), notes=tuple(notes))


def curve_section(title: str, curves: Sequence[Curve], *, x_label: str, y_label: str, text: str = "") -> Section:
    """Curves with bands, and a table of where they start and end."""
    ends = {(curve.x[0], curve.x[-1]) for curve in curves}
    if len(ends) == 1:
        first, last = (f"{y_label} at {end:,.6g}" for end in next(iter(ends)))
        rows = tuple((curve.label, curve.estimates[0], curve.estimates[-1]) for curve in curves)
        table = Table("", (x_label, first, last), rows)
    else:
        rows = tuple((curve.label, curve.estimates[-1], f"{curve.x[-1]:,.6g}") for curve in curves)
        table = Table("", ("", f"last {y_label}", f"at {x_label}"), rows)
    plot = Lines(f"{y_label} over {x_label}", x_label, y_label, tuple(curves))
    return Section(title, text, (table,), (plot,), notes=("Bands hold pointwise.",))


def off_policy_section(found: Mapping[str, OffPolicyEstimate], title: str = "Off-policy evaluation", text: str = "") -> Section:
    """Estimates of a policy's value from a log, with effective sample size and overlap."""
    rows, notes = [], []
    for name, result in found.items():
        d = result.diagnostics
        cells = ("–",) * 3 if d is None else (f"{d.effective_episodes:.1f}", _share(d.largest_share), _share(d.unsupported))
        rows.append((name, result.estimate, *cells))
        notes += [f"{name}: {warning}" for warning in result.warnings]
    columns = ("estimator", "value", "effective episodes", "largest weight", "unsupported")
    forest = Forest("Estimated value", "value", tuple(Effect(n, r.estimate) for n, r in found.items()), None)
    notes.append("Values are discounted returns per episode. Intervals do not hold the error of fitted values.")
    return Section(title, text, (Table("", columns, tuple(rows)),), (forest,), notes=tuple(dict.fromkeys(notes)))


def estimate_table(title: str, column: str, estimates: Mapping[str, Estimate], note: str = "") -> Table:
    """A table with one named estimate per row."""
    return Table(title, ("", column), tuple(estimates.items()), note)


def _scores(
    tables: dict[str, np.ndarray],
    found: dict[str, Estimate],
    measure: str,
    successes: dict[str, np.ndarray] | None,
    design: Design,
    units: Units,
    distinct: int | None,
    level: float,
) -> Section:
    columns: tuple[str, ...] = ("policy", f"{next(iter(found.values())).statistic} {measure}", "median", "worst", "best")
    rows: list[tuple[Cell, ...]] = [
        (name, found[name], float(np.median(table)), float(table.min()), float(table.max())) for name, table in tables.items()
    ]
    listed = [Table("", columns, tuple(rows))]
    if successes is not None:
        rates = tuple((name, _success(table, design, units, level)) for name, table in successes.items())
        listed.append(Table("", ("policy", "success rate"), rates))
    groups = tuple(Group(name, tuple(table.reshape(-1).tolist()), found[name]) for name, table in tables.items())
    plot = Distributions(f"Distribution of {measure}s", measure, groups)
    notes = [*_design_notes(tables, design, units, distinct), *_estimate_notes(found)]
    return Section("Scores", tables=tuple(listed), plots=(plot,), notes=tuple(notes))


def _tables(scores: Mapping[str, object], design: Design, units: Units) -> dict[str, np.ndarray]:
    if not scores:
        raise PolyactError("a report needs the scores of at least one policy")
    tables = {name: _run_table(values, f"scores of '{name}'") for name, values in scores.items()}
    widths = {name: table.shape[1] for name, table in tables.items()}
    if design != "nested" and len(set(widths.values())) > 1:
        listed = ", ".join(f"'{name}': {width}" for name, width in widths.items())
        raise PolyactError(f"policies are compared on common {units[1]}, but their numbers differ ({listed})")
    return tables


def _run_table(scores: object, name: str) -> np.ndarray:
    """Scores [runs, episodes]; a vector of episodes is one run."""
    table = score_table(scores, name)
    return table.T if np.asarray(scores).ndim == 1 else table


def _estimate(table: np.ndarray, statistic: Statistic | str, *, design: Design, units: Units, level: float, seed: int) -> Estimate:
    """One run says nothing about other runs: its columns are resampled then."""
    if len(table) == 1:
        return estimate(table[0], statistic, units=(units[1], units[0]), level=level, seed=seed)
    return estimate(table, statistic, design=design, units=units, level=level, seed=seed)


def _success_tables(successes: Mapping[str, object], tables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if set(successes) != set(tables):
        raise PolyactError(f"successes are given for {', '.join(successes) or 'nobody'}, scores for {', '.join(tables)}")
    out = {name: _run_table(successes[name], f"successes of '{name}'") for name in tables}
    for name, table in out.items():
        if table.shape != tables[name].shape or not np.isin(table, (0, 1)).all():
            shape = tables[name].shape
            raise PolyactError(f"successes of '{name}' have shape {table.shape}, expected true or false in shape {shape}")
    return out


def _success(table: np.ndarray, design: Design, units: Units, level: float) -> Estimate:
    if len(table) == 1:
        return success_rate(int(table.sum()), table.size, level=level, unit=units[1])
    rate = estimate(table, "mean", design=design, units=units, level=level)
    return replace(rate, low=max(rate.low, 0.0), high=min(rate.high, 1.0), statistic="success rate")


def _design_notes(tables: dict[str, np.ndarray], design: Design, units: Units, distinct: int | None) -> list[str]:
    columns = next(iter(tables.values())).shape[1]
    runs = {name: len(table) for name, table in tables.items()}
    out = []
    if design == "crossed":
        states = columns if distinct is None else distinct
        out.append(f"Every policy met the same {columns} {units[1]} with the same disturbances; {states} of them are distinct.")
        if states < columns:
            out.append(f"Intervals treat the {columns} {units[1]} as different ones: with {states} distinct they are too narrow.")
    single = [name for name, n in runs.items() if n == 1]
    if single:
        out.append(f"One run of {', '.join(single)}: intervals hold for that run, not for training it again.")
    if any(n > 1 for n in runs.values()):
        out.append(
            f"Each of the {units[0]} is judged by its last checkpoint; intervals hold for training again and for new {units[1]}."
        )
    return out


def _estimate_notes(found: Mapping[str, Estimate]) -> list[str]:
    return [f"{name}: {e.note}." for name, e in found.items() if e.note]


def _share(share: float) -> str:
    return f"{100 * share:.1f}%" if np.isfinite(share) else "not known"


def _p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
