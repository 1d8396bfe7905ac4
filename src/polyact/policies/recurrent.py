"""A policy with a recurrent memory, for worlds of which one observation does not tell enough."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from polyact.data.sampling import Batch, Sampling, Windows
from polyact.errors import PolyactError
from polyact.nets.layers import Linear
from polyact.nets.mlp import MLP, Network
from polyact.nets.recurrent import Cell, build_cell
from polyact.policies.base import Action, Exploring, Imitable, Memory, Observation
from polyact.policies.categorical import allowed_only
from polyact.policies.heads import DensityHead, Head, head_for
from polyact.policies.spec import Body, Spec


class Recurrent(Exploring, Imitable):
    """observation -> network -> recurrent cell -> head. Trained on windows of `length` steps, from an empty memory.

    `unroll` over a sequence gives exactly the outputs of acting step by step.
    """

    body: Body
    network: MLP
    cell: Cell
    out: Linear
    head: Head
    length: int = eqx.field(static=True)

    @classmethod
    def create(
        cls, spec: Spec, network: Network, key: PRNGKeyArray, *, cell: str = "gru", head: str | None = None, length: int = 32
    ) -> "Recurrent":
        """Fresh weights. cell: gru or lstm. head: see `heads.head_for`; by default what suits the actions."""
        if length < 1:
            raise PolyactError(f"a recurrent policy trains on windows of at least one step, got length {length}")
        body, keys = spec.body, jax.random.split(key, 3)
        chosen = head_for(head, body)
        embed = network.build(body.observation_width, network.width, keys[0])
        memory = build_cell(cell, network.width, network.width, keys[1])
        return cls(body, embed, memory, Linear.build(network.width, chosen.outputs(body), keys[2]), chosen, length)

    def start(self, key: PRNGKeyArray) -> Memory:
        return self.cell.start()

    def step(self, observation: Observation, memory: Memory) -> tuple[Float[Array, " P"], Memory]:
        """What the head reads after one more observation."""
        hidden, memory = self.cell(self.network(self.body.features(observation)), memory)
        return allowed_only(self.out(hidden), observation), memory

    def unroll(
        self, observations: Any, memory: Memory, first: Bool[Array, " T"] | None = None
    ) -> tuple[Float[Array, "T P"], Memory]:
        """What the head reads at every step of a sequence, and the memory after it; the memory is emptied where `first` is true."""
        inputs = jax.vmap(lambda observation: self.cell.inner(self.network(self.body.features(observation))))(observations)
        first = jnp.zeros(len(inputs), bool) if first is None else first

        def step(memory: Memory, now: tuple[Array, Array]) -> tuple[Memory, Array]:
            memory = jax.tree.map(lambda empty, kept: jnp.where(now[1], empty, kept), self.cell.start(), memory)
            hidden, memory = self.cell.advance(now[0], memory)
            return memory, hidden

        memory, hidden = jax.lax.scan(step, memory, (inputs, first))
        return jax.vmap(lambda h, observation: allowed_only(self.out(h), observation))(hidden, observations), memory

    def log_prob(self, outputs: Float[Array, " P"], action: Action) -> Float[Array, ""]:
        """Log density of an action, in the environment's units, given what the head reads. PolyactError for a deterministic head."""
        if not isinstance(self.head, DensityHead):
            raise PolyactError(f"{type(self.head).__name__} has no density")
        return self.head.log_prob(outputs, self.body, self.body.code(action)) - self.body.log_volume()

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        outputs, memory = self.step(observation, memory)
        return self.body.decode(self.body.clip(self.head.sample(outputs, self.body, key))), memory

    def exploit(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        outputs, memory = self.step(observation, memory)
        return self.body.decode(self.body.clip(self.head.mode(outputs, self.body))), memory

    @property
    def sampling(self) -> Sampling:
        return Windows(self.length)

    def imitation_loss(self, batch: Batch, key: PRNGKeyArray) -> Float[Array, ""]:
        """Mean loss of the head over the real steps of windows [B, T]."""

        def window(observations: Any, actions: Any) -> Float[Array, " T"]:
            outputs, _ = self.unroll(observations, self.cell.start())
            return jax.vmap(lambda out, action: self.head.loss(out, self.body, self.body.code(action)))(outputs, actions)

        return masked_mean(jax.vmap(window)(batch.observation, batch.action), batch.mask)


def masked_mean(values: Float[Array, "B T"], mask: Bool[Array, "B T"] | Float[Array, "B T"] | None) -> Float[Array, ""]:
    """Mean over the entries where the mask is true; over all without a mask."""
    mask = jnp.ones_like(values) if mask is None else mask.astype(values.dtype)
    return (values * mask).sum() / jnp.maximum(mask.sum(), 1)
