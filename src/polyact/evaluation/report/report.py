"""A report is a value: sections of words, tables of estimates, plots and pictures. It prints, it is JSON, it is a web page.

Nothing here computes; `scores` fills reports from scores, `html`, `json` and `rich` render them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

from polyact.data.formats.common import PathLike, replacing
from polyact.errors import PolyactError
from polyact.evaluation.statistics.curves import Curve
from polyact.evaluation.statistics.estimate import Estimate, show
from polyact.progress import as_text

Cell = str | bool | int | float | Estimate | None


@dataclass(frozen=True)
class Table:
    """Rows of cells under named columns. An Estimate in a cell shows its interval, its level and what was resampled."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def __post_init__(self):
        rows = tuple(tuple(None if isinstance(c, float) and math.isnan(c) else c for c in row) for row in self.rows)
        object.__setattr__(self, "rows", rows)
        for number, row in enumerate(rows):
            if len(row) != len(self.columns):
                raise PolyactError(f"table '{self.title}': row {number} has {len(row)} cells, expected {len(self.columns)}")


@dataclass(frozen=True)
class Group:
    """Scores that belong together, with the estimate that summarises them (drawn as an interval)."""

    label: str
    values: tuple[float, ...]
    estimate: Estimate | None = None


@dataclass(frozen=True)
class Distributions:
    """How scores are spread: a density, a dot per score and the interval, one row per group."""

    title: str
    x_label: str
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Lines:
    """Curves with bands: learning, latency, performance profiles."""

    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Effect:
    """A named difference ('A minus B') or probability."""

    label: str
    estimate: Estimate


@dataclass(frozen=True)
class Forest:
    """Effects with their intervals, against the value that means no effect where there is one."""

    title: str
    x_label: str
    effects: tuple[Effect, ...]
    neutral: float | None = 0.0


Plot = Distributions | Lines | Forest


@dataclass(frozen=True)
class Picture:
    """A drawing that exists already: SVG text (it may be animated) or the bytes of a PNG.

    It is shown as an image, so whatever an SVG holds can neither run nor fetch anything.
    """

    title: str
    image: str | bytes
    caption: str = ""

    def __post_init__(self):
        known = self.image[:8] == b"\x89PNG\r\n\x1a\n" if isinstance(self.image, bytes) else "<svg" in self.image[:2000]
        if not known:
            raise PolyactError(f"picture '{self.title}' is neither SVG text nor the bytes of a PNG")


@dataclass(frozen=True)
class Section:
    """A heading with words (paragraphs apart by an empty line), tables, plots, pictures and notes."""

    title: str
    text: str = ""
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What was found. facts: where it comes from (environment, episodes, seed, versions), as (name, value)."""

    title: str
    text: str = ""
    sections: tuple[Section, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()

    def with_section(self, *sections: Section) -> Report:
        """The report with more sections at the end."""
        return replace(self, sections=self.sections + sections)

    def with_facts(self, **facts: object) -> Report:
        """The report with more facts."""
        return replace(self, facts=self.facts + tuple((name.replace("_", " "), str(value)) for name, value in facts.items()))

    def section(self, title: str) -> Section:
        """The section with that title."""
        for section in self.sections:
            if section.title == title:
                return section
        raise PolyactError(
            f"report '{self.title}' has no section '{title}', only {', '.join(s.title for s in self.sections) or 'none'}"
        )

    def to_json(self) -> str:
        """Strict JSON (NaN is null); `from_json` gives the same report back."""
        from polyact.evaluation.report.json import dump

        return dump(self)

    @staticmethod
    def from_json(text: str) -> Report:
        """Inverse of `to_json`. Raises PolyactError that names the place of what is missing or wrong."""
        from polyact.evaluation.report.json import load

        return load(text)

    def to_html(self, path: PathLike) -> Path:
        """Write one self-contained page (no network, no scripts), replacing an older one whole. Returns its path."""
        from polyact.evaluation.report.html import page

        with replacing(path) as aside:
            aside.write_text(page(self), "utf-8")
        return Path(path)

    def __str__(self) -> str:
        return as_text(self)

    def __rich__(self):
        from polyact.evaluation.report.rich import render

        return render(self)


def cell_text(cell: Cell) -> str:
    """A cell as plain text; for an Estimate, its value and interval."""
    match cell:
        case None:
            return "–"
        case Estimate():
            return f"{cell.text} {cell.interval_text}"
        case bool():
            return "yes" if cell else "no"
        case float():
            if cell == round(cell) and abs(cell) < 1e15:
                return f"{cell:,.0f}".replace("-", "−")
            return show(cell, 3 if abs(cell) < 10 else 1) if 1e-3 < abs(cell) < 1e6 else f"{cell:.3g}".replace("-", "−")
    return str(cell)


def cell_detail(cell: Cell) -> str:
    """What stands under a cell: level and resampled axis of an Estimate."""
    return f"{100 * cell.level:g}%, {cell.sample}" if isinstance(cell, Estimate) else ""
