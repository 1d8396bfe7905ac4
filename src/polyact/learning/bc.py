"""Behaviour cloning: fit any trainable policy to the actions in the data. The baseline of everything offline."""

from typing import ClassVar

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from polyact.data.sampling import Batch, Sampling
from polyact.learning.actor import Actor, GaussianOrCategorical
from polyact.learning.base import Learner, Metrics
from polyact.learning.optimiser import Optimiser, OptimiserState, descend
from polyact.policies.base import Imitable
from polyact.policies.spec import Spec


class BCState(eqx.Module):
    actor: Imitable
    optimiser: OptimiserState


class BC(Learner):
    """Minimises the imitation loss of the actor's class: negative log-likelihood, squared error or the class's own."""

    needs: ClassVar[tuple[str, ...]] = ("observation", "action")
    actor: Actor[Imitable] = Actor(GaussianOrCategorical)
    optimiser: Optimiser = Optimiser()
    batches: Sampling | None = None

    def sampling(self, spec: Spec) -> Sampling:
        return self.batches or eqx.filter_eval_shape(self.actor.build, spec, jax.random.key(0)).sampling

    def init(self, spec: Spec, key: PRNGKeyArray) -> BCState:
        actor = self.actor.build(spec, key)
        return BCState(actor, self.optimiser.init(actor, spec.steps))

    def update(self, state: BCState, batch: Batch, key: PRNGKeyArray) -> tuple[BCState, Metrics]:
        def loss(actor: Imitable):
            value = actor.imitation_loss(batch, key)
            return value, value

        actor, optimiser, value = descend(loss, state.actor, self.optimiser, state.optimiser)
        return BCState(actor, optimiser), {"loss": value}

    def policy(self, state: BCState) -> Imitable:
        return state.actor
