"""Random behaviour trees and random changes to them, always within a vocabulary: what proposes trees where no language model does."""

import random
from dataclasses import replace

from polyact.errors import PolyactError
from polyact.policies.behaviour_tree.check import Vocabulary, check
from polyact.policies.behaviour_tree.syntax import Node

WIDEST = 4  # children of a random composite
ATTEMPTS = 100
Path = tuple[int, ...]


def random_tree(vocabulary: Vocabulary, rng: random.Random) -> Node:
    """A tree from the grammar: composites near the root, leaves below, every choice by chance.

    Raises PolyactError when the limits of the vocabulary leave no room.
    """
    for _ in range(ATTEMPTS):
        tree = _grown(vocabulary, rng, rng.randint(2, vocabulary.depth))
        if _fits(tree, vocabulary):
            return tree
    raise PolyactError(f"no random tree of at most {vocabulary.nodes} nodes in {vocabulary.depth} levels was found")


def random_edit(tree: Node, vocabulary: Vocabulary, rng: random.Random) -> Node:
    """The tree with one change: a subtree replaced, inserted, removed, moved or wrapped, a leaf renamed, or a number moved.

    Raises PolyactError when no change was found that fits the vocabulary, which takes a vocabulary without alternatives.
    """
    for _ in range(ATTEMPTS):
        changed = rng.choice(_EDITS)(tree, vocabulary, rng)
        if changed is not None and changed != tree and _fits(changed, vocabulary):
            return changed
    raise PolyactError("no random change of this tree fits its vocabulary")


def at(tree: Node, path: Path) -> Node:
    """The node that a path of child numbers leads to."""
    for number in path:
        tree = tree.children[number]
    return tree


def put(tree: Node, path: Path, node: Node) -> Node:
    """The tree with another node at the end of a path."""
    if not path:
        return node
    children = list(tree.children)
    children[path[0]] = put(children[path[0]], path[1:], node)
    return replace(tree, children=tuple(children))


def paths(tree: Node, path: Path = ()) -> list[Path]:
    """All paths of a tree, the root's first."""
    return [path] + [deeper for number, child in enumerate(tree.children) for deeper in paths(child, (*path, number))]


def _grown(vocabulary: Vocabulary, rng: random.Random, depth: int) -> Node:
    if depth <= 1 or rng.random() < 0.15:
        return _leaf(vocabulary, rng)
    kind = rng.choices(("selector", "sequence", "parallel", "invert", "cooldown", "repeat"), (5, 6, 4, 1, 1, 0.5))[0]
    if kind in ("invert", "cooldown", "repeat"):
        return _decorated(kind, _grown(vocabulary, rng, depth - 1), rng)
    children = tuple(_grown(vocabulary, rng, depth - 1) for _ in range(rng.randint(2, WIDEST)))
    return Node(kind, number=rng.randint(1, len(children)) if kind == "parallel" else None, children=children)


def _leaf(vocabulary: Vocabulary, rng: random.Random) -> Node:
    if rng.random() < 0.6:
        return Node("task", rng.choice(list(vocabulary.tasks)))
    name, fact = rng.choice(list(vocabulary.facts.items()))
    node = Node("condition", name, None if fact.low is None or fact.high is None else rng.randint(fact.low, fact.high))
    return Node("invert", children=(node,)) if rng.random() < 0.2 else node


def _decorated(kind: str, child: Node, rng: random.Random) -> Node:
    if kind == "invert":
        return Node("invert", children=(child,))
    return Node("cooldown" if kind == "cooldown" else "repeat", number=rng.randint(1, 8), children=(child,))


def _replace(tree: Node, vocabulary: Vocabulary, rng: random.Random) -> Node | None:
    return put(tree, rng.choice(paths(tree)), _grown(vocabulary, rng, rng.randint(1, 3)))


def _rename(tree: Node, vocabulary: Vocabulary, rng: random.Random) -> Node | None:
    return put(tree, rng.choice([path for path in paths(tree) if not at(tree, path).children]), _leaf(vocabulary, rng))


def _insert(tree: Node, vocabulary: Vocabulary, rng: random.Random) -> Node | None:
    path = _composite(tree, rng)
    if path is None:
        return None
    node = at(tree, path)
    place = rng.randint(0, len(node.children))
    children = (*node.children[:place], _grown(vocabulary, rng, rng.randint(1, 3)), *node.children[place:])
    return put(tree, path, replace(node, children=children))


def _remove(tree: Node, vocabulary: Vocabulary, rng: random.Random) -> Node | None:
    path = _composite(tree, rng)
    if path is None or len(at(tree, path).children) < 2:
        return None
    node = at(tree, path)
    place = rng.randrange(len(node.children))
    children = node.children[:place] + node.children[place + 1 :]
    number = None if node.number is None else min(node.number, len(children))
    return put(tree, path, replace(node, children=children, number=number))


def _move(tree: Node, vocabulary: Vocabulary, rng: random.Random) -> Node | None:
    path = _composite(tree, rng)
    if path is None or len(at(tree, path).children) < 2:
        return None
    node = at(tree, path)
    one, other = rng.sample(range(len(node.children)), 2)
    children = list(node.children)
    children[one], children[other] = children[other], children[one]
    return put(tree, path, replace(node, children=tuple(children)))


def _wrap(tree: Node, vocabulary: Vocabulary, rng: random.Random) -> Node | None:
    path = rng.choice(paths(tree))
    node = at(tree, path)
    kind = rng.choice(("selector", "sequence", "parallel", "invert", "cooldown", "repeat"))
    if kind in ("invert", "cooldown", "repeat"):
        return put(tree, path, _decorated(kind, node, rng))
    pair = (_grown(vocabulary, rng, rng.randint(1, 2)), node)
    children = pair if rng.random() < 0.7 else pair[::-1]
    return put(tree, path, Node(kind, number=1 if kind == "parallel" else None, children=children))


def _unwrap(tree: Node, vocabulary: Vocabulary, rng: random.Random) -> Node | None:
    branches = [path for path in paths(tree) if at(tree, path).children]
    if not branches:
        return None
    path = rng.choice(branches)
    return put(tree, path, rng.choice(at(tree, path).children))


def _renumber(tree: Node, vocabulary: Vocabulary, rng: random.Random) -> Node | None:
    numbered = [path for path in paths(tree) if at(tree, path).number is not None]
    if not numbered:
        return None
    path = rng.choice(numbered)
    node = at(tree, path)
    return put(tree, path, replace(node, number=max(0, (node.number or 0) + rng.choice((-3, -2, -1, 1, 2, 3)))))


def _composite(tree: Node, rng: random.Random) -> Path | None:
    found = [path for path in paths(tree) if at(tree, path).kind in ("selector", "sequence", "parallel")]
    return rng.choice(found) if found else None


def _fits(tree: Node, vocabulary: Vocabulary) -> bool:
    try:
        check(tree, vocabulary)
    except PolyactError:
        return False
    return True


_EDITS = (_replace, _rename, _rename, _insert, _insert, _remove, _move, _wrap, _unwrap, _renumber)
