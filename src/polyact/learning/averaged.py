"""The moving average of a policy's weights, for any learner: often steadier than the last iterate (Polyak & Juditsky 1992)."""

import equinox as eqx
from jaxtyping import PRNGKeyArray

from polyact import tree
from polyact.data.sampling import Batch, Sampling
from polyact.errors import PolyactError
from polyact.learning.base import Learner, Metrics, TrainState
from polyact.policies.base import Policy
from polyact.policies.spec import Spec


class AveragedState(eqx.Module):
    learner: TrainState
    policy: Policy


class Averaged(Learner):
    """Another learner whose deployed policy is the exponential moving average of its policies (EMA).

    decay: share of the average that stays at every update; about 1 / (1 - decay) updates are remembered.
    """

    learner: Learner
    decay: float = 0.999

    def __check_init__(self):
        if not 0 < self.decay < 1:
            raise PolyactError(f"decay must lie between 0 and 1, got {self.decay}")

    @property
    def needs(self) -> tuple[str, ...]:
        return self.learner.needs

    def sampling(self, spec: Spec) -> Sampling:
        return self.learner.sampling(spec)

    def init(self, spec: Spec, key: PRNGKeyArray) -> AveragedState:
        state = self.learner.init(spec, key)
        return AveragedState(state, self.learner.policy(state))

    def update(self, state: AveragedState, batch: Batch, key: PRNGKeyArray) -> tuple[AveragedState, Metrics]:
        inner, metrics = self.learner.update(state.learner, batch, key)
        return AveragedState(inner, tree.ema(state.policy, self.learner.policy(inner), 1 - self.decay)), metrics

    def policy(self, state: AveragedState) -> Policy:
        return state.policy
