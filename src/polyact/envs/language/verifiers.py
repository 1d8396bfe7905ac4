"""Rewards that are cheap to check: an answer's tokens against those that were asked for. Answers are padded with `PAD` at the end."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

PAD = -1


def exact_match(answer: Int[Array, " A"], target: Int[Array, " A"]) -> Float[Array, ""]:
    """1 when all tokens agree, padding included."""
    return (answer == target).all().astype(jnp.float32)


def token_f1(answer: Int[Array, " A"], target: Int[Array, " B"]) -> Float[Array, ""]:
    """2 |common| / (|answer| + |target|), tokens counted as often as they occur: the score of extractive question answering. 1 for two
    empty ones.
    """
    common = _counted(answer, target)
    total = (answer != PAD).sum() + (target != PAD).sum()
    return jnp.where(total > 0, 2 * common / jnp.maximum(total, 1), 1.0)


def set_match(answer: Int[Array, " A"], target: Int[Array, " B"]) -> Float[Array, ""]:
    """1 when both hold the same tokens, in whatever order and however often."""
    same = answer[:, None] == target[None, :]
    missing = (~same.any(1) & (answer != PAD)).any() | (~same.any(0) & (target != PAD)).any()
    return (~missing).astype(jnp.float32)


def answer_after(tokens: Int[Array, " T"], written: Bool[Array, " T"], marker: int, length: int) -> Int[Array, " A"]:
    """The `length` tokens that follow the last `marker` which the policy wrote; padding when it wrote none, or beyond the end."""
    place = jnp.arange(len(tokens))
    last = jnp.max(jnp.where((tokens == marker) & written, place, -1))
    at = last + 1 + jnp.arange(length)
    return jnp.where((last >= 0) & (at < len(tokens)), tokens[jnp.minimum(at, len(tokens) - 1)], PAD)


def _counted(answer: Array, target: Array) -> Array:
    """How many tokens are common to both, as multisets: the sum over distinct tokens of the smaller count."""
    in_answer = (answer[:, None] == answer[None, :]).sum(1)
    in_target = (answer[:, None] == target[None, :]).sum(1)
    return jnp.where(answer != PAD, jnp.minimum(in_answer, in_target) / jnp.maximum(in_answer, 1), 0.0).sum()
