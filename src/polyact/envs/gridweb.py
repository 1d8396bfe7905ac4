"""A website as a value: pages of text, typed calls, a small database behind them, and a goal that is an exact difference of databases.

A site has lists of records. On an item's page fields are filled and buttons clicked: two of them commit what was filled, one deletes,
the others (steps: review, notify, ...) leave only a trace in the log. Everything is pure Python and deterministic.
"""

from dataclasses import dataclass
from typing import NamedTuple

from polyact.envs.rulebook import Event
from polyact.errors import PolyactError

HOME = "home"
VERBS = ("goto", "search", "open", "fill", "click", "stop")
Row = tuple[str, ...]


@dataclass(frozen=True)
class Site:
    """lists: (name, names of its items); fields: (name, values that it can have); steps, commits, delete: names of buttons."""

    name: str
    lists: tuple[tuple[str, tuple[str, ...]], ...]
    fields: tuple[tuple[str, tuple[str, ...]], ...]
    steps: tuple[str, ...]
    commits: tuple[str, str]
    delete: str

    @property
    def items(self) -> tuple[str, ...]:
        return tuple(item for _, items in self.lists for item in items)

    def list_of(self, item: str) -> str:
        """The list that an item is in."""
        for name, items in self.lists:
            if item in items:
                return name
        raise PolyactError(f"{self.name} has no item '{item}'")

    def field(self, name: str) -> int:
        """The number of a field's column."""
        return [field for field, _ in self.fields].index(name)

    @property
    def words(self) -> frozenset[str]:
        """All names of this site."""
        values = {value for _, values in self.fields for value in values}
        names = {name for name, _ in self.lists} | {name for name, _ in self.fields}
        return frozenset({*values, *names, *self.items, *self.steps, *self.commits, self.delete})


class Page(NamedTuple):
    """Where a visitor is and what happened. page: home, a list or an item; filled: not yet committed; rows: per item its values, None
    when deleted; log: all calls; done: the visitor has stopped."""

    page: str
    filled: tuple[tuple[str, str], ...]
    rows: tuple[Row | None, ...]
    log: tuple[Event, ...] = ()
    done: bool = False


class Task(NamedTuple):
    """Give fields of an item these values, and change nothing else."""

    item: str
    wanted: tuple[tuple[str, str], ...]


def reset(site: Site, rows: tuple[Row | None, ...] | None = None) -> Page:
    """The home page; by default every field has its first value."""
    first = tuple(values[0] for _, values in site.fields)
    return Page(HOME, (), (first,) * len(site.items) if rows is None else rows)


def calls(site: Site, state: Page) -> tuple[Event, ...]:
    """What can be done on this page."""
    if state.done:
        return ()
    stop = Event("stop", "", "")
    there = [item for item, row in zip(site.items, state.rows, strict=True) if row is not None]
    if state.page == HOME:
        return (*(Event("goto", name, "") for name, _ in site.lists), *(Event("search", item, "") for item in there), stop)
    home = Event("goto", HOME, "")
    for name, items in site.lists:
        if name == state.page:
            return (*(Event("open", item, "") for item in items if item in there), home, stop)
    fills = (Event("fill", field, value) for field, values in site.fields for value in values)
    clicks = (Event("click", button, "") for button in (*site.steps, *site.commits, site.delete))
    return (*fills, *clicks, home, stop)


def step(site: Site, state: Page, call: Event) -> Page:
    """The page after a call. Raises PolyactError for one that the page does not offer."""
    if call not in calls(site, state):
        raise PolyactError(f"{site.name}: '{call}' can't be done on the page '{state.page}'{' any more' if state.done else ''}")
    state = state._replace(log=(*state.log, call))
    match call.verb:
        case "goto" | "search" | "open":
            return state._replace(page=call.object, filled=())
        case "fill":
            kept = tuple(pair for pair in state.filled if pair[0] != call.object)
            return state._replace(filled=(*kept, (call.object, call.value)))
        case "click" if call.object in site.commits:
            return _written(site, state, _updated(site, _row(site, state), state.filled))
        case "click" if call.object == site.delete:
            return _written(site, state, None)
        case "stop":
            return state._replace(done=True)
    return state


def solved(site: Site, state: Page, task: Task, start: Page) -> bool:
    """Whether the visitor has stopped and the databases differ by exactly what was asked."""
    place = site.items.index(task.item)
    goal = list(start.rows)
    goal[place] = _updated(site, goal[place] or (), task.wanted)
    return state.done and state.rows == tuple(goal)


def difference(site: Site, before: Page, after: Page) -> dict[str, tuple[Row | None, Row | None]]:
    """The rows that changed: item -> (before, after)."""
    pairs = zip(site.items, before.rows, after.rows, strict=True)
    return {item: (old, new) for item, old, new in pairs if old != new}


def render(site: Site, state: Page) -> str:
    """The page as a grid of text."""
    title = f"[{site.name}] {state.page}"
    if state.done or state.page == HOME:
        rows = [f"  {name:<14} {len(items)} items" for name, items in site.lists]
        return "\n".join([title, *rows, "  search: any item"])
    if state.page in site.items:
        row, filled = _row(site, state), dict(state.filled)
        rows = [f"  {name:<14} {value:<12} {filled.get(name, '')}" for (name, _), value in zip(site.fields, row, strict=True)]
        return "\n".join([title, *rows, "  " + " ".join(f"({button})" for button in (*site.steps, *site.commits, site.delete))])
    names = [item for item, row in zip(site.items, state.rows, strict=True) if row is not None and site.list_of(item) == state.page]
    cells = [state.rows[site.items.index(item)] or () for item in names]
    return "\n".join([title, *(f"  {item:<14} {' '.join(row)}" for item, row in zip(names, cells, strict=True))])


def _row(site: Site, state: Page) -> Row:
    return state.rows[site.items.index(state.page)] or ()


def _updated(site: Site, row: Row, wanted: tuple[tuple[str, str], ...]) -> Row:
    new = list(row)
    for name, value in wanted:
        new[site.field(name)] = value
    return tuple(new)


def _written(site: Site, state: Page, row: Row | None) -> Page:
    """Back on the list, with another row in the database."""
    place = site.items.index(state.page)
    return state._replace(page=site.list_of(state.page), filled=(), rows=(*state.rows[:place], row, *state.rows[place + 1 :]))
