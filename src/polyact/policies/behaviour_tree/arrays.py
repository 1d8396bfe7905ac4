"""Behaviour trees as arrays: one compiled program ticks any tree of the same size, and `vmap` ticks thousands.

A tick needs no stack. What a node would return if it were ticked depends only on the board and the memory, so one bounded scan from the
last node to the first finds it for all nodes; which nodes really are ticked then follows from the root down.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from polyact.policies.behaviour_tree.check import Vocabulary, check
from polyact.policies.behaviour_tree.recursive import FAILURE, RUNNING, SUCCESS
from polyact.policies.behaviour_tree.syntax import KINDS, Node

SELECTOR, SEQUENCE, PARALLEL, INVERT, COOLDOWN, REPEAT, CONDITION, TASK = range(len(KINDS))
EMPTY = len(KINDS)  # the kind of unused rows


class TreeArrays(eqx.Module):
    """A tree of up to N nodes, breadth first, so that the children of a node are neighbours; node 0 is the root.

    kind [N]; first, count [N]: the first child and how many there are; leaf [N]: id of the fact or task; number [N]; parent [N] (of
    the root: itself); order [N]: place in the order of ticking. depth: no tree of this size has more levels.
    """

    kind: Int[Array, "*batch N"]
    first: Int[Array, "*batch N"]
    count: Int[Array, "*batch N"]
    leaf: Int[Array, "*batch N"]
    number: Int[Array, "*batch N"]
    parent: Int[Array, "*batch N"]
    order: Int[Array, "*batch N"]
    depth: int = eqx.field(static=True)


class TreeMemory(eqx.Module):
    """time: ticks so far. cursor [N]: the running child (selector, sequence), successes counted (repeat), the tick at which it is ready
    again (cooldown)."""

    time: Int[Array, "*batch"]
    cursor: Int[Array, "*batch N"]


class Ticked(eqx.Module):
    """status: of the root. nodes [N]: which nodes were ticked."""

    status: Int[Array, "*batch"]
    nodes: Bool[Array, "*batch N"]


def compile_tree(tree: Node, vocabulary: Vocabulary) -> TreeArrays:
    """The arrays of a tree, padded to the vocabulary's largest. Raises PolyactError when the tree does not fit it."""
    return TreeArrays(*map(jnp.asarray, _table(tree, vocabulary)), depth=vocabulary.depth)


def compile_trees(trees: Sequence[Node], vocabulary: Vocabulary) -> TreeArrays:
    """The same of several trees, stacked along a first axis."""
    tables = np.stack([_table(tree, vocabulary) for tree in trees], axis=1)
    return TreeArrays(*map(jnp.asarray, tables), depth=vocabulary.depth)


def begin(tree: TreeArrays) -> TreeMemory:
    """The memory before the first tick."""
    return TreeMemory(jnp.zeros((), jnp.int32), jnp.zeros_like(tree.kind))


def tick(tree: TreeArrays, facts: Float[Array, " C"], statuses: Int[Array, " T"], memory: TreeMemory) -> tuple[Ticked, TreeMemory]:
    """One tick: facts by id, and what each task would return. Equals `behaviour_tree.recursive.tick`."""
    size = tree.kind.shape[0]
    place = jnp.arange(size)
    holds = facts[jnp.minimum(tree.leaf, facts.shape[0] - 1)] >= tree.number
    asked = statuses[jnp.minimum(tree.leaf, statuses.shape[0] - 1)]
    own = jnp.where(tree.kind == TASK, asked, jnp.where(holds, SUCCESS, FAILURE)).astype(jnp.int32)

    def judge(status: Array, row: Any) -> tuple[Array, tuple[Array, Array, Array]]:
        kind, first, count, number, cursor, i = row
        ordered = (kind == SELECTOR) | (kind == SEQUENCE)
        begins = first + jnp.where(ordered, cursor, 0)
        child = (place >= first) & (place < first + count)
        going_on = jnp.where(kind == SELECTOR, FAILURE, SUCCESS)
        stops = jnp.min(jnp.where(child & (place >= begins) & (status != going_on), 4 * place + status, 4 * size))
        stopped = stops < 4 * size
        ends = jnp.where(stopped & ordered, stops // 4, first + count - 1)
        result = jnp.where(stopped, stops % 4, going_on)
        succeeded, failed = jnp.sum(child & (status == SUCCESS)), jnp.sum(child & (status == FAILURE))
        together = jnp.where(succeeded >= number, SUCCESS, jnp.where(failed > count - number, FAILURE, RUNNING))
        resting = (kind == COOLDOWN) & (memory.time < cursor)
        again = (kind == REPEAT) & (result == SUCCESS) & (cursor + 1 < number)
        inverted = jnp.where(result == RUNNING, RUNNING, 1 - result)
        inner = jnp.where(kind == PARALLEL, together, jnp.where(kind == INVERT, inverted, result))
        inner = jnp.where(resting, FAILURE, jnp.where(again, RUNNING, inner)).astype(jnp.int32)
        status = jnp.where((place == i) & (count > 0), inner, status)
        resumed = jnp.where(ordered & (result == RUNNING), ends - first, 0)
        counted = jnp.where(again, cursor + 1, jnp.where(result == RUNNING, cursor, 0))
        ready = jnp.where(~resting & (result == SUCCESS), memory.time + 1 + number, cursor)
        after = jnp.where(kind == REPEAT, counted, jnp.where(kind == COOLDOWN, ready, resumed))
        return status, (begins, jnp.where(resting, -1, ends), after)

    rows = (tree.kind, tree.first, tree.count, tree.number, memory.cursor, place)
    status, (begins, ends, after) = jax.lax.scan(judge, own, rows, reverse=True)
    chosen = (place >= begins[tree.parent]) & (place <= ends[tree.parent])
    finished = (tree.kind == PARALLEL) & (status != RUNNING)

    def down(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        ticked, halted = carry
        ticked = (place == 0) | (chosen & ticked[tree.parent])
        return ticked, (place > 0) & (halted | (ticked & finished))[tree.parent]

    nothing = jnp.zeros(size, bool)
    ticked, halted = jax.lax.fori_loop(0, tree.depth, down, (nothing, nothing))
    ticked &= tree.kind != EMPTY
    cursor = jnp.where(ticked, after, memory.cursor)
    cursor = jnp.where(halted & (tree.kind != COOLDOWN), 0, cursor)
    return Ticked(status[0], ticked), TreeMemory(memory.time + 1, cursor)


def _table(tree: Node, vocabulary: Vocabulary) -> np.ndarray:
    """The rows of `TreeArrays` [7, N]."""
    check(tree, vocabulary)
    ids = {"condition": list(vocabulary.facts), "task": list(vocabulary.tasks)}
    table = np.zeros((7, vocabulary.nodes), np.int32)
    table[0] = EMPTY
    queue = [(tree, 0, 0)]
    for place, (node, parent, order) in enumerate(queue):  # the queue grows while it is walked
        leaf = ids[node.kind].index(node.name) if node.name else 0
        number = 1 if node.number is None else node.number
        table[:, place] = KINDS.index(node.kind), len(queue), len(node.children), leaf, number, parent, order
        order += 1
        for child in node.children:
            queue.append((child, place, order))
            order += sum(1 for _ in child.walk())
    return table
