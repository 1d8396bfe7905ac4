"""What acts: one observation in, one action out. Batching is `vmap`; what a policy remembers is a value it hands back.

Capabilities that only some policies have are abstract classes between `Policy` and the final ones, so that an operator states in
its signature what it needs.
"""

from abc import abstractmethod

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

Memory = PyTree
Observation = PyTree
Action = PyTree


class Policy(eqx.Module):
    """A rule for acting. An immutable pytree: it can be averaged, vmapped, differentiated and saved."""

    @abstractmethod
    def start(self, key: PRNGKeyArray) -> Memory:
        """What the policy remembers at the start of an episode; None when it remembers nothing."""

    @abstractmethod
    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        """The action for one (unbatched) observation, in the environment's units, and the new memory."""


class StochasticPolicy(Policy):
    """A memoryless policy with a known distribution over actions."""

    @abstractmethod
    def log_prob(self, observation: Observation, action: Action) -> Float[Array, ""]:
        """Log density (continuous; per unit of the environment's action) or log probability of an action."""

    @abstractmethod
    def mode(self, observation: Observation) -> Action:
        """The action to take when no exploration is wanted."""


class ChunkPolicy(Policy):
    """A policy that plans several actions at once; `act` is one way of executing them, executors are others."""

    @abstractmethod
    def chunk(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Float[Array, "H A"], Memory]:
        """The next H actions from one observation (or observation history, see the class)."""


class Greedy(Policy):
    """Plays the mode of a stochastic policy: what is usually meant by its deterministic evaluation."""

    policy: StochasticPolicy

    def start(self, key: PRNGKeyArray) -> Memory:
        return None

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        return self.policy.mode(observation), memory


def greedy(policy: Policy) -> Policy:
    """The policy without its exploration: `Greedy` where a mode is known, else the policy itself."""
    return Greedy(policy) if isinstance(policy, StochasticPolicy) else policy
