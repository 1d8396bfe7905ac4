"""A small language model on this machine as a backend: words in, words out, held to a grammar when there is one."""

import math
from collections.abc import Callable, Collection
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from polyact.errors import PolyactError
from polyact.policies.language.backend import Answer, Completion, LanguageBackend, Request, cut
from polyact.policies.language.base import BEGIN, TokenPolicy
from polyact.policies.language.calls import CallLog

Allowed = Callable[[tuple[int, ...]], Collection[int]]


class Words:
    """Token i is word i; texts are words with spaces between. end: the word that ends an answer, and is not part of it."""

    def __init__(self, words: Collection[str], end: str | None = None):
        self.words, self.numbers = tuple(words), {word: number for number, word in enumerate(words)}
        if len(self.numbers) != len(self.words) or (end is not None and end not in self.numbers):
            raise PolyactError("words must differ from each other, and the end must be one of them")
        self.end = None if end is None else self.numbers[end]

    def encode(self, text: str) -> list[int]:
        """Raises PolyactError for a word that is none of the vocabulary."""
        for word in text.split():
            if word not in self.numbers:
                raise PolyactError(f"the model's vocabulary of {len(self.words)} words has no '{word}'")
        return [self.numbers[word] for word in text.split()]

    def decode(self, tokens: Collection[int]) -> str:
        return " ".join(self.words[token] for token in tokens)


class LocalModel(LanguageBackend):
    """A token policy over a vocabulary of words. longest: tokens of an answer after which it is cut.

    allowed: a grammar: which tokens may follow those that were written; the policy's distribution is renormalised over them, so every
    answer is a sentence of the grammar (or the beginning of one, when it is cut).
    """

    def __init__(
        self,
        policy: TokenPolicy,
        words: Words,
        *,
        longest: int = 64,
        allowed: Allowed | None = None,
        name: str = "local",
        calls: CallLog | None = None,
    ):
        if policy.vocabulary != len(words.words):
            raise PolyactError(f"the model knows {policy.vocabulary} tokens, the vocabulary has {len(words.words)} words")
        self.policy, self.words, self.longest, self.allowed = policy, words, longest, allowed
        self.name, self.calls = name, calls or CallLog()

    def answer(self, request: Request) -> Answer:
        read, memory = self.words.encode(request.text), self.policy.start()
        logits, memory = _step(self.policy, jnp.asarray(BEGIN, jnp.int32), memory)
        for token in read:
            logits, memory = _step(self.policy, jnp.asarray(token, jnp.int32), memory)
        chance = np.random.default_rng(request.seed)
        return Answer(tuple(self._write(request, logits, memory, chance) for _ in range(request.n)), len(read))

    def _write(self, request: Request, logits: Array, memory: Any, chance: np.random.Generator) -> Completion:
        written: list[int] = []
        log_prob, text = 0.0, ""
        while len(written) < self.longest:
            token, log_p = choose(np.asarray(logits, np.float64), self._may_follow(written), request.temperature, chance)
            log_prob += log_p
            if token == self.words.end:
                return Completion(text, len(written) + 1, log_prob)
            written.append(token)
            text, stopped = cut(self.words.decode(written), request.stop)
            if stopped:
                return Completion(text, len(written), log_prob)
            logits, memory = _step(self.policy, jnp.asarray(token, jnp.int32), memory)
        return Completion(text, len(written), log_prob, finished=False)

    def _may_follow(self, written: list[int]) -> list[int] | None:
        if self.allowed is None:
            return None
        tokens = sorted(self.allowed(tuple(written)))
        if not tokens:
            raise PolyactError(f"the grammar allows nothing after '{self.words.decode(written)}'")
        return tokens


def choose(
    logits: Float[np.ndarray, " V"], allowed: list[int] | None, temperature: float, chance: np.random.Generator
) -> tuple[int, float]:
    """A token and its log probability among those allowed; temperature 0: the likeliest, with log probability 0."""
    tokens = np.arange(len(logits)) if allowed is None else np.asarray(allowed)
    scores = logits[tokens]
    if temperature == 0:
        return int(tokens[scores.argmax()]), 0.0
    p = np.exp((scores - scores.max()) / temperature)
    picked = chance.choice(len(tokens), p=p / p.sum())
    return int(tokens[picked]), math.log(p[picked] / p.sum())


@eqx.filter_jit
def _step(policy: TokenPolicy, token: Int[Array, ""], memory: PyTree) -> tuple[Float[Array, " V"], PyTree]:
    return policy.step(token, memory)
