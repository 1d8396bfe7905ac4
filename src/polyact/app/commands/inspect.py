"""`polyact data inspect`: what is in data files, as tables, JSON or a page with pictures."""

from polyact.app.arguments import Inspect
from polyact.app.show import console, print_json, say
from polyact.data.feeds import Needs
from polyact.data.formats import read
from polyact.data.inspect import Inspection, inspect
from polyact.data.pictures import pictures
from polyact.data.source import Source
from polyact.errors import PolyactError
from polyact.evaluation.report.report import Picture, Report, Section, Table
from polyact.learning.catalogue import LEARNERS


def run(command: Inspect) -> None:
    if not command.paths:
        raise PolyactError("data inspect needs at least one path")
    sources = [source for path in command.paths for source in read(path, command.format)]
    found = inspect(sources, needs())
    if command.json:
        print_json(found.to_json())
    else:
        console().print(found)
    if command.report:
        report(found, sources).to_html(command.report)
        if not command.json:
            say(f"Report: {command.report}")


def needs() -> dict[str, Needs]:
    """What every learner that learns from data asks of it."""
    offline = {name: entry for name, entry in LEARNERS.items() if entry.offline}
    return {name: Needs(entry.needs, entry.continuous, entry.discrete, entry.single_choice) for name, entry in offline.items()}


def report(found: Inspection, sources: list[Source]) -> Report:
    """Tables and pictures of an inspection as a report."""
    rows = found.rows()
    facts = tuple(rows[0])
    table = Table("Sources", facts, tuple(tuple(row[name] for name in facts) for row in rows))
    drawn = tuple(Picture(title, svg) for title, svg in pictures(sources).items())
    return Report("What is in the data", sections=(Section("Sources", tables=(table,)), Section("Pictures", pictures=drawn)))
