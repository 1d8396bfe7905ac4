"""One policy for several bodies: sources with different observations and actions share a trunk and train together."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from polyact import spaces
from polyact.data.sampling import Batch, Sampling, Steps
from polyact.errors import PolyactError, unknown
from polyact.nets.layers import Linear, activation
from polyact.nets.mlp import MLP, Network
from polyact.policies.base import Action, Imitable, Memory, Observation, Policy
from polyact.policies.categorical import Categorical
from polyact.policies.deterministic import Deterministic
from polyact.policies.gaussian import Gaussian, TanhGaussian
from polyact.policies.heads import CategoricalHead, GaussianHead, Head, MixtureHead, TanhGaussianHead, head_for
from polyact.policies.mixture import GaussianMixture
from polyact.policies.spec import Body, Spec
from polyact.spaces import Space


class Joined(eqx.Module):
    """features [O] of one body -> stem -> shared trunk -> tail -> outputs [P] of its head."""

    stem: Linear
    trunk: MLP
    tail: Linear

    def __call__(self, features: Float[Array, " O"]) -> Float[Array, " P"]:
        return self.leave(self.trunk(self.enter(features)))

    def enter(self, features: Float[Array, " O"]) -> Float[Array, " W"]:
        return activation(self.trunk.activation)(self.stem(features))

    def leave(self, hidden: Float[Array, " W"]) -> Float[Array, " P"]:
        return self.tail(activation(self.trunk.activation)(hidden))


class MultiBody(Imitable):
    """A stem and a head per body around one trunk. `for_body` gives an ordinary policy of one body's true widths.

    Batches hold observations [B, max O] and actions [B, max A] padded with zeros, and the number of the source [B]; each row meets
    only its own body's statistics, stem and head, at their true widths, so padding never enters the loss.
    """

    bodies: tuple[Body, ...]
    stems: tuple[Linear, ...]
    trunk: MLP
    tails: tuple[Linear, ...]
    heads: tuple[Head, ...]
    source_bodies: tuple[int, ...] = eqx.field(static=True)

    @classmethod
    def create(cls, spec: Spec, network: Network, key: PRNGKeyArray, *, head: str | None = None) -> "MultiBody":
        """Fresh weights for all bodies of the spec; head: see `heads.head_for`, by default what suits each body's actions."""
        trunk_key, *keys = jax.random.split(key, 1 + 2 * len(spec.bodies))
        heads = tuple(head_for(head, body) for body in spec.bodies)
        stems = tuple(
            Linear.build(body.observation_width, network.width, k) for body, k in zip(spec.bodies, keys[::2], strict=True)
        )
        tails = tuple(
            Linear.build(network.width, own.outputs(body), k) for own, body, k in zip(heads, spec.bodies, keys[1::2], strict=True)
        )
        trunk = network.build(network.width, network.width, trunk_key)
        return cls(spec.bodies, stems, trunk, tails, heads, spec.source_bodies)

    def for_body(self, name: str | None = None) -> Policy:
        """The policy of one body, sharing this one's weights; the name may be left out when there is only one body."""
        names = [body.name for body in self.bodies]
        if name is None and len(names) > 1:
            raise PolyactError(f"this policy has {len(names)} bodies ({', '.join(names)}); choose one with for_body(name)")
        if name is not None and name not in names:
            raise unknown("body", name, names)
        number = 0 if name is None else names.index(name)
        return _policy(self.bodies[number], self._joined(number), self.heads[number])

    def start(self, key: PRNGKeyArray) -> Memory:
        return self.for_body().start(key)

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        """Acts when there is one body; PolyactError when a body must be chosen with `for_body`."""
        return self.for_body().act(observation, memory, key)

    @property
    def sampling(self) -> Sampling:
        return Steps()

    def imitation_loss(self, batch: Batch, key: PRNGKeyArray) -> Float[Array, ""]:
        """Mean loss of each row's own head."""
        own = self._body_of(batch)
        rows = [_rows(own == number, body, batch) for number, body in enumerate(self.bodies)]
        entered = sum(
            jnp.where(mine[:, None], jax.vmap(lambda o, n=number: self._joined(n).enter(self.bodies[n].features(o)))(seen), 0.0)
            for number, (mine, seen, _) in enumerate(rows)
        )
        hidden = jax.vmap(self.trunk)(jnp.asarray(entered))

        def loss(number: int, hidden: Array, action: Any) -> Float[Array, ""]:
            body = self.bodies[number]
            return self.heads[number].loss(self._joined(number).leave(hidden), body, body.code(action))

        losses = sum(
            jnp.where(mine, jax.vmap(lambda h, a, n=number: loss(n, h, a))(hidden, done), 0.0)
            for number, (mine, _, done) in enumerate(rows)
        )
        return jnp.asarray(losses).mean()

    def _joined(self, number: int) -> Joined:
        return Joined(self.stems[number], self.trunk, self.tails[number])

    def _body_of(self, batch: Batch) -> Int[Array, " B"]:
        if batch.source is None:
            raise PolyactError("a batch for several bodies needs the number of each row's source")
        return jnp.asarray(self.source_bodies)[batch.source]


def _policy(body: Body, network: Callable, head: Head) -> Policy:
    match head:
        case GaussianHead():
            return Gaussian(body, network, head)
        case TanhGaussianHead():
            return TanhGaussian(body, network, head)
        case MixtureHead():
            return GaussianMixture(body, network, head)
        case CategoricalHead():
            return Categorical(body, network, head)
    return Deterministic(body, network)


def _rows(mine: Bool[Array, " B"], body: Body, batch: Batch) -> tuple[Bool[Array, " B"], Any, Any]:
    """Observations and actions at the body's widths; rows of other bodies become zeros, so that they can't overflow."""
    return mine, _own(mine, batch.observation, body.observation_space), _own(mine, batch.action, body.action_space)


def _own(mine: Bool[Array, " B"], column: Array, space: Space) -> Array:
    if isinstance(space, spaces.Box | spaces.MultiDiscrete | spaces.MultiBinary) and len(space.shape) == 1:
        column = column[:, : space.shape[0]]
    return jnp.where(mine.reshape(-1, *[1] * (column.ndim - 1)), column, 0)
