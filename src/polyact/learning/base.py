"""What a learner is: hyperparameters as fields, and pure functions from experience to a better state.

A learner owns no data, no loop and no clock. `fit` and `train` compile its `update` into one program per reporting interval.
"""

from abc import abstractmethod
from typing import Any

import equinox as eqx
from jaxtyping import Array, PRNGKeyArray, PyTree

from polyact.data.sampling import Batch, Sampling
from polyact.policies.base import Policy
from polyact.policies.spec import Spec

TrainState = PyTree
Metrics = dict[str, Array]


class Learner(eqx.Module):
    """Experience -> policy. `needs` names the data columns that `update` reads, beyond observations."""

    needs: eqx.AbstractClassVar[tuple[str, ...]]

    @abstractmethod
    def sampling(self, spec: Spec) -> Sampling:
        """How batches are cut from episodes unless `fit` is told otherwise."""

    @abstractmethod
    def init(self, spec: Spec, key: PRNGKeyArray) -> TrainState:
        """Fresh networks and optimiser state for these spaces."""

    @abstractmethod
    def update(self, state: TrainState, batch: Batch, key: PRNGKeyArray) -> tuple[TrainState, Metrics]:
        """One gradient step. Every metric is a finite scalar while training is healthy."""

    @abstractmethod
    def policy(self, state: TrainState) -> Policy:
        """What to deploy."""


class OffPolicyLearner(Learner):
    """A learner that can also collect its own experience and learn from a replay buffer."""

    @abstractmethod
    def explore(self, state: TrainState, observation: Any, key: PRNGKeyArray) -> Any:
        """An exploring action for one observation, in the environment's units."""
