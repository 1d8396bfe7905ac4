"""Continuous actions as classes: every entry of the action falls into one of some equal bins, each entry for itself."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.data.sampling import Batch, Sampling, Steps
from polyact.errors import PolyactError
from polyact.nets.mlp import Network
from polyact.policies.base import Action, Imitable, Memory, Observation
from polyact.policies.spec import Body, Spec


class Binned(Imitable):
    """observation -> network -> logits of `bins` bins between the bounds, per action entry; acts uniformly within the drawn bins.

    Entries are drawn independently, so what several of them have in common is lost.
    """

    body: Body
    network: Callable
    bins: int = eqx.field(static=True)

    @classmethod
    def create(cls, spec: Spec, network: Network, key: PRNGKeyArray, *, bins: int = 20) -> "Binned":
        """Fresh weights. Raises PolyactError when an action entry has no bounds to lay bins between."""
        body = spec.body
        if bins < 2 or not all(body.continuous.bounded):
            raise PolyactError(f"binned actions need at least 2 bins and bounds on every entry, got {bins} and {body.action_space}")
        return cls(body, network.build(body.observation_width, body.continuous.width * bins, key), bins)

    def logits(self, observation: Observation) -> Float[Array, "A bins"]:
        """Of every bin of every action entry."""
        return self.network(self.body.features(observation)).reshape(-1, self.bins)

    def start(self, key: PRNGKeyArray) -> Memory:
        return None

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        which, where = jax.random.split(key)
        logits = self.logits(observation)
        chosen = jax.random.categorical(which, logits)
        place = (chosen + jax.random.uniform(where, chosen.shape)) / self.bins
        return self.body.to_env(2 * place - 1), memory

    @property
    def sampling(self) -> Sampling:
        return Steps()

    def imitation_loss(self, batch: Batch, key: PRNGKeyArray) -> Float[Array, ""]:
        """Cross-entropy of the recorded bins, summed over the action's entries."""

        def one(observation: Observation, action: Action) -> Float[Array, ""]:
            bin = jnp.clip(jnp.floor((self.body.to_unit(action) + 1) / 2 * self.bins), 0, self.bins - 1).astype(jnp.int32)
            return -jnp.take_along_axis(jax.nn.log_softmax(self.logits(observation)), bin[:, None], 1).sum()

        return jax.vmap(one)(batch.observation, batch.action).mean()
