"""What a behaviour tree may speak of, and whether it does: names, numbers and sizes, checked before anything runs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from polyact.errors import PolyactError, unknown
from polyact.policies.behaviour_tree.syntax import GRAMMAR, Node

LONGEST_REST = 99  # of a cooldown, in ticks, and of a repeat, in times


@dataclass(frozen=True)
class Fact:
    """Something a condition can ask. A flag has no bounds; a measure is a whole number in low .. high."""

    about: str
    low: int | None = None
    high: int | None = None

    @property
    def flag(self) -> bool:
        return self.low is None


@dataclass(frozen=True)
class Vocabulary:
    """The facts and tasks of a game, by name; positions in these tables are the leaf ids. nodes, depth: the largest tree allowed."""

    facts: Mapping[str, Fact]
    tasks: Mapping[str, str]
    nodes: int = 32
    depth: int = 6

    def describe(self) -> str:
        """The language as a proposer is told it."""
        facts = [
            f"  {name}{'' if fact.flag else f' ({fact.low} .. {fact.high})'}: {fact.about}" for name, fact in self.facts.items()
        ]
        tasks = [f"  {name}: {about}" for name, about in self.tasks.items()]
        limits = f"At most {self.nodes} nodes in {self.depth} levels."
        return "\n".join([GRAMMAR, "facts:", *facts, "tasks:", *tasks, limits])

    def without(self, *tasks: str) -> "Vocabulary":
        """The same game with fewer tasks. Only for writing trees: the ids of the tasks after a missing one are others."""
        kept = {name: about for name, about in self.tasks.items() if name not in tasks}
        return Vocabulary(self.facts, kept, self.nodes, self.depth)


def check(tree: Node, vocabulary: Vocabulary) -> Node:
    """The tree itself. Raises PolyactError, which lists what is wrong and where, when it does not fit the vocabulary."""
    wrong = [f"{path}: {error}" for path, node in _paths(tree, tree.kind) for error in _errors(node, vocabulary)]
    count = sum(1 for _ in tree.walk())
    if count > vocabulary.nodes:
        wrong.append(f"the tree has {count} nodes, at most {vocabulary.nodes} are allowed")
    if tree.depth > vocabulary.depth:
        wrong.append(f"the tree has {tree.depth} levels, at most {vocabulary.depth} are allowed")
    if wrong:
        raise PolyactError("; ".join(wrong))
    return tree


def _paths(node: Node, path: str) -> Iterator[tuple[str, Node]]:
    yield path, node
    for number, child in enumerate(node.children, 1):
        yield from _paths(child, f"{path}/{number}.{child.kind}")


def _errors(node: Node, vocabulary: Vocabulary) -> Iterator[str]:
    number = node.number
    if node.kind == "task" and node.name not in vocabulary.tasks:
        yield str(unknown("task", node.name, vocabulary.tasks))
    if node.kind == "condition":
        yield from _condition_errors(node, vocabulary)
    if node.kind == "parallel" and number is not None and not 1 <= number <= len(node.children):
        yield f"between 1 and {len(node.children)} children can be asked to succeed, got {number}"
    if node.kind in ("cooldown", "repeat") and number is not None and not 1 <= number <= LONGEST_REST:
        yield f"the number must lie in 1 .. {LONGEST_REST}, got {number}"


def _condition_errors(node: Node, vocabulary: Vocabulary) -> Iterator[str]:
    fact = vocabulary.facts.get(node.name)
    if fact is None:
        yield str(unknown("fact", node.name, vocabulary.facts))
    elif fact.low is None or fact.high is None:
        if node.number is not None:
            yield f"'{node.name}' holds or not and takes no number, got {node.number}"
    elif node.number is None:
        yield f"'{node.name}' needs a number in {fact.low} .. {fact.high}"
    elif not fact.low <= node.number <= fact.high:
        yield f"'{node.name}' takes a number in {fact.low} .. {fact.high}, got {node.number}"
