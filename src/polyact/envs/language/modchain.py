"""Arithmetic modulo m with scratch steps: `x0 + x1 * x2 = ` is answered by every partial result from the left, the last of which counts."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from polyact.envs.language.base import FREE, OVER, TokenWorld
from polyact.errors import PolyactError


class Chain(eqx.Module):
    """A question: `start`, then `count` steps (of at most K) that add or multiply."""

    start: Int[Array, "*batch"]
    times: Bool[Array, "*batch K"]
    operand: Int[Array, "*batch K"]
    count: Int[Array, "*batch"]


class ModChain(TokenWorld):
    """Chains of `fewest` to `most` steps modulo `modulus`. Tokens: the numbers, then plus, times and equals.

    The policy writes one number per step; reward 1 iff the last is right. More steps are harder.
    """

    modulus: int = eqx.field(static=True, default=7)
    fewest: int = eqx.field(static=True, default=2)
    most: int = eqx.field(static=True, default=4)

    def __check_init__(self):
        if not (self.modulus >= 2 and 1 <= self.fewest <= self.most):
            raise PolyactError(f"chains need a modulus of 2 or more and 1 <= fewest <= most, got {self.fewest} to {self.most}")

    @property
    def vocabulary(self) -> int:
        return self.modulus + 3

    @property
    def length(self) -> int:
        return 3 * self.most + 2

    def question(self, key: PRNGKeyArray) -> Chain:
        first, second, third, fourth = jax.random.split(key, 4)
        count = jax.random.randint(first, (), self.fewest, self.most + 1)
        start = jax.random.randint(second, (), 0, self.modulus)
        operand = jax.random.randint(third, (self.most,), 1, self.modulus)
        return Chain(start, jax.random.bernoulli(fourth, 0.5, (self.most,)), operand, count)

    def forced(self, question: Chain, tokens: Int[Array, " T"], position: Int[Array, ""]) -> Int[Array, ""]:
        prompt = 2 * question.count + 2
        return jnp.where(
            position < prompt, self._prompt(question)[position], jnp.where(position < prompt + question.count, FREE, OVER)
        )

    def reward(self, question: Chain, tokens: Int[Array, " T"], written: Bool[Array, " T"], key: PRNGKeyArray) -> Float[Array, ""]:
        right = self.solution(question)[question.count - 1]
        return (tokens[3 * question.count + 1] == right).astype(jnp.float32)

    def solution(self, question: Chain) -> Int[Array, " K"]:
        """All partial results."""

        def step(value: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
            value = jnp.where(now[0], value * now[1], value + now[1]) % self.modulus
            return value, value

        return jax.lax.scan(step, question.start, (question.times, question.operand))[1]

    def demonstration(self, question: Chain) -> tuple[Int[Array, " T"], Float[Array, " T"]]:
        """A right answer as tokens, and the mask of what the policy is to write."""
        place, begin = jnp.arange(self.length), 2 * question.count + 2
        free = (place >= begin) & (place < begin + question.count)
        steps = self.solution(question)[jnp.clip(place - begin, 0, self.most - 1)]
        prompt = jnp.where(place < begin, jnp.resize(self._prompt(question), (self.length,)), 0)
        return jnp.where(free, steps, prompt), free.astype(jnp.float32)

    def _prompt(self, question: Chain) -> Int[Array, " P"]:
        """x0, operation, x1, ... and equals after the last step that counts."""
        operation = self.modulus + question.times
        pairs = jnp.stack([operation, question.operand], -1).reshape(-1)
        tokens = jnp.concatenate([question.start[None], pairs, jnp.zeros(1, pairs.dtype)])
        return tokens.at[2 * question.count + 1].set(self.modulus + 2)
