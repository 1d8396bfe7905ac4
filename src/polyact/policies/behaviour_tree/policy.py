"""A behaviour tree as a policy: leaves say what they know and what they would do, the tree decides which of them act."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from polyact.errors import PolyactError
from polyact.policies.base import Action, Memory, Observation, Policy, Reporting
from polyact.policies.behaviour_tree.arrays import TASK, Ticked, TreeArrays, TreeMemory, begin, compile_tree, tick
from polyact.policies.behaviour_tree.check import Fact, Vocabulary
from polyact.policies.behaviour_tree.recursive import RUNNING
from polyact.policies.behaviour_tree.syntax import Node, parse


class Offers(eqx.Module):
    """What the leaves say about one observation.

    facts [C]: a flag is 0 or 1. statuses [T]: what each task would return. actions [T, A...]: what it would do; writes [T, A...]:
    which entries of the action it sets. idle [A...]: the action where no ticked task sets anything.
    """

    facts: Float[Array, " C"]
    statuses: Int[Array, " T"]
    actions: Array
    writes: Bool[Array, "T ..."]
    idle: Array


class Leaves(eqx.Module):
    """The facts and tasks of a game. Rule nodes are functions of the observation; neural ones are networks or policies in fields."""

    @property
    @abstractmethod
    def vocabulary(self) -> Vocabulary:
        """Their names, in the order of their ids."""

    @abstractmethod
    def start(self, key: PRNGKeyArray) -> Memory:
        """What the leaves remember at the start of an episode."""

    @abstractmethod
    def offers(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Offers, Memory]:
        """What every leaf would do, and what each would remember if it acted."""

    @abstractmethod
    def remember(self, before: Memory, after: Memory, acted: Bool[Array, " T"]) -> Memory:
        """The new memory, once it is known which tasks were ticked."""


class BehaviourTree(Reporting):
    """Ticks a tree once per observation. Where several ticked tasks set the same entry of the action, the last one has it.

    Trees of one vocabulary have arrays of one shape: they share compiled programs, and stacked ones can be vmapped. Reports the
    nodes ticked at every step ("nodes" [N], breadth first) and the status of the root ("status").
    """

    tree: TreeArrays
    leaves: Leaves

    @classmethod
    def of(cls, tree: Node | str, leaves: Leaves) -> "BehaviourTree":
        """From a syntax tree or its text. Raises PolyactError when it is none or does not fit the leaves' vocabulary."""
        return cls(compile_tree(parse(tree) if isinstance(tree, str) else tree, leaves.vocabulary), leaves)

    def start(self, key: PRNGKeyArray) -> tuple[TreeMemory, Memory, Ticked]:
        memory = begin(self.tree)
        return memory, self.leaves.start(key), Ticked(jnp.asarray(RUNNING), jnp.zeros(memory.cursor.shape, bool))

    def act(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Action, Memory]:
        cursors, before, _ = memory
        offers, after = self.leaves.offers(observation, before, key)
        ticked, cursors = tick(self.tree, offers.facts, offers.statuses, cursors)
        acting = ticked.nodes & (self.tree.kind == TASK)
        acted = jnp.zeros(offers.statuses.shape, bool).at[self.tree.leaf].max(acting)
        return _action(self.tree, acting, offers), (cursors, self.leaves.remember(before, after, acted), ticked)

    def report(self, memory: Memory) -> dict[str, Array]:
        ticked = memory[2]
        return {"nodes": ticked.nodes, "status": ticked.status}


class PolicyLeaves(Leaves):
    """Whole policies as tasks, for trees that switch between them. A policy's task runs until the tree lets go of it.

    policies: by position, named `names`; each remembers only the steps at which it acted. There are no facts but "always".
    """

    names: tuple[str, ...] = eqx.field(static=True)
    policies: tuple[Policy, ...]

    def __check_init__(self):
        if len(self.names) != len(self.policies) or not self.names:
            raise PolyactError(f"every policy needs a name, got {len(self.names)} names for {len(self.policies)} policies")

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary({"always": Fact("holds")}, dict.fromkeys(self.names, "act by this policy"))

    def start(self, key: PRNGKeyArray) -> Memory:
        return tuple(policy.start(key) for policy in self.policies)

    def offers(self, observation: Observation, memory: Memory, key: PRNGKeyArray) -> tuple[Offers, Memory]:
        results = [policy.act(observation, kept, key) for policy, kept in zip(self.policies, memory, strict=True)]
        actions = jnp.stack([action for action, _ in results])
        statuses = jnp.full(len(results), RUNNING)
        offers = Offers(jnp.ones(1), statuses, actions, jnp.ones(actions.shape, bool), jnp.zeros_like(actions[0]))
        return offers, tuple(kept for _, kept in results)

    def remember(self, before: Memory, after: Memory, acted: Bool[Array, " T"]) -> Memory:
        def pick(place: int, old: Array, new: Array) -> Array:
            return jnp.where(acted[place], new, old)

        pairs = enumerate(zip(before, after, strict=True))
        return tuple(jax.tree.map(lambda old, new, place=place: pick(place, old, new), *pair) for place, pair in pairs)


def _action(tree: TreeArrays, acting: Bool[Array, " N"], offers: Offers) -> Action:
    """For every entry of the action: what the last acting task that sets it wants."""
    count = offers.idle.size
    writes = offers.writes.reshape(-1, count)[jnp.minimum(tree.leaf, len(offers.statuses) - 1)]  # [N, A]
    rank = jnp.where(acting[:, None] & writes, tree.order[:, None], -1)
    last = jnp.argmax(rank, axis=0)
    wanted = offers.actions.reshape(-1, count)[tree.leaf[last], jnp.arange(count)]
    return jnp.where(jnp.max(rank, axis=0) >= 0, wanted, offers.idle.reshape(-1)).reshape(offers.idle.shape)
