"""Which policy a learner trains, as data: a class, its network and its own options, checked when it is made."""

import inspect
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.data.sampling import Batch
from polyact.errors import unknown
from polyact.learning.optimiser import Optimiser, OptimiserState, descend
from polyact.nets.mlp import Network
from polyact.policies.base import Policy, UnitPolicy
from polyact.policies.categorical import Categorical
from polyact.policies.gaussian import Gaussian
from polyact.policies.spec import Spec

P = TypeVar("P", bound=Policy)
Cloner = UnitPolicy | Categorical


class Actor(eqx.Module, Generic[P]):
    """A recipe for a policy: `build` calls `kind.create(spec, network, key, **options)`.

    Raises PolyactError when the class has no such option.
    """

    kind: Any = eqx.field(static=True)  # a class of P, or one whose `create` chooses it
    network: Network
    options: tuple[tuple[str, Any], ...] = eqx.field(static=True)

    def __init__(self, kind: type, network: Network | None = None, **options: Any):
        self.kind = kind
        self.network = network or Network()
        self.options = tuple(sorted(options.items()))

    def __check_init__(self):
        known = [name for name in inspect.signature(self.kind.create).parameters if name not in ("spec", "network", "key")]
        for name, _ in self.options:
            if name not in known:
                raise unknown(f"option of {self.kind.__name__}", name, known)

    def build(self, spec: Spec, key: PRNGKeyArray) -> P:
        """A fresh policy for these spaces."""
        return self.kind.create(spec, self.network, key, **dict(self.options))


class GaussianOrCategorical:
    """What the actions ask for: `Gaussian` where they are continuous, else `Categorical`."""

    @staticmethod
    def create(spec: Spec, network: Network, key: PRNGKeyArray) -> Gaussian | Categorical:
        """Fresh weights, with the defaults of either class."""
        continuous = spec.body.action_scale is not None
        return (Gaussian if continuous else Categorical).create(spec, network, key)


def clone_weighted(
    actor: Cloner, optimiser: Optimiser, state: OptimiserState, batch: Batch, weight: Float[Array, "B"]
) -> tuple[Cloner, OptimiserState, Float[Array, ""]]:
    """One step of advantage-weighted cloning (AWR, arXiv 1910.00177 eq. 5) and its loss, with densities in unit coordinates."""

    def loss(actor: Cloner) -> tuple[Array, Array]:
        log_prob = jax.vmap(actor.log_prob)(batch.observation, batch.action) + actor.body.log_volume()
        value = -jnp.mean(weight * log_prob)
        return value, value

    return descend(loss, actor, optimiser, state)
