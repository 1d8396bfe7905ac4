"""Environments that live on the host: simulators written in Python or C, stepped in a loop around a compiled policy.

They can't be part of a compiled program, so they are not `Env`s. Nothing here resets by itself: whoever runs the episodes decides
which seed each slot starts with next, so every policy can be given the same initial states, and no final observation can be lost.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from polyact.spaces import Space

Slots = Sequence[int] | Int[np.ndarray, "K"] | None


@dataclass(frozen=True)
class HostStep:
    """What one step gave back, as in `polyact.envs.base.Step`, in NumPy arrays with leading axis K: one row for each slot stepped."""

    observation: Any
    reward: Float[np.ndarray, "K"]
    terminated: Bool[np.ndarray, "K"]
    truncated: Bool[np.ndarray, "K"]
    info: dict[str, Float[np.ndarray, "K ..."]]


class HostEnv(ABC):
    """`count` environments of one kind, side by side in numbered slots.

    horizon: steps after which an episode is truncated; `step` says so itself. control_hz: actions per second of simulated time, None
    when unknown. name: for people.
    """

    observation_space: Space
    action_space: Space
    horizon: int
    count: int
    control_hz: float | None
    name: str

    @abstractmethod
    def reset(self, seeds: Sequence[int] | Int[np.ndarray, "K"], slots: Slots = None) -> Any:
        """Start an episode in each of `slots` [K] (default: all), with its own seed; returns observations [K, ...].

        The same seed gives the same initial state, whatever ran in the slot before.
        """

    @abstractmethod
    def step(self, actions: Any, slots: Slots = None) -> HostStep:
        """One step in each of `slots` [K] (default: all) with actions [K, ...].

        `observation` is the one reached by this step; `truncated` says when the horizon is reached. Raises PolyactError for a slot
        whose episode is over or has not begun.
        """

    @abstractmethod
    def render(self, slot: int = 0) -> np.ndarray:
        """The slot as uint8 [height, width, 3]. Raises PolyactError when the simulator can't draw."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the simulators hold. Further calls do nothing."""
