"""Behaviour trees as text: an S-expression language, its syntax tree, and the way back to text.

    (selector
      (sequence (condition enemy-visible) (invert (condition enemy-distance 6)) (task fire))
      (cooldown 5 (task dodge))
      (task advance))

A tree that was read and is written again is the same text, up to white space.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from polyact.errors import PolyactError, unknown


@dataclass(frozen=True)
class Form:
    """What follows the word of a kind of node: a name or not, a number or not, and between `least` and `most` children.

    `number`: what the number means, empty when there is none; `optional`: it may be left out.
    """

    name: bool
    number: str
    least: int
    most: int | None
    optional: bool = False


Kind = Literal["selector", "sequence", "parallel", "invert", "cooldown", "repeat", "condition", "task"]
FORMS: dict[str, Form] = {
    "selector": Form(False, "", 1, None),
    "sequence": Form(False, "", 1, None),
    "parallel": Form(False, "how many children must succeed", 1, None),
    "invert": Form(False, "", 1, 1),
    "cooldown": Form(False, "ticks of rest after a success", 1, 1),
    "repeat": Form(False, "successes in all", 1, 1),
    "condition": Form(True, "what the fact must at least be", 0, 0, optional=True),
    "task": Form(True, "", 0, 0),
}
KINDS = tuple(FORMS)

GRAMMAR = """\
tree      := (selector tree ...)      the first child that does not fail
           | (sequence tree ...)      every child in order, until one fails
           | (parallel N tree ...)    every child at once; success when N succeed, failure when that has become impossible
           | (invert tree)            success and failure exchanged
           | (cooldown N tree)        after a success, failure for N ticks
           | (repeat N tree)          running until the child has succeeded N times
           | (condition FACT)         success while the fact holds
           | (condition FACT N)       success while the fact is at least N
           | (task TASK)              act"""


@dataclass(frozen=True)
class Node:
    """One node. name: of the fact or task of a leaf; number: as in `FORMS`. Raises PolyactError when they do not fit the kind."""

    kind: Kind
    name: str = ""
    number: int | None = None
    children: tuple["Node", ...] = ()

    def __post_init__(self):
        form = FORMS[self.kind]
        if bool(self.name) != form.name:
            raise PolyactError(f"({self.kind} ...) {'needs the name of a ' + _named(self.kind) if form.name else 'takes no name'}")
        if self.number is None and form.number and not form.optional:
            raise PolyactError(f"({self.kind} ...) needs a number ({form.number})")
        if self.number is not None and not form.number:
            raise PolyactError(f"({self.kind} ...) takes no number, got {self.number}")
        count = len(self.children)
        if count < form.least or (form.most is not None and count > form.most):
            wanted = {0: "no children", 1: "one child"}[form.most] if form.most is not None else "at least one child"
            raise PolyactError(f"({self.kind} ...) takes {wanted}, got {count}")

    def walk(self) -> Iterator["Node"]:
        """This node and all below it, in the order in which they are written (and ticked)."""
        yield self
        for child in self.children:
            yield from child.walk()

    @property
    def depth(self) -> int:
        """Levels of the tree; a leaf has one."""
        return 1 + max((child.depth for child in self.children), default=0)


def parse(text: str) -> Node:
    """The tree that a text describes. Raises PolyactError with line and column for anything that is not exactly one tree."""
    tokens = [(match.group(), match.start()) for match in re.finditer(r"[()]|[^\s()]+", text)]
    if not tokens:
        raise PolyactError("a behaviour tree is expected, got an empty text")
    node, end = _node(text, tokens, 0)
    if end < len(tokens):
        raise PolyactError(f"{_place(text, tokens[end][1])}: '{tokens[end][0]}' after the end of the tree")
    return node


def unparse(node: Node) -> str:
    """The tree in one line."""
    return f"({' '.join([_head(node), *map(unparse, node.children)])})"


def pretty(node: Node, indent: int = 0) -> str:
    """The tree over several lines, one per leaf or branch; `parse` reads it back."""
    line = unparse(node)
    if all(not child.children for child in node.children) and len(line) + indent <= 80:
        return " " * indent + line
    return "\n".join([f"{' ' * indent}({_head(node)}", *(pretty(child, indent + 2) for child in node.children)]) + ")"


def to_json(node: Node) -> dict[str, Any]:
    """The tree as nested JSON objects, for engines that tick it themselves; what a node does not have is left out."""
    fields = {"kind": node.kind, "name": node.name, "number": node.number, "children": [to_json(c) for c in node.children]}
    return {key: value for key, value in fields.items() if value not in ("", None, [])}


def _head(node: Node) -> str:
    return " ".join([node.kind, *([node.name] if node.name else []), *([] if node.number is None else [str(node.number)])])


def _node(text: str, tokens: list[tuple[str, int]], at: int) -> tuple[Node, int]:
    """The node that begins at a token, and the token after it."""
    start = tokens[at][1]
    if tokens[at][0] != "(":
        raise PolyactError(f"{_place(text, start)}: '(' expected, got '{tokens[at][0]}'")
    words: list[str] = []
    children: list[Node] = []
    at += 1
    while at < len(tokens) and tokens[at][0] != ")":
        if tokens[at][0] == "(":
            child, at = _node(text, tokens, at)
            children.append(child)
        elif children:
            raise PolyactError(f"{_place(text, tokens[at][1])}: '{tokens[at][0]}' after the children of a node")
        else:
            words.append(tokens[at][0])
            at += 1
    if at == len(tokens):
        raise PolyactError(f"{_place(text, start)}: this '(' is never closed")
    try:
        return _built(words, tuple(children)), at + 1
    except PolyactError as error:
        raise PolyactError(f"{_place(text, start)}: {error}") from None


def _built(words: list[str], children: tuple[Node, ...]) -> Node:
    if not words:
        raise PolyactError(f"a kind of node is expected after '(' ({', '.join(KINDS)})")
    kind, *rest = words
    if kind not in FORMS:
        raise unknown("kind of node", kind, FORMS)
    name = rest.pop(0) if FORMS[kind].name and rest else ""
    number = rest.pop(0) if rest else None
    if rest:
        raise PolyactError(f"({kind} ...) does not expect '{rest[0]}'")
    if number is not None and not re.fullmatch(r"0|[1-9][0-9]{0,8}", number):
        raise PolyactError(f"({kind} ...) expects a whole number, got '{number}'")
    return Node(kind, name, None if number is None else int(number), children)  # pyright: ignore[reportArgumentType]


def _named(kind: str) -> str:
    return "fact" if kind == "condition" else "task"


def _place(text: str, offset: int) -> str:
    before = text[:offset]
    return f"line {before.count(chr(10)) + 1}, column {offset - before.rfind(chr(10))}"
