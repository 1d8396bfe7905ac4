"""Five websites whose names have nothing in common, and visitors of mixed quality who use them."""

import random
from dataclasses import dataclass

from polyact.envs.gridweb import HOME, Page, Site, Task, calls, reset, step
from polyact.envs.rulebook import Event


def _site(name: str, lists: str, fields: str, steps: str, commits: str, delete: str) -> Site:
    """Lists of three numbered items each; fields as `name:value,value,...`."""
    parts = [field.split(":") for field in fields.split()]
    first, second = commits.split()
    return Site(
        name,
        tuple((one, tuple(f"{one}-{number}" for number in (1, 2, 3))) for one in lists.split()),
        tuple((field, tuple(values.split(","))) for field, values in parts),
        tuple(steps.split()),
        (first, second),
        delete,
    )


SITES = (
    _site(
        "forum",
        "posts comments members",
        "flair:plain,news,humour topic:none,science,travel",
        "preview mention log-reason",
        "submit repost",
        "remove",
    ),
    _site(
        "map",
        "places routes areas",
        "label:blank,cafe,museum mode:unset,walk,cycle",
        "measure cite-source notify-owner",
        "apply propose",
        "erase",
    ),
    _site(
        "code",
        "issues merges branches",
        "state:new,blocked,closed owner:nobody,ann,bob",
        "run-checks request-review tag-release",
        "commit push",
        "drop",
    ),
    _site(
        "shop",
        "products carts parcels",
        "price:list,sale,member colour:any,red,blue",
        "compare read-terms ask-support",
        "order reserve",
        "cancel",
    ),
    _site(
        "admin",
        "customers invoices reports",
        "status:pending,paid,refunded group:general,trade,staff",
        "verify-identity backup email-manager",
        "save publish",
        "delete",
    ),
)


@dataclass(frozen=True)
class Habits:
    """How somebody works. search: finds items by searching, not by browsing; steps: chance of each step button; second: uses the second
    commit button; slips: chance per call of something random; short: stops without committing."""

    search: bool
    steps: float
    second: bool
    slips: float
    short: bool


def habits(chance: random.Random) -> Habits:
    """A visitor of random quality."""
    return Habits(
        chance.random() < 0.5,
        chance.choice((0.1, 0.5, 0.9)),
        chance.random() < 0.5,
        chance.choice((0.0, 0.05, 0.2)),
        chance.random() < 0.05,
    )


def random_task(site: Site, chance: random.Random) -> Task:
    """One or both fields of an item get a value that is not the first."""
    fields = chance.sample(site.fields, chance.choice((1, 1, 2)))
    return Task(chance.choice(site.items), tuple((name, chance.choice(values[1:])) for name, values in fields))


def visit(site: Site, task: Task, how: Habits, chance: random.Random, longest: int) -> Page:
    """The last page of a scripted visit of at most `longest` calls, the last of which is a stop."""
    state, plan = reset(site), _plan(site, task, how, chance)
    while not state.done:
        offered = calls(site, state)
        if len(state.log) == longest - 1:
            call = offered[-1]
        elif chance.random() < how.slips:
            call = chance.choice(offered[:-1])
        else:
            call = _next(site, state, task, plan, how)
            plan = [one for one in plan if one != call]
        state = step(site, state, call)
    return state


def _plan(site: Site, task: Task, how: Habits, chance: random.Random) -> list[Event]:
    """What is still to be done on the item's page, in order; the commit is last."""
    fills = [Event("fill", name, value) for name, value in task.wanted]
    steps = [Event("click", button, "") for button in site.steps if chance.random() < how.steps]
    chance.shuffle(steps)
    commit = [] if how.short else [Event("click", site.commits[how.second], "")]
    return (fills + steps if chance.random() < 0.5 else steps + fills) + commit


def _next(site: Site, state: Page, task: Task, plan: list[Event], how: Habits) -> Event:
    """The next call of the plan, or the way to where it can be done; a stop when nothing is left or the item is gone."""
    if not plan or state.rows[site.items.index(task.item)] is None:
        return Event("stop", "", "")
    if state.page == task.item:
        lost = [Event("fill", *pair) for pair in task.wanted if pair not in state.filled]
        ready = plan[0].verb == "click" and plan[0].object in site.commits
        return lost[0] if ready and lost else plan[0]
    if state.page == site.list_of(task.item):
        return Event("open", task.item, "")
    if state.page == HOME:
        return Event("search", task.item, "") if how.search else Event("goto", site.list_of(task.item), "")
    return Event("goto", HOME, "")
