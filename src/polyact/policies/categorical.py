"""Policies over discrete actions: one choice (Discrete) or several at once (MultiDiscrete, MultiBinary), with optional action masks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.data.sampling import Batch, Sampling, Steps
from polyact.nets.mlp import Network
from polyact.policies.base import Action, EntropicPolicy, Imitable, Memory, Observation
from polyact.policies.encoding import ACTION_MASK
from polyact.policies.heads import CategoricalHead
from polyact.policies.spec import Body, Spec

FORBIDDEN = -1e9  # a logit of probability zero that leaves softmax and its gradient finite


class Categorical(EntropicPolicy, Imitable):
    """Independent classes per choice; logits from a network.

    When the observation is a dictionary with a part "action_mask" (true or 1 where a class is allowed; the masks of several choices
    one after the other), forbidden classes have probability zero. The mask is not an input of the network.
    """

    body: Body
    network: Callable
    head: CategoricalHead

    @classmethod
    def create(cls, spec: Spec, network: Network, key: PRNGKeyArray) -> "Categorical":
        """Fresh weights for the one body of the spec."""
        body, head = spec.body, CategoricalHead()
        return cls(body, network.build(body.observation_width, head.outputs(body), key), head)

    def logits(self, observation: Observation) -> Float[Array, " classes"]:
        """Logits of all choices one after the other, forbidden classes pushed out."""
        return allowed_only(self.network(self.body.features(observation)), observation)

    def log_prob(self, observation: Observation, action: Action) -> Float[Array, ""]:
        return self.head.log_prob(self.logits(observation), self.body, self.body.code(action))

    def sample_and_log_prob(self, observation: Observation, key: PRNGKeyArray) -> tuple[Action, Float[Array, ""]]:
        code, log_prob = self.head.sample_and_log_prob(self.logits(observation), self.body, key)
        return self.body.decode(code), log_prob

    def mode(self, observation: Observation) -> Action:
        return self.body.decode(self.head.mode(self.logits(observation), self.body))

    def entropy(self, observation: Observation) -> Float[Array, ""]:
        return self.head.entropy(self.logits(observation), self.body)

    def start(self, key: PRNGKeyArray) -> Memory:
        return None

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        return self.sample_and_log_prob(observation, key)[0], memory

    @property
    def sampling(self) -> Sampling:
        return Steps()

    def imitation_loss(self, batch: Batch, key: PRNGKeyArray) -> Float[Array, ""]:
        """Mean cross-entropy."""
        return -jax.vmap(self.log_prob)(batch.observation, batch.action).mean()


def allowed_only(logits: Float[Array, " classes"], observation: Observation) -> Float[Array, " classes"]:
    """The logits without the classes that the observation's action mask forbids; all of them when it has none."""
    if isinstance(observation, dict) and ACTION_MASK in observation:
        allowed = jnp.asarray(observation[ACTION_MASK]).reshape(-1).astype(bool)
        return jnp.where(allowed, logits, FORBIDDEN)
    return logits
