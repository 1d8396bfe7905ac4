"""Questions about facts that the policy does not know but can look up: guess, or write `SEARCH key`, read what the world appends, go on.

What e leads to is a fact; a one-hop question asks for fact(key), a two-hop one for fact(fact(key)). Facts change with every question; only
that one answer (entity 0) is usual can be known beforehand.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from polyact.envs.language.base import FREE, OVER, TokenWorld
from polyact.envs.language.verifiers import answer_after

USUAL = 0
PROMPT, TURN = 2, 3  # tokens: of a question; of a search with its result


class Asked(eqx.Module):
    """A question: number of hops (1 or 2), the key, and all facts."""

    hops: Int[Array, "*batch"]
    key: Int[Array, "*batch"]
    facts: Int[Array, "*batch E"]


class SearchQA(TokenWorld):
    """`entities` things; the policy may search up to `calls` times. luck: how often a fact is the usual entity beyond chance.

    Tokens: entities, then SEARCH, ANSWER, the two kinds of question, NOTHING. A turn is `SEARCH entity`, to which the world appends the
    fact (NOTHING for what is no entity), or `ANSWER entity`, which ends it, as does anything else. Reward 1 iff the answer is right.
    """

    entities: int = eqx.field(static=True, default=8)
    calls: int = eqx.field(static=True, default=3)
    luck: float = eqx.field(static=True, default=0.3)
    hops: tuple[int, ...] = eqx.field(static=True, default=(1, 2))

    @property
    def search(self) -> int:
        return self.entities

    @property
    def answer(self) -> int:
        return self.entities + 1

    @property
    def vocabulary(self) -> int:
        return self.entities + 5

    @property
    def length(self) -> int:
        return PROMPT + TURN * self.calls + 2

    def question(self, key: PRNGKeyArray) -> Asked:
        first, second, third, fourth = jax.random.split(key, 4)
        hops = jax.random.choice(first, jnp.array(self.hops))
        anything = jax.random.randint(third, (self.entities,), 0, self.entities)
        usual = jax.random.bernoulli(fourth, self.luck, (self.entities,))
        return Asked(hops, jax.random.randint(second, (), 1, self.entities), jnp.where(usual, USUAL, anything))

    def truth(self, question: Asked) -> Int[Array, ""]:
        once = question.facts[question.key]
        return jnp.where(question.hops == 1, once, question.facts[once])

    def forced(self, question: Asked, tokens: Int[Array, " T"], position: Int[Array, ""]) -> Int[Array, ""]:
        place = (position - PROMPT) % TURN
        verb = tokens[position - place]
        before = jnp.where(position >= PROMPT + TURN, tokens[position - place - TURN], self.search)
        begin = jnp.where(before == self.search, FREE, OVER)
        argument = jnp.where((verb == self.search) | (verb == self.answer), FREE, OVER)
        result = jnp.where(verb == self.search, self.lookup(question, tokens[position - 1]), OVER)
        prompt = jnp.where(position == 0, self.entities + 1 + question.hops, question.key)
        return jnp.where(position < PROMPT, prompt, jnp.stack([begin, argument, result])[place])

    def lookup(self, question: Asked, entity: Int[Array, ""]) -> Int[Array, ""]:
        """The fact about an entity; NOTHING about any other token."""
        return jnp.where(entity < self.entities, question.facts[jnp.minimum(entity, self.entities - 1)], self.entities + 4)

    def reward(self, question: Asked, tokens: Int[Array, " T"], written: Bool[Array, " T"], key: PRNGKeyArray) -> Float[Array, ""]:
        return (answer_after(tokens, written, self.answer, 1)[0] == self.truth(question)).astype(jnp.float32)

    def demonstration(
        self, question: Asked, key: PRNGKeyArray, searches: tuple[float, ...], understood: float
    ) -> tuple[Int[Array, " T"], Float[Array, " T"]]:
        """A conversation in the right form, as tokens and mask: 0, 1, ... searches with these probabilities, along the chain of facts.

        What is answered: without a search the usual entity; otherwise the last result with probability `understood`, else anything.
        """
        first, second, third = jax.random.split(key, 3)
        count = jax.random.choice(first, jnp.arange(len(searches)), p=jnp.array(searches))
        place = jnp.arange(self.length)

        def follow(entity: Array, _: None) -> tuple[Array, Array]:
            return question.facts[entity], entity

        last, chain = jax.lax.scan(follow, question.key, None, self.calls)
        chain = jnp.concatenate([chain, last[None]])
        anything = jax.random.randint(second, (), 0, self.entities)
        informed = jnp.where(jax.random.bernoulli(third, understood), chain[count], anything)
        turn, within = (place - PROMPT) // TURN, (place - PROMPT) % TURN
        asked, found = (chain[jnp.clip(at, 0, self.calls)] for at in (turn, turn + 1))
        searching = jnp.stack([jnp.full_like(place, self.search), asked, found])
        answering = jnp.stack([self.answer, jnp.where(count == 0, USUAL, informed), 0])
        tokens = jnp.where(turn < count, searching[within, place], jnp.where(turn == count, answering[within], 0))
        prompt = jnp.where(place == 0, self.entities + 1 + question.hops, question.key)
        return jnp.where(place < PROMPT, prompt, tokens), ((place >= PROMPT) & (turn <= count) & (within < 2)).astype(jnp.float32)
