"""Which policy a learner trains, as data: a class, its network and its own options, checked when it is made."""

import inspect
from typing import Any, Generic, TypeVar

import equinox as eqx
from jaxtyping import PRNGKeyArray

from polyact.errors import unknown
from polyact.nets.mlp import Network
from polyact.policies.base import Policy
from polyact.policies.spec import Spec

P = TypeVar("P", bound=Policy)


class Actor(eqx.Module, Generic[P]):
    """A recipe for a policy: `build` calls `kind.create(spec, network, key, **options)`.

    Raises PolyactError when the class has no such option.
    """

    kind: Any = eqx.field(static=True)  # a class of P that has `create`
    network: Network
    options: tuple[tuple[str, Any], ...] = eqx.field(static=True)

    def __init__(self, kind: type[P], network: Network | None = None, **options: Any):
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
