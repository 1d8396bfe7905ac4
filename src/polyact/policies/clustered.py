"""Actions as a cluster and an offset from its centre: the head of Behavior Transformers (Shafiullah et al., 2206.11251)."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.data.sampling import Batch, Sampling, Steps
from polyact.nets.mlp import Network
from polyact.policies.base import Action, Imitable, Memory, Observation
from polyact.policies.spec import Body, Spec
from polyact.tree import Frozen


class Centres(Frozen):
    """Centres of clusters of unit actions."""

    points: Float[Array, "K A"]


class Clustered(Imitable):
    """observation -> network -> the logits of K clusters and, with `offsets`, a way from each centre; acts by a drawn cluster."""

    body: Body
    network: Callable
    centres: Centres
    offsets: bool = eqx.field(static=True)

    @classmethod
    def around(
        cls, spec: Spec, network: Network, centres: Float[Array, "K A"], key: PRNGKeyArray, *, offsets: bool = True
    ) -> "Clustered":
        """Fresh weights for clusters of unit actions around these centres (`kmeans` finds them)."""
        body = spec.body
        outputs = len(centres) * (1 + (body.continuous.width if offsets else 0))
        return cls(body, network.build(body.observation_width, outputs, key), Centres(centres), offsets)

    def outputs(self, observation: Observation) -> tuple[Float[Array, " K"], Float[Array, "K A"]]:
        """Logits, and the action that each cluster stands for here."""
        raw, points = self.network(self.body.features(observation)), self.centres.points
        logits, ways = raw[: len(points)], raw[len(points) :]
        return logits, points + ways.reshape(points.shape) if self.offsets else points

    def start(self, key: PRNGKeyArray) -> Memory:
        return None

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        logits, actions = self.outputs(observation)
        return self.body.to_env(self.body.continuous.clip(actions[jax.random.categorical(key, logits)])), memory

    @property
    def sampling(self) -> Sampling:
        return Steps()

    def imitation_loss(self, batch: Batch, key: PRNGKeyArray) -> Float[Array, ""]:
        """Cross-entropy of the nearest centre, plus the squared error of its action."""

        def one(observation: Observation, action: Action) -> Float[Array, ""]:
            unit = self.body.to_unit(action)
            nearest = jnp.argmin(jnp.square(self.centres.points - unit).sum(-1))
            logits, actions = self.outputs(observation)
            error = jnp.square(actions[nearest] - unit).sum() if self.offsets else 0.0
            return error - jax.nn.log_softmax(logits)[nearest]

        return jax.vmap(one)(batch.observation, batch.action).mean()


def kmeans(points: Float[Array, "N A"], count: int, key: PRNGKeyArray, rounds: int = 30) -> Float[Array, "count A"]:
    """Centres after `rounds` of Lloyd's algorithm, started as k-means++ does; a cluster that lost its points stays where it was."""
    first, rest = jax.random.split(key)
    start = jnp.broadcast_to(points[jax.random.randint(first, (), 0, len(points))], (count, points.shape[1]))

    def squared(centres: Array) -> Float[Array, "N count"]:
        return jnp.square(points[:, None] - centres).sum(-1)

    def add(i: Array, centres: Array) -> Array:
        weights = squared(centres).min(-1)  # places not yet filled hold the first centre, which changes no minimum
        return centres.at[i].set(points[jax.random.categorical(jax.random.fold_in(rest, i), jnp.log(weights))])

    def move(_: Array, centres: Array) -> Array:
        owner = jax.nn.one_hot(squared(centres).argmin(-1), count)
        sizes = owner.sum(0)
        return jnp.where(sizes[:, None] > 0, owner.T @ points / jnp.maximum(sizes, 1)[:, None], centres)

    return jax.lax.fori_loop(0, rounds, move, jax.lax.fori_loop(1, count, add, start))
