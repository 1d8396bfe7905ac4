"""Reports in a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from polyact.evaluation.report.report import Cell, Report, Section, Table, cell_detail, cell_text
from polyact.evaluation.statistics.estimate import Estimate


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
    shared = [_shared_detail(table, number) for number in range(len(table.columns))]
    for number, column in enumerate(table.columns):
        cells = [row[number] for row in table.rows]
        header = Text(column)
        if shared[number]:
            header.append(f"\n{shared[number]}", style="dim")
        widest = max((len(cell_text(cell)) for cell in cells if not isinstance(cell, str)), default=0)
        out.add_column(header, justify="left" if any(isinstance(cell, str) for cell in cells) else "right", min_width=widest)
    for row in table.rows:
        out.add_row(*(_cell(cell, detail) for cell, detail in zip(row, shared, strict=True)))
    return out


def _shared_detail(table: Table, number: int) -> str:
    """Level and resampled axis of a column, where all its estimates have the same: they then stand in its head, not in every cell."""
    details = {cell_detail(row[number]) for row in table.rows if isinstance(row[number], Estimate)}
    return details.pop() if len(details) == 1 else ""


def _cell(cell: Cell, shared: str) -> Text:
    text, detail = Text(cell_text(cell)), cell_detail(cell)
    if detail and not shared:
        text.append(f"\n{detail}", style="dim")
    return text
