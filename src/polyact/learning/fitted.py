"""What training leaves, and the checks of options that every way of training shares."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jaxtyping import PyTree

from polyact.errors import PolyactError
from polyact.learning.base import Learner, Trainable
from polyact.learning.loop import Record
from polyact.policies.base import Policy
from polyact.policies.spec import Spec


@dataclass(frozen=True)
class Fitted:
    """A state per seed, the records of every report, and how it was made."""

    learner: Trainable
    spec: Spec
    states: tuple[PyTree, ...]
    history: list[Record]
    steps: int
    seconds: float
    identity: dict[str, Any]

    @cached_property
    def policies(self) -> list[Policy]:
        """The last policy of every seed. Raises PolyactError when what was trained makes no policy."""
        if not isinstance(self.learner, Learner):
            raise PolyactError(f"{type(self.learner).__name__} makes no policy; what it learned is in `states`")
        return [self.learner.policy(state) for state in self.states]

    @property
    def policy(self) -> Policy:
        """The last policy of the first seed."""
        return self.policies[0]


def check_options(batch_size: int, seeds: int) -> None:
    """Raise PolyactError unless both are positive."""
    if batch_size < 1 or seeds < 1:
        raise PolyactError(f"batch_size and seeds must be positive, got {batch_size} and {seeds}")


def needs_other(name: str, value: Any, other: str, other_value: Any) -> None:
    """Raise PolyactError when an option is set that does nothing without another."""
    if value and not other_value:
        raise PolyactError(f"{name} has no effect without {other}")
