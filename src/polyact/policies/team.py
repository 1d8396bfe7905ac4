"""One policy for every member of a team: the same rule, or the same network, on each member's view."""

from collections.abc import Callable

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.errors import PolyactError
from polyact.nets.mlp import Network
from polyact.policies.base import Action, Memory, Observation, Policy, Reporting
from polyact.policies.categorical import Categorical
from polyact.policies.heads import CategoricalHead
from polyact.policies.spec import Spec


class Team(Reporting):
    """Observations are arrays [M, ...] with a row per member; the members' actions [A] come one after the other, [M * A].

    Every member has a memory and a key of its own; what `policy` holds is shared. Reports what it reports, with a row per member.
    """

    policy: Policy
    members: int = eqx.field(static=True, default=2)

    def start(self, key: PRNGKeyArray) -> Memory:
        return jax.vmap(self.policy.start)(jax.random.split(key, self.members))

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        actions, memory = jax.vmap(self.policy.act)(observation, memory, jax.random.split(key, self.members))
        return actions.reshape(-1), memory

    def report(self, memory: Memory) -> dict[str, Array]:
        return jax.vmap(self.policy.report)(memory) if isinstance(self.policy, Reporting) else {}


class PerMember(eqx.Module):
    """The same network on each member's part of a vector: [M * I] -> [M * O]."""

    network: Callable
    members: int = eqx.field(static=True)

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        return jax.vmap(self.network)(x.reshape(self.members, -1)).reshape(-1)


class SharedCategorical:
    """How to make a `Categorical` for a whole team whose members share one network: `Actor(SharedCategorical)` for a learner."""

    @staticmethod
    def create(spec: Spec, network: Network, key: PRNGKeyArray, members: int = 2) -> Categorical:
        """Fresh weights. Raises PolyactError when observation and choices can't be shared out evenly."""
        body, outputs = spec.body, sum(spec.body.choices)
        if body.observation_width % members or outputs % members:
            raise PolyactError(
                f"{body.observation_width} numbers and {outputs} classes can't be shared out among {members} members"
            )
        shared = network.build(body.observation_width // members, outputs // members, key)
        return Categorical(body, PerMember(shared, members), CategoricalHead())
