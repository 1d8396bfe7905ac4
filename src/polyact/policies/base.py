"""What acts: one observation in, one action out. Batching is `vmap`; what a policy remembers is a value it hands back.

Capabilities that only some policies have are abstract classes between `Policy` and the final ones, so that an operator states in
its signature what it needs.
"""

from abc import abstractmethod
from typing import TYPE_CHECKING

import equinox as eqx
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from polyact.data.sampling import Batch, Sampling
from polyact.policies.generative.denoised import Change, Denoised
from polyact.policies.generative.paths import Path
from polyact.policies.spec import Body

if TYPE_CHECKING:
    from typing import ClassVar as AbstractVar  # a type checker would take an AbstractVar for an argument of every __init__
else:
    from equinox import AbstractVar

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


class UnitPolicy(StochasticPolicy):
    """A stochastic policy over a Box of A numbers that can also be asked in unit coordinates, where bounds are -1 and 1.

    Losses work there: gradients and entropies then do not depend on the environment's units.
    """

    body: AbstractVar[Body]

    @abstractmethod
    def unit_sample(self, observation: Observation, key: PRNGKeyArray) -> tuple[Float[Array, " A"], Float[Array, ""]]:
        """A unit action and its log density there."""

    @abstractmethod
    def unit_log_prob(self, observation: Observation, unit: Float[Array, " A"]) -> Float[Array, ""]:
        """Log density of a unit action, per unit of unit coordinates."""

    @abstractmethod
    def unit_mode(self, observation: Observation) -> Float[Array, " A"]:
        """The unit action without exploration."""

    @abstractmethod
    def sample_and_log_prob(self, observation: Observation, key: PRNGKeyArray) -> tuple[Action, Float[Array, ""]]:
        """An action in the environment's units, not clipped to its bounds, and its `log_prob`."""


class EntropicPolicy(StochasticPolicy):
    """A stochastic policy that can be sampled with its log density and whose entropy has a closed form: what policy gradients use."""

    @abstractmethod
    def sample_and_log_prob(self, observation: Observation, key: PRNGKeyArray) -> tuple[Action, Float[Array, ""]]:
        """An action (not clipped to its bounds) and its `log_prob`."""

    @abstractmethod
    def entropy(self, observation: Observation) -> Float[Array, ""]:
        """In nats; of continuous actions in unit coordinates."""


class Exploring(Policy):
    """A policy with memory that explores, and knows what it would do otherwise."""

    @abstractmethod
    def exploit(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        """`act` without exploration."""


class Imitable(Policy):
    """A policy that can be cloned from data: it knows how its batches are cut and what to minimise on them."""

    @property
    @abstractmethod
    def sampling(self) -> Sampling:
        """How batches for `imitation_loss` are cut from episodes."""

    @abstractmethod
    def imitation_loss(self, batch: Batch, key: PRNGKeyArray) -> Float[Array, ""]:
        """What cloning minimises: a mean over the batch (and over its unmasked entries)."""


class ChunkPolicy(Policy):
    """A policy that plans several actions at once. `act` plans at every step and plays the first; executors do otherwise."""

    body: AbstractVar[Body]
    horizon: AbstractVar[int]  # H: how many actions a chunk has

    @abstractmethod
    def chunk(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Float[Array, "H A"], Memory]:
        """The next H actions from one observation and what is remembered of earlier ones."""

    @abstractmethod
    def observe(self, observation: Observation, memory: Memory) -> Memory:
        """What is remembered after an observation for which no chunk was asked; `chunk` remembers its own."""

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        chunk, memory = self.chunk(observation, memory, key)
        return chunk[0], memory


class NoisePolicy(ChunkPolicy):
    """A chunk policy that turns noise into a chunk [H, A] in unit coordinates, by asking at falling noise levels what is beneath.

    Time runs from 1 (noise) to 0 (the chunk) along `path`; score and velocity at any of them follow from `denoised`.
    """

    path: AbstractVar[Path]

    @abstractmethod
    def condition(self, memory: Memory) -> Float[Array, "K C"]:
        """What every step of a chain is told, from the memory that holds the newest observation. Computed once per chain."""

    @abstractmethod
    def denoised(self, condition: Float[Array, "K C"], noisy: Float[Array, "H A"], time: Float[Array, ""]) -> Denoised:
        """The estimates of the chunk and of the noise in a noisy chunk."""

    @abstractmethod
    def generate(
        self,
        condition: Float[Array, "K C"],
        key: PRNGKeyArray,
        *,
        start: Float[Array, "H A"] | None = None,
        skip: int | Int[Array, ""] = 0,
        change: Change | None = None,
    ) -> Float[Array, "H A"]:
        """A chunk in unit coordinates. start: the noisy chunk at the first level, by default drawn; skip: how many of the sampler's steps
        are left out at the beginning, for a chunk that is on its way already; change(noisy, time, estimate) replaces every estimate
        (guidance, composition).
        """


class Reporting(Policy):
    """A policy that has something to say about every step, kept by `rollout` among the info columns."""

    @abstractmethod
    def report(self, memory: Memory) -> dict[str, Array]:
        """Named values about the step just taken, from the memory after it."""


class Greedy(Policy):
    """Plays the mode of a stochastic policy: what is usually meant by its deterministic evaluation."""

    policy: StochasticPolicy | Exploring

    def start(self, key: PRNGKeyArray) -> Memory:
        return self.policy.start(key)

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        if isinstance(self.policy, Exploring):
            return self.policy.exploit(observation, memory, key)
        return self.policy.mode(observation), memory


def greedy(policy: Policy) -> Policy:
    """The policy without its exploration: `Greedy` where that is known, else the policy itself."""
    return Greedy(policy) if isinstance(policy, StochasticPolicy | Exploring) else policy
