"""An actor beside its critic, as policy-gradient learners need them: with and without a recurrent memory.

A trajectory is cut into units that can be shuffled: single steps when nothing is remembered, whole sequences of one environment
otherwise. `judge` says of one unit what the present networks think of it.
"""

from abc import abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from polyact.errors import PolyactError
from polyact.learning.actor import Actor, GaussianOrCategorical
from polyact.learning.base import Decision, Trajectory
from polyact.nets.layers import Linear
from polyact.nets.mlp import MLP, Network
from polyact.nets.recurrent import Cell
from polyact.policies.base import EntropicPolicy, Memory, Policy
from polyact.policies.heads import CategoricalHead, GaussianHead
from polyact.policies.normalise import Normaliser
from polyact.policies.recurrent import Recurrent
from polyact.policies.spec import Body, Spec

if TYPE_CHECKING:
    from typing import ClassVar as AbstractVar  # a type checker would take an AbstractVar for an argument of every __init__
else:
    from equinox import AbstractVar


class Judgement(eqx.Module):
    """Of the recorded actions of a unit: log_prob, entropy of the choice, and value of the observation; scalars, or [T]."""

    log_prob: Array
    entropy: Array
    value: Array


class ActorCritic(eqx.Module):
    """A policy and a value function over the same observations. Values are the critic's own numbers, whatever their unit."""

    actor: AbstractVar[Policy]

    @property
    @abstractmethod
    def body(self) -> Body:
        """Whose observations and actions these are."""

    @abstractmethod
    def start(self, key: PRNGKeyArray) -> Memory:
        """What both remember at the start of an episode."""

    @abstractmethod
    def act(self, observation: Any, memory: Memory, key: PRNGKeyArray) -> tuple[Decision, Memory]:
        """A sampled action with its log probability and the value of the observation."""

    @abstractmethod
    def following_values(self, trajectory: Trajectory) -> Float[Array, "T N"]:
        """The value of the observation that each step reached."""

    @abstractmethod
    def units(self, trajectory: Trajectory, columns: PyTree) -> PyTree:
        """(trajectory, columns [T, N, ...]) cut into units: every array gets a leading axis of units."""

    @abstractmethod
    def judge(self, unit: Trajectory) -> Judgement:
        """What the networks say now about one unit."""


class Memoryless(ActorCritic):
    """Acts on single observations; a unit is one step."""

    actor: EntropicPolicy
    critic: MLP

    @property
    def body(self) -> Body:
        return self.actor.body  # pyright: ignore[reportAttributeAccessIssue]

    def start(self, key: PRNGKeyArray) -> Memory:
        return None

    def act(self, observation: Any, memory: Memory, key: PRNGKeyArray) -> tuple[Decision, Memory]:
        action, log_prob = self.actor.sample_and_log_prob(observation, key)
        return Decision(action, log_prob, self._value(observation)), memory

    def following_values(self, trajectory: Trajectory) -> Float[Array, "T N"]:
        return jax.vmap(jax.vmap(self._value))(trajectory.next_observation)

    def units(self, trajectory: Trajectory, columns: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), (trajectory, columns))

    def judge(self, unit: Trajectory) -> Judgement:
        log_prob = self.actor.log_prob(unit.observation, unit.action)
        return Judgement(log_prob, self.actor.entropy(unit.observation), self._value(unit.observation))

    def _value(self, observation: Any) -> Float[Array, ""]:
        return self.critic(self.body.features(observation))[0]


class RecurrentCritic(eqx.Module):
    """observation features -> network -> cell -> value."""

    network: MLP
    cell: Cell
    out: Linear

    def __call__(self, features: Float[Array, " O"], memory: PyTree) -> tuple[Float[Array, ""], PyTree]:
        hidden, memory = self.cell(self.network(features), memory)
        return self.out(hidden)[0], memory


class Remembering(ActorCritic):
    """Actor and critic with memories of their own; a unit is the sequence of one environment, from the memory it began with."""

    actor: Recurrent
    critic: RecurrentCritic

    @property
    def body(self) -> Body:
        return self.actor.body

    def start(self, key: PRNGKeyArray) -> Memory:
        return self.actor.start(key), self.critic.cell.start()

    def act(self, observation: Any, memory: Memory, key: PRNGKeyArray) -> tuple[Decision, Memory]:
        outputs, remembered = self.actor.step(observation, memory[0])
        code, log_prob = self.actor.head.sample_and_log_prob(outputs, self.body, key)  # pyright: ignore[reportAttributeAccessIssue]
        value, memory = self.critic(self.body.features(observation), memory[1])
        return Decision(self.body.decode(code), log_prob - self.body.log_volume(), value), (remembered, memory)

    def following_values(self, trajectory: Trajectory) -> Float[Array, "T N"]:
        def sequence(observation: Any, following: Any, start: Array, memory: PyTree) -> Float[Array, " T"]:
            _, memories = self._unroll(observation, start, memory)
            return jax.vmap(lambda o, m: self.critic(self.body.features(o), m)[0])(following, memories)

        axes = (1, 1, 1, 0)
        columns = (trajectory.observation, trajectory.next_observation, trajectory.start, trajectory.memory[1])
        return jax.vmap(sequence, axes, 1)(*columns)

    def units(self, trajectory: Trajectory, columns: PyTree) -> PyTree:
        swapped = eqx.tree_at(lambda t: t.memory, trajectory, None)
        swapped, columns = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), (swapped, columns))
        return eqx.tree_at(lambda t: t.memory, swapped, trajectory.memory, is_leaf=lambda leaf: leaf is None), columns

    def judge(self, unit: Trajectory) -> Judgement:
        outputs, _ = self.actor.unroll(unit.observation, unit.memory[0], unit.start)
        log_prob = jax.vmap(self.actor.log_prob)(outputs, unit.action)
        entropy = jax.vmap(lambda out: self.actor.head.entropy(out, self.body))(outputs)  # pyright: ignore[reportAttributeAccessIssue]
        return Judgement(log_prob, entropy, self._unroll(unit.observation, unit.start, unit.memory[1])[0])

    def _unroll(self, observations: Any, start: Array, memory: PyTree) -> tuple[Float[Array, " T"], PyTree]:
        """Values at every step, and the memory after every step."""

        def step(memory: PyTree, now: Any) -> tuple[PyTree, Any]:
            memory = jax.tree.map(lambda empty, kept: jnp.where(now[1], empty, kept), self.critic.cell.start(), memory)
            value, memory = self.critic(now[0], memory)
            return memory, (value, memory)

        return jax.lax.scan(step, memory, (jax.vmap(self.body.features)(observations), start))[1]


def build_actor_critic(actor: Actor | None, network: Network, spec: Spec, key: PRNGKeyArray) -> ActorCritic:
    """`actor` (default: Gaussian for continuous actions and categorical for others, on `network`, starting from small outputs) and a
    critic on `network`, with memory where the actor has one. PolyactError for an actor whose entropy is not known.
    """
    actor_key, critic_key = jax.random.split(key)
    if actor is None:
        actor = Actor(GaussianOrCategorical, replace(network, final_scale=0.01 * network.final_scale))
    policy = actor.build(spec, actor_key)
    if isinstance(policy, EntropicPolicy):
        return Memoryless(policy, network.build(spec.observation_width, 1, critic_key))
    if isinstance(policy, Recurrent) and isinstance(policy.head, GaussianHead | CategoricalHead):
        embed, remember, out = jax.random.split(critic_key, 3)
        cell = type(policy.cell).build(network.width, network.width, remember)  # pyright: ignore[reportAttributeAccessIssue]
        inside = network.build(spec.observation_width, network.width, embed)
        return Remembering(policy, RecurrentCritic(inside, cell, Linear.build(network.width, 1, out)))
    raise PolyactError(
        f"policy gradients need an actor whose entropy is known (Gaussian, Categorical, Recurrent), got {type(policy).__name__}"
    )


def with_normaliser(model: ActorCritic, normaliser: Normaliser) -> ActorCritic:
    """The same networks behind other observation statistics."""
    return eqx.tree_at(lambda m: m.actor.body.normaliser, model, normaliser)
