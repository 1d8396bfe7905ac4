"""Environments by name, with their scripted experts.

Names are looked up without importing JAX, so that the command line can list, complete and correct them at once.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from polyact.errors import PolyactError, unknown

if TYPE_CHECKING:
    from polyact.envs.base import Env


@dataclass(frozen=True)
class Entry:
    """Where an environment is built ("module:callable"), what it is in one line, and the expert functions beside it."""

    constructor: str
    summary: str
    experts: tuple[str, ...] = ()


ENVIRONMENTS: dict[str, Entry] = {
    "pendulum": Entry("polyact.envs.pendulum:Pendulum", "swing a rod up and hold it (Pendulum-v1)", ("swing_up",)),
    "cartpole-swingup": Entry(
        "polyact.envs.cartpole:CartPoleSwingUp", "swing a pole up from a cart on a short track and balance it", ("swing_up",)
    ),
    "mountain-car": Entry(
        "polyact.envs.mountain_car:MountainCarContinuous", "rock a weak car out of a valley (MountainCarContinuous-v0)", ("rock",)
    ),
    "double-integrator": Entry(
        "polyact.envs.double_integrator:DoubleIntegrator", "bring a mass to rest at the origin, with its exact LQR", ("optimal",)
    ),
    "point-navigation": Entry(
        "polyact.envs.point_navigation:PointNavigation",
        "steer a point past obstacles, left or right, to one of several goals",
        ("pass_left", "pass_right", "sloppy"),
    ),
    "left-or-right": Entry(
        "polyact.envs.point_navigation:left_or_right",
        "point navigation with one goal straight behind the obstacle",
        ("pass_left", "pass_right", "sloppy"),
    ),
    "point-maze": Entry("polyact.envs.point_maze:PointMaze", "roll a ball through a maze written as text", ("follow_map",)),
    "push": Entry("polyact.envs.push:Push", "push a T-shaped block to a target pose", ("push_home",)),
    "reacher": Entry("polyact.envs.reacher:Reacher", "reach a target with an arm of n links", ("reach",)),
    "hopper2d": Entry("polyact.envs.hopper:Hopper2D", "run forward on one springy leg without falling", ("run", "jog")),
    "skirmish": Entry(
        "polyact.envs.skirmish.skirmish:skirmish",
        "two against two in an arena with walls, cover and aimed shots",
        ("marksman", "hunter", "rusher"),
    ),
    "chain": Entry("polyact.envs.tabular_builders:chain", "walk to the far end of five states or turn back for less (tabular)"),
    "four-rooms": Entry("polyact.envs.tabular_builders:four_rooms", "four rooms joined by hallways, with slips (tabular)"),
    "frozen-lake": Entry(
        "polyact.envs.tabular_builders:frozen_lake", "cross slippery ice without falling in (FrozenLake-v1, tabular)"
    ),
    "windy-grid": Entry("polyact.envs.tabular_builders:windy_grid", "cross a field under a wind (tabular)"),
    "combination-lock": Entry(
        "polyact.envs.tabular_builders:combination_lock", "enter a code; one wrong action starts over (tabular)"
    ),
    "inventory": Entry("polyact.envs.tabular_builders:inventory", "order stock against random demand (tabular)"),
    "machine-replacement": Entry(
        "polyact.envs.tabular_builders:machine_replacement", "run an ageing machine or replace it (tabular)"
    ),
    "garnet": Entry("polyact.envs.tabular_builders:garnet", "a random world with few successors per action (tabular)"),
}

PREFIXES: dict[str, str] = {"gymnasium": "polyact.envs.gymnasium_host:from_gymnasium"}
"""Families of names outside the table: "prefix" -> "module:callable", called with the rest of the name and the fields."""


def names() -> tuple[str, ...]:
    """The names that `make` knows, in the order of the catalogue."""
    return tuple(ENVIRONMENTS)


def summary(name: str) -> str:
    """One line on what an environment is about. Raises PolyactError for unknown names."""
    return _entry(name).summary


def make(name: str, **fields: Any) -> "Env":
    """The environment called `name`, with some of its fields set: `make("pendulum", mass=2.0)`.

    "prefix:rest" goes to the builder of that prefix. Raises PolyactError, with the nearest match, for unknown names and fields.
    """
    prefix, colon, rest = name.partition(":")
    if colon:
        if prefix not in PREFIXES:
            raise unknown("environment prefix", prefix, PREFIXES)
        return _resolve(PREFIXES[prefix])(rest, **fields)
    constructor = _resolve(_entry(name).constructor)
    known = inspect.signature(constructor).parameters
    for field in fields:
        if field not in known:
            raise unknown(f"field of environment '{name}'", field, known)
    missing = [key for key, parameter in known.items() if parameter.default is parameter.empty and key not in fields]
    if missing:
        raise PolyactError(f"environment '{name}' needs a value for: {', '.join(missing)}")
    return constructor(**fields)


def experts(name: str) -> tuple[str, ...]:
    """Names of an environment's scripted experts, the best or most typical first."""
    return _entry(name).experts


def expert(name: str, which: str) -> Callable[..., Any]:
    """A scripted expert: a pure function (env, observation, key) -> action. Raises PolyactError for unknown names."""
    entry = _entry(name)
    if which not in entry.experts:
        raise unknown(f"expert of environment '{name}'", which, entry.experts)
    return getattr(import_module(entry.constructor.partition(":")[0]), which)


def _entry(name: str) -> Entry:
    if name not in ENVIRONMENTS:
        raise unknown("environment", name, [*ENVIRONMENTS, *(f"{prefix}:..." for prefix in PREFIXES)])
    return ENVIRONMENTS[name]


def _resolve(path: str) -> Callable[..., Any]:
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)
