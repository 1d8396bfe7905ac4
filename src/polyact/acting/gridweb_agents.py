"""Agents on `envs.gridweb` sites: a policy that scores the calls a page offers, cloned from scripted visits, and guarded runs.

A guard sees the log and a call before it is made. Where it objects the agent's next choice is tried; where it objects to all, the call
to which it objects least is made.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from polyact.envs.gridweb import HOME, VERBS, Page, Site, Task, calls, reset, solved, step
from polyact.envs.gridweb_sites import Habits, habits, random_task, visit
from polyact.envs.rulebook import Event, RuleBook, violates
from polyact.nets.mlp import MLP, Network

CHOICES = 14  # the most calls that a page offers
SEEN = 28


class Case(NamedTuple):
    """A task under a policy."""

    site: Site
    task: Task
    book: RuleBook


class Outcome(NamedTuple):
    """Per case: whether the task was solved, and whether the policy was violated."""

    solved: Bool[np.ndarray, " N"]
    violated: Bool[np.ndarray, " N"]


Guard = Callable[[Sequence[RuleBook], Sequence[Sequence[Event]]], Float[np.ndarray, " M"]]
"""Objections between 0 and 1 to logs whose last call has not been made yet."""


def features(site: Site, task: Task, state: Page, call: Event) -> Float[np.ndarray, " I"]:
    """What a call is to a task, in the same numbers on every site: nothing here names a site's words."""
    pair, buttons = (call.object, call.value), (*site.steps, *site.commits, site.delete)
    row = state.rows[site.items.index(task.item)]
    done = row is not None and all(row[site.field(name)] == value for name, value in task.wanted)
    ready = all(one in state.filled for one in task.wanted)
    home = [state.page == HOME, state.page == task.item, state.page in site.items]
    kinds = [call.verb == verb for verb in VERBS] + [call.verb == "click" and call.object == button for button in buttons]
    fills = [call.object in dict(task.wanted), pair in task.wanted, pair in state.filled]
    targets = [call.object == task.item, call.object == site.list_of(task.item), call.object == HOME]
    known = [done, ready, call in state.log, state.page == site.list_of(task.item), len(state.log) > 8]
    clicked = sum(Event("click", button, "") in state.log for button in site.steps) / 3
    return np.array([*home, *kinds, *fills, *targets, *known, clicked, 1.0], np.float32)


class Cloner(NamedTuple):
    """Decisions of scripted visitors: features of every offered call [D, C, I], which are offered [D, C], which was made [D]."""

    looks: Float[np.ndarray, "D C I"]
    offered: Bool[np.ndarray, "D C"]
    made: Int[np.ndarray, " D"]


def demonstrations(sites: Sequence[Site], visits: int, decisions: int, longest: int, chance: random.Random) -> Cloner:
    """The first `decisions` decisions of that many visits by visitors of mixed quality."""
    rows: list[tuple[Any, Any, int]] = []
    for _ in range(visits):
        site = chance.choice(sites)
        task, state = random_task(site, chance), reset(site)
        for call in visit(site, task, habits(chance), chance, longest).log:
            looks, offered = _looks(site, task, state)
            rows.append((looks, offered, calls(site, state).index(call)))
            state = step(site, state, call)
    looks, offered, made = zip(*rows[:decisions], strict=True)
    return Cloner(np.stack(looks), np.stack(offered), np.array(made, np.int32))


def scores(network: MLP, looks: Float[Array, "C I"], offered: Bool[Array, " C"]) -> Float[Array, " C"]:
    """Logits of the calls that are offered."""
    return jnp.where(offered, jax.vmap(network)(looks)[:, 0], -1e9)


def cloning_loss(network: MLP, batch: Any) -> Float[Array, ""]:
    """Cross-entropy (nats) of the calls that were made."""
    looks, offered, made = batch
    log_p = jax.nn.log_softmax(jax.vmap(lambda x, o: scores(network, x, o))(looks, offered))
    return -jnp.take_along_axis(log_p, made[:, None], 1).mean()


def new_agent(key: PRNGKeyArray, width: int = 32) -> MLP:
    """Fresh weights."""
    return Network(width=width).build(SEEN, 1, key)


def run_cases(
    network: MLP, cases: Sequence[Case], key: PRNGKeyArray, longest: int, guard: Guard | None = None, threshold: float = 0.5
) -> Outcome:
    """All cases side by side: the agent's calls in the order of its sampled preference (Gumbel), past the guard. After `longest` - 1
    calls only the stop is left, and it is not guarded."""
    pages = [reset(case.site) for case in cases]
    noise = np.asarray(jax.random.gumbel(key, (longest, len(cases), CHOICES)))
    for turn in range(longest):
        running = [i for i, page in enumerate(pages) if not page.done]
        if not running:
            break
        looks, offered = zip(*(_looks(case.site, case.task, page) for case, page in zip(cases, pages, strict=True)), strict=True)
        preferred = np.argsort(-(np.asarray(_scores_of_many(network, np.stack(looks), np.stack(offered))) + noise[turn]), 1)
        last = turn == longest - 1
        options = {i: [-1] if last else preferred[i][: len(calls(cases[i].site, pages[i]))].tolist() for i in running}
        for i, choice in (_first(options) if last or guard is None else _guarded(cases, pages, options, guard, threshold)).items():
            pages[i] = step(cases[i].site, pages[i], calls(cases[i].site, pages[i])[choice])
    finished = [solved(case.site, page, case.task, reset(case.site)) for case, page in zip(cases, pages, strict=True)]
    broken = [violates(case.book, page.log) for case, page in zip(cases, pages, strict=True)]
    return Outcome(np.array(finished), np.array(broken))


def possible(case: Case, longest: int, chance: random.Random, tries: int = 12) -> bool:
    """Whether some careful visitor solves the task within the policy."""
    for _ in range(tries):
        how = Habits(chance.random() < 0.5, chance.choice((0.0, 0.5, 1.0)), chance.random() < 0.5, 0.0, False)
        page = visit(case.site, case.task, how, chance, longest)
        if solved(case.site, page, case.task, reset(case.site)) and not violates(case.book, page.log):
            return True
    return False


def _first(options: dict[int, list[int]]) -> dict[int, int]:
    return {i: choices[0] for i, choices in options.items()}


def _guarded(
    cases: Sequence[Case], pages: Sequence[Page], options: dict[int, list[int]], guard: Guard, threshold: float
) -> dict[int, int]:
    """The first option that the guard lets pass, else the one it minds least."""
    asked = [(i, choice) for i, choices in options.items() for choice in choices]
    logs = [(*pages[i].log, calls(cases[i].site, pages[i])[choice]) for i, choice in asked]
    minded = dict(zip(asked, guard([cases[i].book for i, _ in asked], logs), strict=True))
    passed = {i: [choice for choice in choices if minded[i, choice] <= threshold] for i, choices in options.items()}
    return {i: passed[i][0] if passed[i] else min(options[i], key=lambda choice, i=i: minded[i, choice]) for i in options}


def _looks(site: Site, task: Task, state: Page) -> tuple[Float[np.ndarray, "C I"], Bool[np.ndarray, " C"]]:
    looks, offered = np.zeros((CHOICES, SEEN), np.float32), np.zeros(CHOICES, bool)
    for i, call in enumerate(calls(site, state)):
        looks[i], offered[i] = features(site, task, state, call), True
    return looks, offered


@eqx.filter_jit
def _scores_of_many(network: MLP, looks: Float[Any, "N C I"], offered: Bool[Any, "N C"]) -> Float[Array, "N C"]:
    return jax.vmap(lambda x, o: scores(network, x, o))(looks, offered)
