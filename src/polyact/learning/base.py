"""What a learner is: hyperparameters as fields, and pure functions from experience to a better state.

A learner owns no data, no loop and no clock. `fit` and `train` compile its `update` into one program per reporting interval.
"""

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray, PyTree

from polyact.data.sampling import Sampling
from polyact.errors import PolyactError
from polyact.policies.base import Memory, Policy
from polyact.policies.spec import Spec

if TYPE_CHECKING:
    from typing import ClassVar as AbstractClassVar  # a type checker would take them for arguments of every __init__
    from typing import ClassVar as AbstractVar
else:
    from equinox import AbstractClassVar, AbstractVar

TrainState = PyTree
Metrics = dict[str, Array]


class Trainable(eqx.Module):
    """Something that learns from batches: a policy (`Learner`), or a model or a judgement that others use.

    `needs` names the data columns that `update` reads.
    """

    needs: AbstractClassVar[tuple[str, ...]]

    @abstractmethod
    def sampling(self, spec: Spec) -> Sampling:
        """How batches are cut from episodes unless `fit` is told otherwise."""

    @abstractmethod
    def init(self, spec: Spec, key: PRNGKeyArray) -> TrainState:
        """Fresh networks and optimiser state for these spaces."""

    @abstractmethod
    def update(self, state: TrainState, batch: Any, key: PRNGKeyArray, /) -> tuple[TrainState, Metrics]:
        """Learn from a `Batch` (an on-policy learner: from a `Trajectory`). Every metric is a finite scalar while training is healthy."""


class Learner(Trainable):
    """Experience -> policy."""

    @abstractmethod
    def policy(self, state: TrainState) -> Policy:
        """What to deploy."""


class OffPolicyLearner(Learner):
    """A learner that can also collect its own experience and learn from a replay buffer."""

    @abstractmethod
    def explore(self, state: TrainState, observation: Any, key: PRNGKeyArray) -> Any:
        """An exploring action for one observation, in the environment's units."""


class Variant(Learner):
    """A learner that is another one with certain settings: its own fields say which, and `core` does the work."""

    @property
    @abstractmethod
    def core(self) -> Learner:
        """The learner with these settings."""

    def sampling(self, spec: Spec) -> Sampling:
        return self.core.sampling(spec)

    def init(self, spec: Spec, key: PRNGKeyArray) -> TrainState:
        return self.core.init(spec, key)

    def update(self, state: TrainState, batch: Any, key: PRNGKeyArray) -> tuple[TrainState, Metrics]:
        return self.core.update(state, batch, key)

    def policy(self, state: TrainState) -> Policy:
        return self.core.policy(state)


class Decision(eqx.Module):
    """What an on-policy learner chose for one observation, and what it wants to remember of it.

    action: as drawn, perhaps beyond its bounds (the world gets it moved into them); log_prob, value: None when it has none.
    """

    action: Any
    log_prob: Any = None
    value: Any = None


class Trajectory(eqx.Module):
    """T steps of N environments side by side, time first: every column is [T, N, ...], except memory [N, ...].

    next_observation: the one each step reached, never a reset's. terminated, truncated [T, N]: as floats. start [T, N]: whether the
    step was the first of its episode. memory: what was remembered before the first step. info: the environment's further columns.
    A mask of allowed actions is a part of the observation (`policies.encoding.ACTION_MASK`).
    """

    observation: Any
    action: Any
    reward: Array
    next_observation: Any
    terminated: Array
    truncated: Array
    start: Array
    log_prob: Any
    value: Any
    memory: Memory
    info: dict[str, Any]

    @property
    def ended(self) -> Array:
        """Where an episode ended, for either reason [T, N]."""
        return jnp.maximum(self.terminated, self.truncated)


class OnPolicyLearner(Learner):
    """A learner that needs fresh experience of its own: `update` gets a `Trajectory` of `rollout_length` steps, and forgets it."""

    needs: ClassVar[tuple[str, ...]] = ()
    rollout_length: AbstractVar[int]

    def sampling(self, spec: Spec) -> Sampling:
        raise PolyactError(f"{type(self).__name__} learns from its own fresh experience, not from data: use train, not fit")

    @abstractmethod
    def start(self, state: TrainState, key: PRNGKeyArray) -> Memory:
        """What is remembered at the start of an episode; None when nothing is."""

    @abstractmethod
    def act(self, state: TrainState, observation: Any, memory: Memory, key: PRNGKeyArray) -> tuple[Decision, Memory]:
        """The action for one observation, and the new memory."""
