"""What a learner can be fed: the columns it reads, and the kinds of observation and action it can compute with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from polyact import spaces
from polyact.data.source import Source
from polyact.errors import PolyactError
from polyact.spaces import Space


@dataclass(frozen=True)
class Needs:
    """What one learner asks of a source: columns ('observation', 'action', 'reward', 'info/NAME', ...), and the kinds of action it
    takes: continuous ones, discrete ones (with `single_choice` not several choices at once).
    """

    columns: tuple[str, ...]
    continuous: bool = True
    discrete: bool = True
    single_choice: bool = False


def lacks(source: Source, needs: Mapping[str, Needs]) -> dict[str, tuple[str, ...]]:
    """For each learner what it needs and the source does not have; nothing where the source can feed it."""
    has = {name for name, _, _ in source.episodes.columns()}
    return {learner: _lacks(source, wanted, has) for learner, wanted in needs.items()}


def _lacks(source: Source, needs: Needs, has: set[str]) -> tuple[str, ...]:
    read = has.intersection(needs.columns)
    missing = [column for column in needs.columns if column not in has]
    if "observation" in read and not encodable(source.observation_space):
        missing.append("observations that can be encoded")
    if "action" in read:
        missing += _action_lacks(source.action_space, needs)
    return tuple(missing)


def _action_lacks(space: Space | None, needs: Needs) -> list[str]:
    taken = {"continuous actions": needs.continuous, "discrete actions": needs.discrete}
    kind = action_kind(space)
    if not taken.get(kind, False):
        return [" or ".join(name for name, yes in taken.items() if yes)]
    if not encodable(space):
        return ["actions that can be encoded"]
    several = isinstance(space, spaces.MultiDiscrete | spaces.MultiBinary)
    return ["a single discrete action"] if several and needs.single_choice else []


def action_kind(space: Space | None) -> str:
    """'continuous actions' (one array of floats), 'discrete actions', or nothing where they are neither."""
    if isinstance(space, spaces.Box) and space.dtype.kind == "f":
        return "continuous actions"
    return "discrete actions" if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary) else ""


def encodable(space: Space | None) -> bool:
    """Whether networks can read values of the space: it has a width, and not an absurd one."""
    try:
        return space is not None and spaces.width(space) > 0
    except PolyactError:
        return False
