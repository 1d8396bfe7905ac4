"""Reports in a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from polyact.evaluation.report import Cell, Report, Section, Table, cell_detail, cell_text
from polyact.evaluation.statistics import Estimate


def render(report: Report) -> RenderableType:
    """The report as something rich prints: words and tables; plots and pictures are named, they are in the web page."""
    head: list[RenderableType] = [Text(report.title, style="bold")]
    if report.text:
        head.append(Text(report.text))
    if report.facts:
        head.append(Text("  ".join(f"{name}: {value}" for name, value in report.facts), style="dim"))
    return Group(*head, *(part for section in report.sections for part in _section(section)))


def _section(section: Section) -> list[RenderableType]:
    parts: list[RenderableType] = [Text(f"\n{section.title}", style="bold underline")]
    if section.text:
        parts.append(Text(section.text))
    parts += [Padding(_table(table), (0, 0, 0, 1)) for table in section.tables]
    parts += [Text(f"• {note}", style="dim") for note in section.notes]
    drawn = [plot.title for plot in section.plots] + [picture.title for picture in section.pictures]
    if drawn:
        parts.append(Text(f"Drawn in the HTML report: {', '.join(drawn)}", style="dim"))
    return parts


def _table(table: Table) -> RichTable:
    out = RichTable(title=table.title or None, caption=table.note or None, title_justify="left", caption_justify="left")
    for number, column in enumerate(table.columns):
        numeric = all(not isinstance(row[number], str) for row in table.rows)
        out.add_column(column, justify="right" if numeric else "left")
    for row in table.rows:
        out.add_row(*map(_cell, row))
    return out


def _cell(cell: Cell) -> Text:
    text = Text(cell_text(cell))
    if isinstance(cell, Estimate):
        text.append(f"\n{cell_detail(cell)}", style="dim")
    return text
