"""What a proposer of behaviour trees believes of trees that were not played yet: a Gaussian process over habits and words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from polyact.policies.behaviour_tree.check import Vocabulary
from polyact.policies.behaviour_tree.habits import habits
from polyact.policies.behaviour_tree.syntax import KINDS, Node

MOST = 3  # a word that stands more often counts as often as this


@dataclass(frozen=True)
class Traits:
    """What the belief sees of trees: what they do [K, H] and which words they are written in [K, W]."""

    habits: Float[np.ndarray, "K H"]
    words: Float[np.ndarray, "K W"]

    @classmethod
    def of(cls, trees: Sequence[Node], vocabulary: Vocabulary) -> "Traits":
        return cls(habits(trees, vocabulary), np.stack([_words(tree, vocabulary) for tree in trees]))


@dataclass(frozen=True)
class Belief:
    """The posterior given scores [K] of the trees with these traits.

    Half of the prior variance (`spread` squared) is linear in habits, half belongs to trees of like habits and words; their scales are
    the variances of what was seen. noise: standard deviation of a score.
    """

    seen: Traits
    scores: Float[np.ndarray, " K"]
    spread: float
    noise: float

    def mean(self, traits: Traits) -> Float[np.ndarray, " M"]:
        return self.scores.mean() + self._prior(traits, self.seen) @ self._weights

    def draws(self, traits: Traits, n: int, temperature: float, chance: np.random.Generator) -> Float[np.ndarray, "n M"]:
        """Joint samples of the scores of all these trees, `temperature` times as far from their mean as the posterior's."""
        across = self._prior(traits, self.seen)
        covariance = self._prior(traits, traits) - across @ np.linalg.solve(self._noisy, across.T)
        values, vectors = np.linalg.eigh(covariance)
        shakes = chance.standard_normal((n, len(values))) * np.sqrt(np.maximum(values, 0))
        return self.mean(traits) + temperature * shakes @ vectors.T

    @cached_property
    def _noisy(self) -> Float[np.ndarray, "K K"]:
        return self._prior(self.seen, self.seen) + self.noise**2 * np.eye(len(self.scores))

    @cached_property
    def _weights(self) -> Float[np.ndarray, " K"]:
        return np.linalg.solve(self._noisy, self.scores - self.scores.mean())

    @cached_property
    def _scales(self) -> tuple[float, float]:
        habits, words = (np.square(part - part.mean(0)).sum(1).mean() for part in (self.seen.habits, self.seen.words))
        return max(habits, 1e-9), max(2 * words, 1e-9)

    def _prior(self, one: Traits, other: Traits) -> Float[np.ndarray, "K M"]:
        middle, (done, written) = self.seen.habits.mean(0), self._scales
        linear = (one.habits - middle) @ (other.habits - middle).T / done
        near = np.exp(-_apart(one.habits, other.habits) / done - _apart(one.words, other.words) / written)
        return self.spread**2 * (linear + near) / 2


def explained(scores: Sequence[float], facts: Sequence[Mapping[str, float]], noise: float) -> Float[np.ndarray, " K"]:
    """Scores [K], moved towards what a ridge regression on the facts of the games says they should be.

    Facts such as damage done are less a matter of luck than who won. As much of what they leave unexplained is taken away as its variance
    is luck, whose standard deviation is `noise` (empirical Bayes). A fact that some trial lacks is left out.
    """
    values = np.asarray(scores, float)
    shared = sorted(set.intersection(*(set(told) for told in facts)))
    columns = np.array([[told[name] for name in shared] for told in facts])
    columns = (columns - columns.mean(0)) / np.maximum(columns.std(0), 1e-9)
    gram = columns.T @ columns + 0.01 * len(values) * np.eye(len(shared))
    left = values - values.mean() - columns @ np.linalg.solve(gram, columns.T @ (values - values.mean()))
    return values - min(1.0, noise**2 / max(left.var(), 1e-12)) * left


def _words(tree: Node, vocabulary: Vocabulary) -> Float[np.ndarray, " W"]:
    """Square roots of how often each word stands in the tree."""
    counts = Counter(node.name or node.kind for node in tree.walk())
    return np.sqrt([min(counts[word], MOST) for word in (*KINDS, *vocabulary.facts, *vocabulary.tasks)])


def _apart(one: Float[np.ndarray, "K D"], other: Float[np.ndarray, "M D"]) -> Float[np.ndarray, "K M"]:
    """Squared distances."""
    return np.maximum(np.square(one).sum(1)[:, None] + np.square(other).sum(1) - 2 * one @ other.T, 0)
