"""A finite game with hidden information, written down as arrays: every history is a node, the root comes first.

A game is given as a recursive description (`Chance`, `Choice`, payoffs) and laid out level by level, so that what is true of it
(`games/solve.py`) is computed by one sweep over levels.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from polyact.errors import PolyactError

CHANCE, END = -1, -2


@dataclass(frozen=True)
class Chance:
    """Nature moves: outcome k follows with a probability, and `follow(k)` is what is played then."""

    probabilities: Sequence[float]
    follow: Callable[[int], Any]


@dataclass(frozen=True)
class Choice:
    """A player moves. knows: what the player knows, equal for histories that look alike; actions: the legal ones, by number."""

    player: int
    knows: Hashable
    actions: Sequence[int]
    follow: Callable[[int], Any]


@dataclass(frozen=True)
class Tree:
    """N nodes, I information states, A actions, P players.

    parent [N], action [N]: how a node is reached (the root's are -1). player [N]: who moves, CHANCE or END. state [N]: number of
    the information state, -1 where nobody chooses. chance [N]: nature's probability of the step that leads here (1 for players).
    payoff [N, P]: at ends, else 0. level [D + 1]: nodes of depth d are level[d] .. level[d + 1] - 1. owner [I], depth [I],
    legal [I, A], names [I]: of the information states.
    """

    parent: Int[np.ndarray, " N"]
    action: Int[np.ndarray, " N"]
    player: Int[np.ndarray, " N"]
    state: Int[np.ndarray, " N"]
    chance: Float[np.ndarray, " N"]
    payoff: Float[np.ndarray, "N P"]
    level: Int[np.ndarray, " levels"]
    owner: Int[np.ndarray, " I"]
    depth: Int[np.ndarray, " I"]
    legal: Bool[np.ndarray, "I A"]
    names: tuple[Hashable, ...]

    @property
    def players(self) -> int:
        return self.payoff.shape[1]

    def uniform(self) -> Float[np.ndarray, "I A"]:
        """Every legal action equally likely."""
        return self.legal / self.legal.sum(1, keepdims=True)


def build(root: Any, players: int, actions: int) -> Tree:
    """Lay a game out. root: a Chance, a Choice, or the payoffs of an end.

    Raises PolyactError when histories of one information state have different legal actions or depths.
    """
    reached: list[tuple[int, int, float]] = [(-1, -1, 1.0)]  # parent, action, nature's probability
    moves: list[tuple[int, int]] = []  # who moves, in which information state
    payoff: list[np.ndarray] = []
    level, layer, states = [0], [root], _States(actions)
    while layer:
        following: list[Any] = []
        for here, node in enumerate(layer, start=level[-1]):
            mover, state, steps = _move(node, len(level) - 1, states)
            moves.append((mover, state))
            payoff.append(np.asarray(node, float) if mover == END else np.zeros(players))
            reached += [(here, k, probability) for k, probability in steps]
            following += [node.follow(k) for k, _ in steps]
        level.append(level[-1] + len(layer))
        layer = following
    parent, action, chance = map(np.array, zip(*reached, strict=True))
    player, state = map(np.array, zip(*moves, strict=True))
    return Tree(parent, action, player, state, chance, np.stack(payoff), np.array(level), *states.arrays())


def _move(node: Any, depth: int, states: _States) -> tuple[int, int, list[tuple[int, float]]]:
    """Who moves at a node, in which information state, and the steps that may follow with nature's probability of each."""
    match node:
        case Chance(probabilities=probabilities):
            return CHANCE, -1, [(k, float(p)) for k, p in enumerate(probabilities) if p > 0]
        case Choice(player=player):
            return player, states.number(node, depth), [(k, 1.0) for k in node.actions]
    return END, -1, []


class _States:
    """Information states, numbered as they are met."""

    def __init__(self, actions: int):
        self.actions = actions
        self.known: dict[tuple[int, Hashable], int] = {}
        self.depth: list[int] = []
        self.legal: list[np.ndarray] = []

    def number(self, choice: Choice, depth: int) -> int:
        found = self.known.setdefault((choice.player, choice.knows), len(self.known))
        legal = np.isin(np.arange(self.actions), list(choice.actions))
        if found == len(self.depth):
            self.depth.append(depth)
            self.legal.append(legal)
        if self.depth[found] != depth:
            raise PolyactError(
                f"information state {choice.knows!r} is met at different depths: its player would not know how long it played"
            )
        if np.any(self.legal[found] != legal):
            raise PolyactError(f"histories of information state {choice.knows!r} have different legal actions")
        return found

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[Hashable, ...]]:
        owners, names = zip(*self.known, strict=True)
        return np.array(owners), np.array(self.depth), np.stack(self.legal), names
