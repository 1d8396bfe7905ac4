"""Proposes behaviour trees without a language model: a grammar at first, then edits chosen by what a run has taught so far.

It reads the same prompts as a language model would (`learning.refine.feedback`) and learns from them alone, at every call anew: which
words to add or remove, given what the statistics say about how the tree played that is to be changed. What a critic calls never ticked is
cut off first, since changing it would change nothing.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, PRNGKeyArray

from polyact.learning.refine import Text, Told, chances, read
from polyact.policies.behaviour_tree.check import Vocabulary
from polyact.policies.behaviour_tree.sample import at, paths, put, random_edit, random_tree
from polyact.policies.behaviour_tree.syntax import Node, parse, unparse


@dataclass(frozen=True)
class TreeEditor:
    """Bayesian linear regression of the gain of an edit, and Thompson sampling from it.

    An edit is what it adds to the tree's counts of words; its gain may depend on the facts of the tree that was edited. first: random
    trees before any edit; candidates: edits that are looked at for each one proposed; parents: best trees that are edited; noise, prior:
    standard deviations of a score, and of a word's effect on it.
    """

    vocabulary: Vocabulary
    first: int = 30
    candidates: int = 30
    parents: int = 8
    noise: float = 0.08
    prior: float = 0.03

    def propose(
        self, messages: str, key: PRNGKeyArray, n: int, temperature: float = 1.0, stop: Sequence[str] = ()
    ) -> Sequence[Text]:
        """`n` trees as text. temperature: of the posterior that edits are drawn from; 0 takes its mean."""
        told, _ = read(messages)
        chance = chances(key)
        if len(told) < self.first:
            return [Text(unparse(random_tree(self.vocabulary, chance))) for _ in range(n)]
        best = sorted(told.values(), key=lambda trial: -trial.score)[: self.parents]
        trees = [ticked(trial) for trial in best]
        edits: dict[str, tuple[int, Node]] = {}
        for _ in range(n * self.candidates):
            place = min(int(chance.expovariate(1.0)), len(trees) - 1)
            child = trees[place]
            for _ in range(chance.choice((1, 1, 2))):
                child = (
                    self._crossed(child, trees, chance) if chance.random() < 0.15 else random_edit(child, self.vocabulary, chance)
                )
            edits[unparse(child)] = (place, child)
        tried = {trial.text for trial in told.values()}
        fresh = [(text, place, child) for text, (place, child) in edits.items() if text not in tried]
        rows = np.stack([self._row(child, trees[place], best[place]) for _, place, child in fresh])
        gain = self._drawn(rows, list(told.values()), told, temperature, chance.getrandbits(32))
        value = gain + np.array([best[place].score for _, place, _ in fresh])
        return [Text(fresh[i][0]) for i in np.argsort(-value)[:n]]

    def _crossed(self, tree: Node, others: Sequence[Node], chance: random.Random) -> Node:
        """With a subtree of another good tree, where that fits; else edited by chance."""
        donor = chance.choice(others)
        child = put(tree, chance.choice(paths(tree)), at(donor, chance.choice(paths(donor))))
        fits = sum(1 for _ in child.walk()) <= self.vocabulary.nodes and child.depth <= self.vocabulary.depth
        return child if fits and child != tree else random_edit(tree, self.vocabulary, chance)

    def _row(self, child: Node, parent: Node, told: Told) -> Float[np.ndarray, " D"]:
        """What the regression sees of an edit: the words it adds, alone and times each fact of the parent (centred at one half)."""
        added = self._words(child) - self._words(parent)
        facts = np.clip(np.array([1.0, *(2 * value - 1 for value in told.facts.values())]), -1, 1)
        return np.outer(facts, added).reshape(-1)

    def _words(self, tree: Node) -> Float[np.ndarray, " W"]:
        names = ["selector", "sequence", "parallel", "invert", "cooldown", "repeat"]
        names += [f"condition {name}" for name in self.vocabulary.facts] + [f"task {name}" for name in self.vocabulary.tasks]
        counts = dict.fromkeys(names, 0.0)
        for node in tree.walk():
            counts[f"{node.kind} {node.name}".strip()] += 1
        return np.minimum(np.array(list(counts.values())), 3)

    def _drawn(
        self, rows: Float[np.ndarray, "E D"], trials: Sequence[Told], told: dict[int, Told], temperature: float, seed: int
    ) -> Float[np.ndarray, " E"]:
        """Gains of the edits [E, D], drawn from the posterior (each on its own) given every trial that has a parent."""
        pairs = [(trial, told[trial.parent]) for trial in trials if trial.parent in told]
        shakes = temperature * np.random.default_rng(seed).standard_normal(len(rows))
        alone = self.prior**2 * np.square(rows).sum(1)
        if not pairs:
            return np.sqrt(alone) * shakes
        seen = np.stack([self._row(ticked(trial), ticked(parent), parent) for trial, parent in pairs])
        gains = np.array([trial.score - parent.score for trial, parent in pairs])
        cross = self.prior**2 * rows @ seen.T
        known = self.prior**2 * seen @ seen.T + 2 * self.noise**2 * np.eye(len(seen))
        mean = cross @ np.linalg.solve(known, gains)
        explained = np.einsum("ij,ji->i", cross, np.linalg.solve(known, cross.T))
        return mean + np.sqrt(np.maximum(alone - explained, 0)) * shakes


def ticked(trial: Told) -> Node:
    """The tree of a trial without the leaves that its critic calls never ticked (where their text is unambiguous): it plays alike."""
    tree = parse(trial.text)
    leaves = [unparse(node) for node in tree.walk() if not node.children]
    idle = {text for text in re.findall(r"never ticked: (\([^()]*\))", trial.notes) if leaves.count(text) == 1}
    return _without(tree, idle) or tree


def _without(node: Node, leaves: set[str]) -> Node | None:
    if not node.children:
        return None if unparse(node) in leaves else node
    kept = tuple(child for old in node.children if (child := _without(old, leaves)) is not None)
    if len(kept) == 1 and node.kind in ("selector", "sequence"):
        return kept[0]
    number = min(node.number or 0, len(kept)) if node.kind == "parallel" else node.number
    return replace(node, number=number, children=kept) if kept else None
