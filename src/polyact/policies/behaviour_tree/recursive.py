"""What a tick of a behaviour tree means, as plain recursion over the syntax tree.

This is the definition; `behaviour_tree.arrays` computes the same for many trees and many games at once.

A tick returns success, failure or running. A selector or sequence whose child is running goes on with that child at the next tick
instead of beginning anew. A parallel ticks every child every time; when it finishes, what still runs below it is halted and will begin
anew. Cooldowns are measured in ticks of the whole tree and survive a halt.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from polyact.policies.behaviour_tree.syntax import Node

SUCCESS, FAILURE, RUNNING = 0, 1, 2

Path = tuple[int, ...]


@dataclass
class Memory:
    """time: ticks so far. resume: the running child of selectors and sequences, and the successes a repeat has counted, by path of
    the node (child numbers from the root). ready: the tick at which a cooldown is over. ticked: nodes visited at the last tick."""

    time: int = 0
    resume: dict[Path, int] = field(default_factory=dict)
    ready: dict[Path, int] = field(default_factory=dict)
    ticked: list[Path] = field(default_factory=list)


def tick(tree: Node, facts: Mapping[str, float], statuses: Mapping[str, int], memory: Memory) -> int:
    """One tick, with what facts there are and what each task would return; `memory` is changed in place."""
    memory.ticked = []
    status = _tick(tree, (facts, statuses), memory, ())
    memory.time += 1
    return status


def _tick(node: Node, board: tuple[Mapping[str, float], Mapping[str, int]], memory: Memory, path: Path) -> int:
    memory.ticked.append(path)
    facts, statuses = board
    match node.kind:
        case "condition":
            return SUCCESS if facts[node.name] >= (1 if node.number is None else node.number) else FAILURE
        case "task":
            return statuses[node.name]
        case "selector" | "sequence":
            return _in_order(node, board, memory, path)
        case "parallel":
            results = [_tick(child, board, memory, (*path, number)) for number, child in enumerate(node.children)]
            succeeded, failed, needed = results.count(SUCCESS), results.count(FAILURE), node.number or 0
            if succeeded < needed and failed <= len(results) - needed:
                return RUNNING
            memory.resume = {at: value for at, value in memory.resume.items() if at[: len(path)] != path}
            return SUCCESS if succeeded >= needed else FAILURE
    if node.kind == "cooldown" and memory.time < memory.ready.get(path, 0):
        return FAILURE
    status, number = _tick(node.children[0], board, memory, (*path, 0)), node.number or 0
    match node.kind:
        case "invert":
            return {SUCCESS: FAILURE, FAILURE: SUCCESS, RUNNING: RUNNING}[status]
        case "cooldown":
            if status == SUCCESS:
                memory.ready[path] = memory.time + 1 + number
            return status
        case "repeat":
            counted = memory.resume.pop(path, 0) + (status == SUCCESS)
            if status == FAILURE or counted == number:
                return status
            memory.resume[path] = counted
            return RUNNING


def _in_order(node: Node, board: tuple[Mapping[str, float], Mapping[str, int]], memory: Memory, path: Path) -> int:
    going_on = FAILURE if node.kind == "selector" else SUCCESS
    for number in range(memory.resume.pop(path, 0), len(node.children)):
        status = _tick(node.children[number], board, memory, (*path, number))
        if status == RUNNING:
            memory.resume[path] = number
        if status != going_on:
            return status
    return going_on
