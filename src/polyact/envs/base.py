"""An environment is a pytree of physical parameters with two pure functions, `reset` and `step`.

Because the parameters are array leaves, randomising them is a `vmap` over environments, and a gradient through physics is a
gradient like any other.
"""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import equinox as eqx
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from polyact.spaces import Space

if TYPE_CHECKING:
    from typing import ClassVar as AbstractVar  # a type checker would take an AbstractVar for an argument of every __init__
else:
    from equinox import AbstractVar

State = PyTree
Observation = PyTree
Action = PyTree


class Step(eqx.Module):
    """What one step of the world gives back.

    `terminated`: the task ended here, nothing of value follows. `truncated`: the world was cut off here although it would have
    gone on (a learner bootstraps from `observation`). `observation` is always the one reached by this step, never a reset's.
    `info` holds further arrays by name; its structure is the same at every step.
    """

    observation: Observation
    reward: Float[Array, "*batch"]
    terminated: Bool[Array, "*batch"]
    truncated: Bool[Array, "*batch"]
    info: dict[str, Any]


class Env(eqx.Module):
    """A Markov decision process as pure functions.

    `horizon` is the number of steps after which whoever runs the episode (`rollout`, `train`, `as_gymnasium`) truncates it; the
    functions here know nothing of time unless it is part of the task. Physical parameters are array leaves.
    """

    observation_space: AbstractVar[Space]
    action_space: AbstractVar[Space]
    horizon: AbstractVar[int]

    @abstractmethod
    def reset(self, key: PRNGKeyArray) -> tuple[State, Observation]:
        """Draw an initial state and its observation."""

    @abstractmethod
    def step(self, state: State, action: Action, key: PRNGKeyArray) -> tuple[State, Step]:
        """Advance one control interval."""
