"""Proposes behaviour trees without a language model: a grammar at first, then what a run has taught so far to believe in.

It reads the same prompts as a language model would (`learning.refine.feedback`) and learns from them alone, at every call anew: how well
trees play that do such things in such words (`learning.tree_belief`), with the luck of the games taken out of their scores as far as the
statistics explain them. It writes many trees, new ones and changes of the best, and proposes those of which it believes most. What a
critic calls never ticked is cut off first, since changing it would change nothing.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import PRNGKeyArray

from polyact.errors import PolyactError
from polyact.learning.refine import Text, Told, chances, read
from polyact.learning.tree_belief import Belief, Traits, explained
from polyact.policies.behaviour_tree.check import Vocabulary
from polyact.policies.behaviour_tree.sample import at, paths, put, random_edit, random_tree
from polyact.policies.behaviour_tree.syntax import Node, parse, unparse


@dataclass(frozen=True)
class TreeEditor:
    """Thompson sampling: each proposal is the best of all candidates in one draw from the belief.

    first: random trees before any belief; fresh, edits: candidates from the grammar, and changes of the trees that are believed best, of
    which there are `parents`; spread, noise: standard deviations of scores over trees, and of one score; restated: facts that say no
    more than the score does.
    """

    vocabulary: Vocabulary
    first: int = 20
    fresh: int = 64
    edits: int = 192
    parents: int = 8
    spread: float = 0.25
    noise: float = 0.06
    restated: tuple[str, ...] = ()

    def propose(
        self, messages: str, key: PRNGKeyArray, n: int, temperature: float = 1.0, stop: Sequence[str] = ()
    ) -> Sequence[Text]:
        """`n` trees as text. temperature: of the posterior that scores are drawn from; 0 takes its mean.

        Raises PolyactError when nothing is left to write that was not tried.
        """
        told, _ = read(messages)
        chance = chances(key)
        if len(told) < max(self.first, 1):
            return [Text(unparse(random_tree(self.vocabulary, chance))) for _ in range(n)]
        trials = list(told.values())
        trees = [ticked(trial) for trial in trials]
        seen = Traits.of(trees, self.vocabulary)
        facts = [{name: value for name, value in trial.facts.items() if name not in self.restated} for trial in trials]
        belief = Belief(seen, explained([trial.score for trial in trials], facts, self.noise), self.spread, self.noise)
        best = np.argsort(-belief.mean(seen))[: self.parents]
        tried = {trial.text for trial in trials}
        written = {text: tree for text, tree in self._candidates([trees[i] for i in best], chance).items() if text not in tried}
        if not written:
            raise PolyactError(f"all of {self.fresh} new trees and {self.edits} changes of the best were tried before")
        traits = Traits.of(list(written.values()), self.vocabulary)
        drawn = belief.draws(traits, n, temperature, np.random.default_rng(chance.getrandbits(32)))
        return [Text(text) for text in _winners(list(written), drawn)]

    def _candidates(self, best: Sequence[Node], chance: random.Random) -> dict[str, Node]:
        written = [random_tree(self.vocabulary, chance) for _ in range(self.fresh)]
        for _ in range(self.edits):
            child = best[min(int(chance.expovariate(0.5)), len(best) - 1)]
            for _ in range(chance.choice((1, 1, 2))):
                crosses = chance.random() < 0.15
                child = self._crossed(child, best, chance) if crosses else random_edit(child, self.vocabulary, chance)
            written.append(child)
        return {unparse(tree): tree for tree in written}

    def _crossed(self, tree: Node, others: Sequence[Node], chance: random.Random) -> Node:
        """With a subtree of another good tree, where that fits; else edited by chance."""
        donor = chance.choice(others)
        child = put(tree, chance.choice(paths(tree)), at(donor, chance.choice(paths(donor))))
        fits = sum(1 for _ in child.walk()) <= self.vocabulary.nodes and child.depth <= self.vocabulary.depth
        return child if fits and child != tree else random_edit(tree, self.vocabulary, chance)


def _winners(texts: list[str], drawn: np.ndarray) -> list[str]:
    """The best text of every draw [n, K] that no draw before it has taken."""
    taken: dict[str, None] = {}
    for values in drawn:
        taken[next((texts[i] for i in np.argsort(-values) if texts[i] not in taken), texts[0])] = None
    return list(taken)


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
