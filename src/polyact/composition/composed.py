"""Denoising policies composed into one by mixing what they say of every noisy chunk (General Policy Composition, arXiv 2510.01068)."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from polyact.composition.scores import RULES, matched, mixed, superposed
from polyact.errors import PolyactError, unknown
from polyact.policies.base import AbstractVar, ChunkPolicy, Memory, Observation
from polyact.policies.generative.chain import denoise
from polyact.policies.generative.denoising import DenoisingPolicy
from polyact.policies.spec import Body


class FromParents(ChunkPolicy):
    """Chunks made of several policies' of one action space and horizon, each of which remembers its own past."""

    parents: AbstractVar[tuple[ChunkPolicy, ...]]

    @property
    def body(self) -> Body:
        return self.parents[0].body

    @property
    def horizon(self) -> int:
        return self.parents[0].horizon

    def start(self, key: PRNGKeyArray) -> Memory:
        return tuple(parent.start(key) for parent in self.parents)

    def observe(self, observation: Observation, memory: Memory) -> Memory:
        return tuple(parent.observe(observation, own) for parent, own in zip(self.parents, memory, strict=True))


class Composed(FromParents):
    """The first parent is the host: its path and sampler make the chunk; each parent sees with its own encoder.

    weights [n]: of the convex mix. rule: "convex"; or "or" and "and" (`composition.scores.superposed`), which find weights themselves.
    """

    parents: tuple[DenoisingPolicy, ...]
    weights: Float[Array, " n"]
    rule: str = eqx.field(static=True, default="convex")

    def __check_init__(self):
        if self.rule not in RULES:
            raise unknown("rule of composition", self.rule, RULES)
        shapes = {(parent.horizon, parent.body.continuous.width) for parent in self.parents}
        if len(shapes) != 1 or (isinstance(self.weights, jax.Array) and self.weights.shape != (len(self.parents),)):
            raise PolyactError(
                f"parents need one weight each and chunks of one shape, got {len(self.parents)} with shapes {shapes}"
            )

    def chunk(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Float[Array, "H ..."], Memory]:
        memory = self.observe(observation, memory)
        return jax.vmap(self.body.to_env)(self.unit_chunk(memory, key)), memory

    def unit_chunk(self, memory: Memory, key: PRNGKeyArray) -> Float[Array, "H A"]:
        """The chunk in unit coordinates, from the memories that hold the newest observation."""
        host = self.parents[0]
        first, rest = jax.random.split(key)
        fields = [
            matched(parent.clipped(parent.field(parent.condition(own))), parent.path, host.path)
            for parent, own in zip(self.parents, memory, strict=True)
        ]
        start = host.noise(first)
        if self.rule == "convex":
            unit = denoise(host.sampler, host.path, mixed(fields, self.weights), start, rest)
        else:
            unit = superposed(self.rule, fields, host.path, start, host.path.levels(host.sampler.steps), rest)
        return self.body.continuous.clip(unit)


class MeanOfChunks(FromParents):
    """The weighted mean of the chunks that the parents would play: what mixing actions instead of scores does."""

    parents: tuple[ChunkPolicy, ...]
    weights: Float[Array, " n"]

    def chunk(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Float[Array, "H ..."], Memory]:
        keys = jax.random.split(key, len(self.parents))
        made = [parent.chunk(observation, own, k) for parent, own, k in zip(self.parents, memory, keys, strict=True)]
        chunks = jnp.stack([chunk for chunk, _ in made])
        return jnp.tensordot(self.weights, chunks, 1), tuple(own for _, own in made)
