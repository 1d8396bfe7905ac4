"""Worlds for a language model that is a table (`policies/language/table.py`): a question is a number, everything can be computed.

The first token of a sequence is the question, all others are the policy's. `expected` is the exact expected reward per question under
token probabilities [Q, L, V]. The functions at the end make initial logits with known chances of success.
"""

from abc import abstractmethod
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from polyact.envs.language.base import FREE, OVER, TokenWorld

if TYPE_CHECKING:
    from typing import ClassVar as AbstractVar  # a type checker would take an AbstractVar for an argument of every __init__
else:
    from equinox import AbstractVar

IMPOSSIBLE = -30.0  # a logit that is never drawn


class TableWorld(TokenWorld):
    """Questions 0 .. Q-1, each answered by at most L tokens."""

    questions: AbstractVar[int]

    @abstractmethod
    def expected(self, probabilities: Float[Array, "Q L V"]) -> Float[Array, " Q"]:
        """Expected reward of each question."""

    def question(self, key: PRNGKeyArray) -> Int[Array, ""]:
        return jax.random.randint(key, (), 0, self.questions)

    @property
    def every(self) -> Int[Array, " Q"]:
        """All questions."""
        return jnp.arange(self.questions)


class Match(TableWorld):
    """Reward 1 iff all tokens equal the hidden target [Q, L]."""

    target: Int[Array, "Q L"]
    vocabulary: int = eqx.field(static=True)

    @property
    def questions(self) -> int:
        return self.target.shape[0]

    @property
    def length(self) -> int:
        return self.target.shape[1] + 1

    def forced(self, question: Int[Array, ""], tokens: Int[Array, " T"], position: Int[Array, ""]) -> Int[Array, ""]:
        return jnp.where(position == 0, question, FREE)

    def reward(
        self, question: Int[Array, ""], tokens: Int[Array, " T"], written: Bool[Array, " T"], key: PRNGKeyArray
    ) -> Float[Array, ""]:
        return (tokens[1:] == self.target[question]).all().astype(jnp.float32)

    def expected(self, probabilities: Float[Array, "Q L V"]) -> Float[Array, " Q"]:
        return jnp.take_along_axis(probabilities, self.target[..., None], -1)[..., 0].prod(-1)


class Decoy(TableWorld):
    """One token. The right one pays 1; a tempting one pays 1 with probability 1/2; others pay nothing."""

    right: Int[Array, " Q"]
    tempting: Int[Array, " Q"]
    vocabulary: int = eqx.field(static=True)
    length: int = eqx.field(static=True, default=2)

    @property
    def questions(self) -> int:
        return self.right.shape[0]

    def forced(self, question: Int[Array, ""], tokens: Int[Array, " T"], position: Int[Array, ""]) -> Int[Array, ""]:
        return jnp.where(position == 0, question, FREE)

    def reward(
        self, question: Int[Array, ""], tokens: Int[Array, " T"], written: Bool[Array, " T"], key: PRNGKeyArray
    ) -> Float[Array, ""]:
        lucky = (tokens[1] == self.tempting[question]) & jax.random.bernoulli(key)
        return ((tokens[1] == self.right[question]) | lucky).astype(jnp.float32)

    def expected(self, probabilities: Float[Array, "Q L V"]) -> Float[Array, " Q"]:
        of = jnp.arange(self.questions)
        return probabilities[of, 0, self.right] + 0.5 * probabilities[of, 0, self.tempting]


class GuessOrSearch(TableWorld):
    """Guess at once (token 0), which is right with probability `luck`, or search (token 1) and then pick the one useful token of V."""

    useful: Int[Array, " Q"]
    vocabulary: int = eqx.field(static=True, default=8)
    luck: float = 0.4
    length: int = eqx.field(static=True, default=3)

    @property
    def questions(self) -> int:
        return self.useful.shape[0]

    def forced(self, question: Int[Array, ""], tokens: Int[Array, " T"], position: Int[Array, ""]) -> Int[Array, ""]:
        ended = (position == 2) & (tokens[1] != SEARCH)
        return jnp.where(position == 0, question, jnp.where(ended, OVER, FREE))

    def reward(
        self, question: Int[Array, ""], tokens: Int[Array, " T"], written: Bool[Array, " T"], key: PRNGKeyArray
    ) -> Float[Array, ""]:
        lucky = (tokens[1] == GUESS) & jax.random.bernoulli(key, self.luck)
        found = (tokens[1] == SEARCH) & (tokens[2] == self.useful[question])
        return (lucky | found).astype(jnp.float32)

    def expected(self, probabilities: Float[Array, "Q L V"]) -> Float[Array, " Q"]:
        found = probabilities[jnp.arange(self.questions), 1, self.useful]
        return probabilities[:, 0, GUESS] * self.luck + probabilities[:, 0, SEARCH] * found


GUESS, SEARCH = 0, 1


def logits_with(target: Int[Array, "Q L"], probability: Float[Array, "Q L"], vocabulary: int) -> Float[Array, "Q L V"]:
    """Logits under which each target token has its probability and the others share the rest equally.

    `match` with a spread of difficulties: probability = success ** (1 / L). `forkglue`: near 1 at glue positions, 1 / V at forks.
    """
    rest = (1 - probability) / (vocabulary - 1)
    right = jax.nn.one_hot(target, vocabulary, dtype=bool)
    return jnp.log(jnp.where(right, probability[..., None], rest[..., None]))


def decoy_logits(world: Decoy, tempting: float = 0.5, right: float = 0.02) -> Float[Array, "Q 1 V"]:
    """Logits of a prior that likes the tempting token; the others share what is left equally."""
    token = jnp.arange(world.vocabulary)
    rest = (1 - tempting - right) / (world.vocabulary - 2)
    is_right, is_tempting = (token == place[:, None] for place in (world.right, world.tempting))
    return jnp.log(jnp.where(is_right, right, jnp.where(is_tempting, tempting, rest)))[:, None]


def search_logits(world: GuessOrSearch, searching: float) -> Float[Array, "Q 2 V"]:
    """Logits of a prior that searches with the given probability and then picks any token."""
    first = jnp.full(world.vocabulary, IMPOSSIBLE).at[GUESS].set(jnp.log1p(-searching)).at[SEARCH].set(jnp.log(searching))
    return jnp.broadcast_to(jnp.stack([first, jnp.zeros(world.vocabulary)]), (world.questions, 2, world.vocabulary))
