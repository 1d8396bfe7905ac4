"""A report as one web page that needs nothing else: styles, plots and pictures are inside; it forbids scripts and network."""

from __future__ import annotations

import base64
from html import escape
from importlib import resources

from polyact.evaluation.report import plots
from polyact.evaluation.report.report import Cell, Picture, Plot, Report, Section, Table, cell_detail, cell_text
from polyact.evaluation.statistics.estimate import Estimate

WIDE, NARROW = 720, 330
FOOTER = "Made with polyact. Intervals name the axis that was resampled; differences read “A minus B”."
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def page(report: Report) -> str:
    """The page as text."""
    style = resources.files("polyact.evaluation.report").joinpath("report.css").read_text("utf-8")
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in report.facts)
    links = "".join(f'<a href="#s{i}">{escape(section.title)}</a>' for i, section in enumerate(report.sections))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(report.title)}</title>\n<style>{style}</style></head>\n<body>'
        f"<header><h1>{escape(report.title)}</h1>{_paragraphs(report.text)}"
        f"{f'<dl class=facts>{facts}</dl>' if facts else ''}{f'<nav>{links}</nav>' if len(report.sections) > 2 else ''}</header>\n<main>"
        + "\n".join(_section(section, i) for i, section in enumerate(report.sections))
        + f"</main>\n<footer>{FOOTER}</footer></body></html>\n"
    )


def _section(section: Section, number: int) -> str:
    notes = "".join(f"<li>{escape(note)}</li>" for note in section.notes)
    pictures = "".join(map(_picture, section.pictures))
    return (
        f'<section id="s{number}"><h2>{escape(section.title)}</h2>{_paragraphs(section.text)}'
        + "".join(map(_table, section.tables))
        + "".join(map(_plot, section.plots))
        + (f'<div class="pictures">{pictures}</div>' if pictures else "")
        + (f'<ul class="notes">{notes}</ul>' if notes else "")
        + "</section>"
    )


def _table(table: Table) -> str:
    numeric = [all(not isinstance(row[i], str) for row in table.rows) for i in range(len(table.columns))]
    head = "".join(f"<th{_align(n)}>{escape(c)}</th>" for c, n in zip(table.columns, numeric, strict=True))
    rows = "".join(f"<tr>{''.join(_cell(c, n) for c, n in zip(row, numeric, strict=True))}</tr>" for row in table.rows)
    title = f"<h3>{escape(table.title)}</h3>" if table.title else ""
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return f'{title}<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{note}'


def _cell(cell: Cell, numeric: bool) -> str:
    if not isinstance(cell, Estimate):
        return f"<td{_align(numeric)}>{escape(cell_text(cell))}</td>"
    hint = "; ".join(filter(None, [cell.statistic, cell.method, cell.note]))
    flag = f'<abbr title="{escape(cell.note)}">!</abbr>' if cell.note else ""
    value = f'<b>{escape(cell.text)}</b> <span class="interval">{escape(cell.interval_text)}</span>{flag}'
    return f'<td class="num" title="{escape(hint)}">{value}<small>{escape(cell_detail(cell))}</small></td>'


def _align(numeric: bool) -> str:
    return ' class="num"' if numeric else ""


def _plot(plot: Plot) -> str:
    names = "".join(f"<span>{_key(i)}{escape(name)}</span>" for i, name in enumerate(plots.legend(plot)))
    legend = f'<div class="legend">{names}</div>' if names else ""
    wide, narrow = (f'<div class="{name}">{plots.draw(plot, width)}</div>' for name, width in (("wide", WIDE), ("narrow", NARROW)))
    return f"<figure><figcaption>{escape(plot.title)}</figcaption>{legend}{wide}{narrow}</figure>"


def _key(series: int) -> str:
    line = f'<line class="c{series % plots.COLOURS} line d{series % 4}" x1="0" x2="22" y1="6" y2="6"/>'
    return f'<svg viewBox="0 0 22 12" width="22" height="12">{line}{plots.marker(series, 11, 6)}</svg>'


def _picture(picture: Picture) -> str:
    png = isinstance(picture.image, bytes)
    data = picture.image if isinstance(picture.image, bytes) else picture.image.encode()
    source = f"data:image/{'png' if png else 'svg+xml'};base64,{base64.b64encode(data).decode()}"
    caption = f"<p>{escape(picture.caption)}</p>" if picture.caption else ""
    return (
        f'<figure class="picture"><figcaption>{escape(picture.title)}</figcaption>'
        f'<img alt="{escape(picture.title)}" src="{source}">{caption}</figure>'
    )


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{escape(part.strip())}</p>" for part in text.split("\n\n") if part.strip())
